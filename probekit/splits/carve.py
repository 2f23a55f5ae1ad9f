"""Take a random part of some rows: plain, stratified by class, or whole groups at a time; and a random order."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import NDArray

TRIALS = 32
"""Random choices of groups to pick the most even one from."""


def shuffled(names: Iterable[object], *, seed: int) -> NDArray[np.int64]:
    """Positions of ``names`` in a random order, (n,) int64.

    Sorted by a keyed hash of the name, so permuting the rows of an input permutes nothing in its splits.

    >>> first = shuffled(["a", "b", "c"], seed=0)
    >>> again = shuffled(["c", "b", "a"], seed=0)
    >>> ["abc"[i] for i in first] == ["cba"[i] for i in again]
    True
    """
    key = f"probekit split {seed}".encode()
    hashes = [blake2b(str(name).encode("utf-8", "surrogatepass"), key=key, digest_size=16).digest() for name in names]
    return np.array(sorted(range(len(hashes)), key=lambda i: (hashes[i], i)), dtype=np.int64)


def take_rows(
    codes: NDArray[np.int64], names: Sequence[Any], *, fraction: float, seed: int, leave: int
) -> NDArray[np.bool_]:
    """Choose about ``fraction`` of the rows, with every class in proportion.

    ``codes``: (n,) class of each row; all equal for no stratification. ``names``: (n,) row names that fix the draw.
    Returns (n,) bool, true where chosen. From each class of two rows or more, at least one is chosen and ``leave`` are
    left (one, if there are no more than ``leave``); a lone row is left. What rounding leaves over goes to the classes
    with the largest remainders.
    """
    counts = np.bincount(codes)
    exact = counts * fraction
    quota = np.floor(exact).astype(np.int64)
    left_over = round(float(exact.sum())) - int(quota.sum())
    # Stable sort: equal remainders are settled by class order, never by chance.
    quota[np.argsort(quota - exact, kind="stable")[: max(left_over, 0)]] += 1
    quota = np.where(counts >= 2, np.clip(quota, 1, np.maximum(counts - leave, 1)), 0)

    order = shuffled(names, seed=seed)
    by_class = order[np.argsort(codes[order], kind="stable")]
    place_in_class = np.arange(len(codes)) - np.repeat(np.cumsum(counts) - counts, counts)
    chosen = np.zeros(len(codes), dtype=np.bool_)
    chosen[by_class[place_in_class < np.repeat(quota, counts)]] = True
    return chosen


def take_groups(
    codes: NDArray[np.int64], groups: NDArray[Any], *, fraction: float, seed: int, leave: int
) -> NDArray[np.bool_]:
    """Choose about ``fraction`` of the groups, so that they hold about ``fraction`` of every class.

    ``codes``: (n,) class of each row. ``groups``: (n,) group of each row. At least one group is chosen and ``leave``
    are left (there must be more than ``leave``). Returns (n,) bool, true where chosen.

    Of ``TRIALS`` random choices the one whose class counts are nearest to the wanted ones, and before that one that
    leaves rows of every class. Filling up by rows alone would now and then take one huge group and call it a test
    part: a score over a single group says nothing about new groups.
    """
    names, group_of = np.unique(groups, return_inverse=True)
    n_chosen = min(max(1, round(fraction * len(names))), len(names) - leave)
    total = np.bincount(codes)
    best, best_rank = np.zeros(len(codes), dtype=np.bool_), (np.inf, np.inf)
    for trial in range(TRIALS):
        rng = np.random.default_rng([seed, trial])  # over sorted names: the order of the file does not matter
        chosen = np.isin(group_of, rng.permutation(len(names))[:n_chosen])
        counts = np.bincount(codes[chosen], minlength=len(total))
        lost = float(np.count_nonzero((counts == total) & (total > 0)))
        rank = (lost, float(((counts - fraction * total) ** 2).sum()))
        if rank < best_rank:
            best, best_rank = chosen, rank
    return best
