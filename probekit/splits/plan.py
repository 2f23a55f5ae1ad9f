"""Which rows train, which choose the layer, and which are looked at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from probekit.errors import InputError, SpecError
from probekit.splits.carve import take_groups, take_rows
from probekit.splits.official import read_parts
from probekit.splits.order import shuffled
from probekit.tasks import Target
from probekit.tasks.read import is_missing

DEFAULT_FRACTION = 0.2

MIN_TRAIN_ROWS = 2
"""Rows (of each class) that training needs: two inner folds."""

MIN_TRAIN_GROUPS = 2
"""Groups that training needs: two inner folds."""

OTHER = {"training": "test", "test": "training"}


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
    _check_columns(target, ids=ids, texts=texts, groups=groups, split=split)
    rows = _Rows(target, ids, texts, groups, split, own_parts(target, split))
    _check(rows)
    return [_one_split(rows, fraction=fraction, seed=seed) for seed in seeds]


@dataclass(frozen=True)
class _Rows:
    """What is known of the rows; ``parts`` by the split column, or all of them "train" without one."""

    target: Target
    ids: Sequence[Any] | NDArray[Any]
    texts: Sequence[str] | None
    groups: Column | None
    split: Column | None
    parts: dict[str, NDArray[np.int64]]


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


def _one_split(rows: _Rows, *, fraction: float, seed: int) -> Split:
    parts = dict(rows.parts)
    carved = [part for part in ("test", "val") if len(parts[part]) == 0]
    for done, part in enumerate(carved, start=1):
        to_carve = len(carved) - done
        chosen = _carve(rows, parts["train"], fraction=fraction, seed=seed, to_carve=to_carve)
        parts[part], parts["train"] = parts["train"][chosen], parts["train"][~chosen]
    _check_train(rows, parts["train"])
    parts = {part: at[shuffled([rows.ids[i] for i in at], seed=seed)] for part, at in parts.items()}
    n_crossing = _count_crossing(rows, parts)
    n_duplicate = _count_duplicates(rows, parts)
    return Split(
        seed=seed,
        train=parts["train"],
        val=parts["val"],
        test=parts["test"],
        how=_describe(rows, carved=carved, fraction=fraction),
        n_duplicate=n_duplicate,
        n_crossing=n_crossing,
        warnings=_warnings(rows, parts, n_crossing=n_crossing, n_duplicate=n_duplicate),
    )


def _carve(rows: _Rows, at: NDArray[np.int64], *, fraction: float, seed: int, to_carve: int) -> NDArray[np.bool_]:
    """Which of the rows ``at`` to take, leaving enough for training and ``to_carve`` more parts."""
    if rows.groups is not None:
        leave = MIN_TRAIN_GROUPS + to_carve
        return take_groups(rows.target.strata[at], rows.groups.values[at], fraction=fraction, seed=seed, leave=leave)
    leave = MIN_TRAIN_ROWS + to_carve
    return take_rows(rows.target.strata[at], [rows.ids[i] for i in at], fraction=fraction, seed=seed, leave=leave)


def _check_columns(
    target: Target,
    *,
    ids: Sequence[Any] | NDArray[Any],
    texts: Sequence[str] | None,
    groups: Column | None,
    split: Column | None,
) -> None:
    n, lengths = len(target), {"ids": len(ids)}
    if texts is not None:
        lengths["texts"] = len(texts)
    if groups is not None:
        lengths[f"group column {groups.name!r}"] = len(groups.values)
    if split is not None:
        lengths[f"split column {split.name!r}"] = len(split.values)
    for name, length in lengths.items():
        if length != n:
            raise InputError(name, f"one value for each of the {n} rows", str(length))
    if len({str(name) for name in ids}) != n:
        raise InputError("ids", "row names must be unique, for they fix which row goes where")
    if groups is not None:
        missing = target.units[is_missing(np.asarray(groups.values)[target.units])]
        if len(missing):
            more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
            raise InputError(
                f"example {ids[missing[0]]!s}, group column {groups.name!r}",
                f"every example must have a group{more}",
                "none",
            )


def _check(rows: _Rows) -> None:
    """Refuse what can't be divided: too few rows of a class, too few groups, too few rows."""
    train = rows.parts["train"]
    n_parts = 1 + sum(len(rows.parts[part]) == 0 for part in ("val", "test"))
    target, where = rows.target, "" if rows.split is None else f" among the training rows of {rows.split.name!r}"
    least = MIN_TRAIN_ROWS + n_parts - 1
    if len(train) < least:
        labelled = "" if target.labelled is None else " with a label"
        raise InputError(f"column {target.name!r}", f"at least {least} rows{labelled}{where}", str(len(train)))
    if rows.groups is not None:
        n_groups, least = len(np.unique(rows.groups.values[train])), MIN_TRAIN_GROUPS + n_parts - 1
        if n_groups < least:
            raise InputError(f"group column {rows.groups.name!r}", f"at least {least} groups{where}", str(n_groups))
    if not target.task.stratified:
        return
    counts = np.bincount(target.codes[train], minlength=len(target.classes))
    if np.count_nonzero(counts) < 2:
        raise InputError(f"column {target.name!r}", f"at least two classes{where}", str(np.count_nonzero(counts)))
    if rows.groups is None and rows.split is None and counts.min() < least:
        rare = [f"{target.classes[c]!s} ({counts[c]})" for c in np.flatnonzero(counts < least)]
        shown = ", ".join(rare[:5]) + (", …" if len(rare) > 5 else "")
        message = f"at least {least} rows of each class, to split it (--drop-rare {least} leaves out rarer classes)"
        raise InputError(f"column {target.name!r}", message, shown)


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


def _warnings(
    rows: _Rows, parts: dict[str, NDArray[np.int64]], *, n_crossing: int, n_duplicate: int
) -> tuple[str, ...]:
    found: list[str] = []
    if n_crossing and rows.groups is not None and rows.split is not None:
        found.append(
            f"LEAK: {n_crossing} groups of {rows.groups.name!r} have rows in more than one part of the split column "
            f"{rows.split.name!r}; scores may be too high (give a fraction instead of the column to split by group)"
        )
    if n_duplicate:
        found.append(f"{n_duplicate} of {len(parts['test'])} test texts also occur in train or validation")
    if rows.target.task.stratified:
        train, test = (rows.target.codes[parts[part]] for part in ("train", "test"))
        for part, lacking in (("training", np.setdiff1d(test, train)), ("test", np.setdiff1d(train, test))):
            if len(lacking):
                names = ", ".join(str(rows.target.classes[c]) for c in lacking[:5]) + (
                    ", …" if len(lacking) > 5 else ""
                )
                found.append(f"no {part} rows for {len(lacking)} classes of the {OTHER[part]} part: {names}")
    return tuple(found)
