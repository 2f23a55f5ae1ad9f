"""One division of the rows for several targets: what one model learns from for one target, it is not tested on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from probekit.errors import InputError
from probekit.splits.plan import Split, make_splits
from probekit.tasks import Target

FEWEST = 5
"""Rows that a combination of classes needs to be kept in proportion."""


def joint_splits(targets: Sequence[Target], **how: Any) -> list[Split]:
    """Divide the rows that have a label of any target; ``how``: as for ``make_splits``.

    Combinations of classes are kept in proportion, those with fewer than 5 rows taken together. A single target is
    divided as ``make_splits`` divides it.
    """
    first = targets[0]
    if len(targets) == 1:
        return make_splits(first, **how)
    units = np.unique(np.concatenate([target.units for target in targets]))
    codes = _combinations(targets, units)
    n = len(first)
    all_codes = np.full(n, -1)
    all_codes[units] = codes
    task = next((target.task for target in targets if target.task.stratified), first.task)
    names = np.arange(codes.max() + 1)
    name = " and ".join(target.name for target in targets)
    both = replace(
        first,
        name=name,
        task=replace(task, stratified=len(names) > 1),
        y=all_codes,
        codes=all_codes,
        classes=names,
        labelled=None if len(units) == n else units,
        words=None,
    )
    return make_splits(both, **how)


def labelled_part(split: Split, target: Target) -> Split:
    """``split`` without the rows that have no label of ``target``.

    Raises InputError where a part has none left, or the training part one class only.
    """
    has = np.zeros(len(target), dtype=np.bool_)
    has[target.units] = True
    parts = {name: getattr(split, name)[has[getattr(split, name)]] for name in ("train", "val", "test")}
    for name, rows in parts.items():
        if len(rows) == 0:
            raise InputError(f"column {target.name!r}", f"some rows with a label in the {name} part", "none")
    if target.task.stratified and len(np.unique(target.codes[parts["train"]])) < 2:
        raise InputError(f"column {target.name!r}", "at least two classes in the training part", "1")
    return replace(split, **parts)


def _combinations(targets: Sequence[Target], units: NDArray[np.int64]) -> NDArray[np.int64]:
    """(n_units,) a code for each combination of classes (and of which labels are there), rare ones having one code."""
    columns = []
    for target in targets:
        has = np.isin(units, target.units)
        columns.append(np.where(has, target.codes[units] if target.task.stratified else 0, -1))
    _, codes, counts = np.unique(np.column_stack(columns), axis=0, return_inverse=True, return_counts=True)
    codes = codes.reshape(-1)
    common = counts >= FEWEST
    if counts[~common].sum() < FEWEST:  # too few even together: with the commonest
        merged = np.where(common, np.arange(len(counts)), int(np.argmax(counts)))
    else:
        merged = np.where(common, np.arange(len(counts)), len(counts))
    return np.asarray(np.unique(merged[codes], return_inverse=True)[1].reshape(-1), dtype=np.int64)
