"""Take a random part of some rows: plain, stratified by class, or whole groups at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from probekit.splits.order import shuffled


def take_rows(
    codes: NDArray[np.int64], names: Sequence[Any], *, fraction: float, seed: int, leave: int = 1
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
    """Choose whole groups that together hold about ``fraction`` of every class.

    ``codes``: (n,) class of each row. ``groups``: (n,) group of each row. At least one group is chosen and ``leave``
    are left (there must be more than ``leave``). Returns (n,) bool, true where chosen.

    Greedy in random order: a group is taken if that brings the class counts nearer to the wanted ones; first those that
    take no class away entirely, for what is left must train. A rule that looks at the largest groups first would put
    the same ones into the test part for every seed.
    """
    names, group_of = np.unique(groups, return_inverse=True)
    n_classes = int(codes.max()) + 1
    # The rows of each class in each group, without the zeros: thousands of classes and groups would fill the memory.
    pairs, counts = np.unique(group_of * n_classes + codes, return_counts=True)
    starts = np.searchsorted(pairs, np.arange(len(names) + 1) * n_classes)
    left = np.bincount(codes, minlength=n_classes)
    missing = left * fraction

    def rows(group: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        own = slice(starts[group], starts[group + 1])
        return pairs[own] % n_classes, counts[own]

    def gain(group: int) -> float:
        """How much nearer, in squared rows over the classes, ``group`` would bring the counts to the wanted ones."""
        of_class, count = rows(group)
        return float((count * (2 * missing[of_class] - count)).sum())

    def spares(group: int) -> bool:
        """Whether some rows of each class in ``group`` would be left."""
        of_class, count = rows(group)
        return bool((left[of_class] > count).all())

    taken: set[int] = set()
    order: list[int] = shuffled(names, seed=seed).tolist()
    for sparing in (True, False):
        for group in order:
            if len(taken) == len(names) - leave:
                break
            if group not in taken and gain(group) > 0 and (not sparing or spares(group)):
                taken.add(group)
                of_class, count = rows(group)
                missing[of_class] -= count
                left[of_class] -= count
    if not taken:  # every group is more than twice what is wanted: the nearest one
        taken.add(max(order, key=lambda group: (spares(group), gain(group))))
    return np.isin(group_of, list(taken))
