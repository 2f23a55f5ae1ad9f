"""Which rows train, which choose the layer, and which are looked at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from probekit.errors import InputError, SpecError
from probekit.inputs.parts import PART_NAMES, part_named
from probekit.splits.carve import shuffled, take_groups, take_rows
from probekit.tasks import Target
from probekit.tasks.read import is_missing

DEFAULT_FRACTION = 0.2

MIN_TRAIN = 2
"""Rows (of each class), or groups, that training needs: two inner folds."""

PARTS = ("train", "val", "test")

NAMES: dict[str, str] = {"train": "train", "dev": "val", "validation": "val", "test": "test"}
"""The part that each of ``PART_NAMES``' values is."""


@dataclass(frozen=True)
class Column:
    """A named column of the input, ``values``: (n,)."""

    name: str
    values: NDArray[Any]


@dataclass(frozen=True)
class Split:
    """One division of the rows, for one seed.

    ``train``, ``val``, ``test``: disjoint int64 row positions, each in a random order that depends on the row names
    and the seed only, so that the order of the file never matters. ``how``: one phrase for the reader.
    ``n_duplicate``: test rows whose exact text also occurs in train or val. ``n_crossing``: groups with rows in more
    than one part (only with a split column that ignores them). ``warnings``: what a careful reader must know.
    """

    seed: int
    train: NDArray[np.int64]
    val: NDArray[np.int64]
    test: NDArray[np.int64]
    how: str
    n_duplicate: int = 0
    n_crossing: int = 0
    warnings: tuple[str, ...] = ()


def make_splits(
    target: Target,
    *,
    ids: Sequence[Any] | NDArray[Any],
    texts: Sequence[str] | None = None,
    groups: Column | None = None,
    split: Column | None = None,
    fraction: float = DEFAULT_FRACTION,
    seeds: Sequence[int] = (0,),
) -> list[Split]:
    """Divide the rows, once per seed.

    With a ``split`` column the parts are the input's own; a missing validation or test part is carved from its training
    rows. Without one, ``fraction`` of the rows is the test part and ``fraction`` of the rest the validation part.
    Carving keeps classes in proportion, and whole groups together wherever ``groups`` is given. A split column that
    puts rows of one group into several parts is honoured, counted and warned about. Rows without a label are in no
    part, and neither their group nor their split matters. ``ids``: (n,) unique row names; they and the seed fix the
    draw. ``texts``: (n,) for counting duplicates.

    Raises ``SpecError`` for a fraction outside 0..0.5 or no seed; ``InputError`` for a class or a number of groups
    that is too small to divide, for a row without a group, for a split column with unknown values, and for columns of
    another length or repeated ids.
    """
    if not 0.0 < fraction <= 0.5:
        raise SpecError(f"--split {fraction}", "a fraction above 0 and at most 0.5, or the name of a column")
    if len(seeds) == 0 or len(set(seeds)) != len(seeds):
        raise SpecError("--seeds", "at least one seed, none twice", str(list(seeds)))
    rows = _Rows(target, ids, texts, groups, split)
    _check_columns(rows)
    parts = own_parts(target, split)
    _check_sizes(rows, parts)
    return [_one_split(rows, parts, fraction=fraction, seed=seed) for seed in seeds]


@dataclass(frozen=True)
class _Rows:
    """What is known of the rows, as given to ``make_splits``."""

    target: Target
    ids: Sequence[Any] | NDArray[Any]
    texts: Sequence[str] | None
    groups: Column | None
    split: Column | None


