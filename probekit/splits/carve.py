"""Take a random part of some rows: plain, stratified by class, or whole groups at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from probekit.splits.order import shuffled


def take_rows(codes: NDArray[np.int64], names: Sequence[Any], *, fraction: float, seed: int) -> NDArray[np.bool_]:
    """Choose about ``fraction`` of the rows, with every class in proportion.

    ``codes``: (n,) class of each row; all equal for no stratification. ``names``: (n,) row names that fix the draw.
    Returns (n,) bool, true where chosen. From each class of two rows or more, at least one is chosen and one is left;
    a lone row is left. What rounding leaves over goes to the classes with the largest remainders.
    """
    counts = np.bincount(codes)
    exact = counts * fraction
    quota = np.floor(exact).astype(np.int64)
    left_over = round(float(exact.sum())) - int(quota.sum())
    # Stable sort: equal remainders are settled by class order, never by chance.
    quota[np.argsort(quota - exact, kind="stable")[: max(left_over, 0)]] += 1
    quota = np.where(counts >= 2, np.clip(quota, 1, counts - 1), 0)

    order = shuffled(names, seed=seed)
    chosen = np.zeros(len(codes), dtype=np.bool_)
    for code, wanted in enumerate(quota):
        chosen[order[codes[order] == code][:wanted]] = True
    return chosen


def take_groups(
    codes: NDArray[np.int64], groups: NDArray[Any], *, fraction: float, seed: int, leave: int
) -> NDArray[np.bool_]:
    """Choose whole groups that together hold about ``fraction`` of every class.

    ``codes``: (n,) class of each row. ``groups``: (n,) group of each row. At least one group is chosen and ``leave``
    are left (there must be more than ``leave``). Returns (n,) bool, true where chosen.

    Greedy in random order: a group is taken if that brings the class counts nearer to the wanted ones. A rule that
    looks at the largest groups first would put the same ones into the test part for every seed.
    """
    names, group_of = np.unique(groups, return_inverse=True)
    counts = np.zeros((len(names), int(codes.max()) + 1))
    np.add.at(counts, (group_of, codes), 1.0)
    wanted = counts.sum(axis=0) * fraction

    taken: list[int] = []
    so_far = np.zeros_like(wanted)
    order = shuffled(names, seed=seed)
    for group in order:
        if len(taken) == len(names) - leave:
            break
        if _distance(so_far + counts[group], wanted) < _distance(so_far, wanted):
            taken.append(int(group))
            so_far += counts[group]
    if not taken:  # every group is more than twice what is wanted: the nearest one
        taken = [int(min(order, key=lambda group: _distance(counts[group], wanted)))]
    return np.isin(group_of, taken)


def _distance(have: NDArray[np.float64], wanted: NDArray[np.float64]) -> float:
    return float(((have - wanted) ** 2).sum())