def read_parts(values: Sequence[Any] | NDArray[Any], name: str) -> dict[str, NDArray[np.int64]]:
    """Row positions of "train", "val" and "test", each (k,) int64 ascending, empty where the column has none.

    A value may have more words than the part's name (``validation_matched``, ``test-0``), but not another part's.

    >>> {part: rows.tolist() for part, rows in read_parts(["Train", "dev_1", "train"], "split").items()}
    {'train': [0, 2], 'val': [1], 'test': []}

    Raises ``InputError`` for a value that names no part, and where no row is for training.
    """
    named = {value: part_named(value) for value in set(map(str, values))}
    unknown = [repr(value) for value, part in sorted(named.items()) if part is None]
    if unknown:
        allowed = f"values are {', '.join(PART_NAMES)} (any case)"
        raise InputError(f"split column {name!r}", allowed, _first_five(unknown))
    part_of = np.array([NAMES[named[str(value)] or ""] for value in values])
    rows = {part: np.flatnonzero(part_of == part).astype(np.int64) for part in PARTS}
    if len(rows["train"]) == 0:
        raise InputError(f"split column {name!r}", "some rows must be 'train'", ", ".join(sorted(named)))
    return rows


def own_parts(target: Target, split: Column | None) -> dict[str, NDArray[np.int64]]:
    """Positions of the labelled rows of "train", "val" and "test" by the ``split`` column; all "train" without one."""
    rows = target.units
    if split is None:
        return {"train": rows, "val": np.empty(0, dtype=np.int64), "test": np.empty(0, dtype=np.int64)}
    try:
        parts = read_parts(split.values[rows], split.name)
    except InputError as error:
        if target.labelled is None:
            raise
        source = f"{error.source}, of the {len(rows):,} rows with a label in {target.name!r}"
        raise InputError(source, error.allowed, error.got) from error
    return {part: rows[at] for part, at in parts.items()}


def _one_split(rows: _Rows, own: Mapping[str, NDArray[np.int64]], *, fraction: float, seed: int) -> Split:
    parts = dict(own)
    carved = [part for part in ("test", "val") if len(parts[part]) == 0]
    for done, part in enumerate(carved, start=1):
        to_carve = len(carved) - done
        chosen = _carve(rows, parts["train"], fraction=fraction, seed=seed, to_carve=to_carve)
        parts[part], parts["train"] = parts["train"][chosen], parts["train"][~chosen]
    _check_train(rows, parts["train"])
    parts = {part: at[shuffled([rows.ids[i] for i in at], seed=seed)] for part, at in parts.items()}
    found = Split(
        seed=seed,
        train=parts["train"],
        val=parts["val"],
        test=parts["test"],
        how=_describe(rows, carved=carved, fraction=fraction),
        n_duplicate=_count_duplicates(rows, parts),
        n_crossing=_count_crossing(rows, parts),
    )
    return replace(found, warnings=_warnings(rows, found))


def _carve(rows: _Rows, at: NDArray[np.int64], *, fraction: float, seed: int, to_carve: int) -> NDArray[np.bool_]:
    """Which of the rows ``at`` to take, leaving enough for training and ``to_carve`` more parts."""
    leave = MIN_TRAIN + to_carve
    if rows.groups is not None:
        return take_groups(rows.target.strata[at], rows.groups.values[at], fraction=fraction, seed=seed, leave=leave)
    return take_rows(rows.target.strata[at], [rows.ids[i] for i in at], fraction=fraction, seed=seed, leave=leave)


def _check_columns(rows: _Rows) -> None:
    """Refuse columns of another length, repeated ids and rows without a group."""
    n, ids, groups = len(rows.target), rows.ids, rows.groups
    lengths = {"ids": len(ids)}
    if rows.texts is not None:
        lengths["texts"] = len(rows.texts)
    if groups is not None:
        lengths[f"group column {groups.name!r}"] = len(groups.values)
    if rows.split is not None:
        lengths[f"split column {rows.split.name!r}"] = len(rows.split.values)
    for name, length in lengths.items():
        if length != n:
            raise InputError(name, f"one value for each of the {n} rows", str(length))
    if len({str(name) for name in ids}) != n:
        raise InputError("ids", "row names must be unique, for they fix which row goes where")
    if groups is not None:
        labelled = rows.target.units
        missing = labelled[is_missing(np.asarray(groups.values)[labelled])]
        if len(missing):
            more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
            raise InputError(
                f"example {ids[missing[0]]!s}, group column {groups.name!r}",
                f"every example must have a group{more}",
                "none",
            )


def _check_sizes(rows: _Rows, parts: Mapping[str, NDArray[np.int64]]) -> None:
    """Refuse what can't be divided: too few rows of a class, too few groups, too few rows."""
    train = parts["train"]
    least = MIN_TRAIN + sum(len(parts[part]) == 0 for part in ("val", "test"))
    target, where = rows.target, "" if rows.split is None else f" among the training rows of {rows.split.name!r}"
    if len(train) < least:
        labelled = "" if target.labelled is None else " with a label"
        raise InputError(f"column {target.name!r}", f"at least {least} rows{labelled}{where}", str(len(train)))
    if rows.groups is not None:
        n_groups = len(np.unique(rows.groups.values[train]))
        if n_groups < least:
            raise InputError(f"group column {rows.groups.name!r}", f"at least {least} groups{where}", str(n_groups))
    if not target.task.stratified:
        return
    counts = np.bincount(target.codes[train], minlength=len(target.classes))
    if np.count_nonzero(counts) < 2:
        raise InputError(f"column {target.name!r}", f"at least two classes{where}", str(np.count_nonzero(counts)))
    if rows.groups is None and rows.split is None and counts.min() < least:
        rare = [f"{target.classes[c]!s} ({counts[c]})" for c in np.flatnonzero(counts < least)]
        message = f"at least {least} rows of each class, to split it (--drop-rare {least} leaves out rarer classes)"
        raise InputError(f"column {target.name!r}", message, _first_five(rare))


def _check_train(rows: _Rows, train: NDArray[np.int64]) -> None:
    """Whole groups may have taken a class along."""
    if rows.target.task.stratified and len(np.unique(rows.target.codes[train])) < 2:
        raise InputError(
            f"column {rows.target.name!r}",
            "at least two classes in the training part; each class must be in several groups",
            f"only {rows.target.classes[rows.target.codes[train[0]]]!s} left after splitting",
        )


def _count_crossing(rows: _Rows, parts: dict[str, NDArray[np.int64]]) -> int:
    if rows.groups is None:
        return 0
    seen = [set(rows.groups.values[at].tolist()) for at in parts.values()]
    return len((seen[0] & seen[1]) | (seen[0] & seen[2]) | (seen[1] & seen[2]))


def _count_duplicates(rows: _Rows, parts: dict[str, NDArray[np.int64]]) -> int:
    if rows.texts is None:
        return 0
    known = {rows.texts[i] for part in ("train", "val") for i in parts[part]}
    return sum(rows.texts[i] in known for i in parts["test"])


def _describe(rows: _Rows, *, carved: list[str], fraction: float) -> str:
    manner = "stratified" if rows.target.task.stratified else "at random"
    if rows.groups is not None:
        manner = f"grouped by {rows.groups.name}"
    if rows.split is None:
        return f"{fraction:.0%} test, {manner}"
    if not carved:
        return f"column {rows.split.name!r}"
    names = " and ".join({"val": "validation", "test": "test"}[part] for part in carved)
    return f"column {rows.split.name!r}, {names} taken from train ({fraction:.0%}, {manner})"


def _warnings(rows: _Rows, split: Split) -> tuple[str, ...]:
    found: list[str] = []
    if split.n_crossing and rows.groups is not None and rows.split is not None:
        found.append(
            f"LEAK: {split.n_crossing} groups of {rows.groups.name!r} have rows in more than one part of the split "
            f"column {rows.split.name!r}; scores may be too high (give a fraction instead of the column to split by "
            "group)"
        )
    if split.n_duplicate:
        found.append(f"{split.n_duplicate} of {len(split.test)} test texts also occur in train or validation")
    if rows.target.task.stratified:
        train, test = rows.target.codes[split.train], rows.target.codes[split.test]
        for part, other, lacking in (
            ("training", "test", np.setdiff1d(test, train)),
            ("test", "training", np.setdiff1d(train, test)),
        ):
            if len(lacking):
                names = _first_five([str(rows.target.classes[c]) for c in lacking])
                found.append(f"no {part} rows for {len(lacking)} classes of the {other} part: {names}")
    return tuple(found)


def _first_five(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (", …" if len(names) > 5 else "")
