"""A label column becomes a target: classes or numbers, coded; rows without a label are known and left out."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from probekit.errors import InputError, SpecError
from probekit.tasks.label_sets import indicator_matrix, label_lists, parse_lists
from probekit.tasks.spelling import alike

Kind = Literal["classification", "regression", "multilabel", "tags", "entities"]
"""Tags and entities are of words, all others of whole texts."""

KINDS: tuple[Kind, ...] = ("classification", "regression", "multilabel")

FEW_CLASSES = 20
"""Whole numbers with at most this many different values are taken for class codes."""

ROWS_PER_CODE = 10
"""Whole numbers 0..k-1 without a gap are class codes for any k, if there are this many rows per code."""


LARGEST_WHOLE = 2.0**53
"""Beyond it not every whole number is a float64."""

COMMA_DECIMAL = re.compile(r"[+-]?(?:[0-9]+|[0-9]{1,3}(?:\.[0-9]{3})+)?,[0-9]+(?:[eE][+-]?[0-9]+)?")
WHOLE = re.compile(r"[+-]?[0-9]+")
NEARLY_ALL = 0.9
"""Of the labels of a column, so that a stray word does not hide what it is."""

MOST_SHOWN = 5
"""Classes that a message names."""


@dataclass(frozen=True)
class Task:
    """What kind of label it is, and how that was found out (``how``, one phrase for the reader).

    ``otherwise``: the task that whole numbers might have been meant for instead; "" where nothing was guessed from
    whole numbers.
    """

    kind: Kind
    how: str
    otherwise: str = field(default="", repr=False)


@dataclass(frozen=True)
class Target:
    """The labels of n rows, of which some may have none.

    ``y``: what probes are fitted on: (n,) float64 numbers, (n,) class labels as they came (str, int64 or bool), or, for
    several labels per row, (n, n_classes) 0 or 1. ``classes``: (n_classes,) sorted labels; empty for numbers.
    ``codes``: (n,) int64 position of each label in ``classes``, where there is one per row, else empty.
    ``labelled``: ascending positions of the rows that have a label, or None where all have; what ``y`` and ``codes``
    hold of the other rows means nothing, and no split has them. ``n_missing``: rows without a label; ``n_rare``: rows
    whose class was left out as too rare. ``notes``: what a careful reader must know of the labels, one sentence each.
    """

    name: str
    task: Task
    y: NDArray[Any]
    classes: NDArray[Any]
    codes: NDArray[np.int64]
    labelled: NDArray[np.int64] | None = None
    n_missing: int = 0
    n_rare: int = 0
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.y)

    @property
    def rows(self) -> NDArray[np.int64]:
        """(n_labelled,) ascending positions of the rows that have a label."""
        return np.arange(len(self)) if self.labelled is None else self.labelled

    @property
    def is_classes(self) -> bool:
        """Whether every row has one class."""
        return self.task.kind == "classification"

    @property
    def truth(self) -> NDArray[Any]:
        """What metrics compare with: class codes (n,), numbers (n,), or 0 and 1 (n, n_classes)."""
        return self.codes if self.is_classes else self.y

    def labels(self, predicted: NDArray[Any]) -> NDArray[Any]:
        """Predictions as labels, (n,): names of class codes (-1: ""), lists of names of 0 and 1, or numbers."""
        if self.task.kind == "multilabel":
            return label_lists(predicted, self.classes)
        if not len(self.classes):
            return predicted
        labels, unknown = self.classes[predicted], predicted < 0
        # (Of tags alone, which are text; labels that are numbers or true/false stay so.)
        return np.where(unknown, "", labels) if unknown.any() else labels


def guess_task(y: ArrayLike, name: str = "target") -> Task:
    """Tell classes from numbers.

    Text and booleans are classes; numbers with a decimal type are numbers. Whole numbers are ambiguous (a class code or
    a count?): they are classes if they have at most 20 different values, each twice or more on average, or if they are
    0..k-1 without a gap with 10 rows or more per value; numbers otherwise.

    >>> guess_task([3, 1, 2, 1, 2, 3], "grade")
    Task(kind='classification', how='guessed from 3 different whole numbers')
    >>> guess_task([0.0, 1.0, 0.0]).kind
    'regression'

    Raises ``InputError`` for a column of another type (dates, lists).
    """
    values = np.asarray(y)
    if values.dtype.kind in "US" or (values.dtype.kind == "O" and all(isinstance(v, str) for v in values)):
        return Task("classification", "guessed from text labels")
    if values.dtype.kind == "b":
        return Task("classification", "guessed from true/false labels")
    if values.dtype.kind == "f":
        return Task("regression", "guessed from decimal numbers")
    if values.dtype.kind not in "iu":
        raise InputError(f"column {name!r}", "labels are text, true/false or numbers", _type_of(values))
    if len(values) == 0:
        raise InputError(f"column {name!r}", "at least one row")
    distinct = np.unique(values)
    few = len(distinct) <= FEW_CLASSES and len(values) >= 2 * len(distinct)
    coded = distinct[0] == 0 and distinct[-1] == len(distinct) - 1 and len(values) >= ROWS_PER_CODE * len(distinct)
    kind, other = ("classification", "regression") if few or coded else ("regression", "classification")
    return Task(kind, f"guessed from {len(distinct)} different whole numbers", other)  # type: ignore[arg-type]


def read_target(
    values: ArrayLike,
    name: str,
    *,
    ids: Sequence[Any] | NDArray[Any],
    task: str = "auto",
    drop_rare: int = 0,
) -> Target:
    """Check a label column and code it.

    ``values``: (n,) labels; NaN, None and blank text are none. ``ids``: (n,) row names, for messages. ``task``: "auto",
    "classification", "regression" or "multilabel"; a column of lists (JSON text, as ``["a","b"]``; ``[]`` is a row
    that has none of the labels) is several labels per row. ``drop_rare``: leave out classes with fewer rows, and the
    rows of such a class (of several labels per row: the label alone). Whole numbers beside gaps, which NumPy can only
    hold as floats, are taken as whole.

    Raises ``InputError`` where no row has a label and for labels that the task can't use; ``SpecError`` for an unknown
    task.
    """
    y = np.asarray(values)
    if y.ndim != 1 or len(y) != len(ids):
        raise InputError(f"column {name!r}", f"one label for each of the {len(ids)} rows", f"shape {y.shape}")
    if len(y) == 0:
        raise InputError(f"column {name!r}", "at least one row")
    if task not in ("auto", *KINDS):
        raise SpecError(f"--task {task}", f"one of auto, {', '.join(KINDS)}")
    rows = np.flatnonzero(~is_missing(y))
    if len(rows) == 0:
        raise InputError(f"column {name!r}", "at least one row with a label", f"none in {len(y):,} rows")
    given = y[rows]
    if len(rows) < len(y) and given.dtype.kind == "f" and _are_whole(given):
        given = given.astype(np.int64)
    found = _read_labels(given, name, ids=np.asarray(ids, dtype=np.object_)[rows], task=task)
    found = _drop_rare(found, drop_rare)
    return spread(found, rows if found.labelled is None else rows[found.labelled], len(y))


def _read_labels(y: NDArray[Any], name: str, *, ids: NDArray[Any], task: str) -> Target:
    """The target of labels of which none is missing."""
    lists = parse_lists(y) if task in ("auto", "multilabel") else None
    if lists is not None:
        matrix, names = indicator_matrix(lists, name, ids)
        how = "as asked" if task == "multilabel" else "guessed from lists"
        return Target(name, Task("multilabel", how), matrix, names, np.empty(0, dtype=np.int64))
    if task == "multilabel" or (task == "auto" and _look_like_lists(y)):
        raise InputError(f"column {name!r}", 'several labels per row are JSON lists, as ["a","b"]', repr(y[0]))
    if task != "classification":
        _check_comma_decimals(y, name, task)
    found = guess_task(y, name) if task == "auto" else Task("classification", "as asked")
    if task == "regression" or found.kind == "regression":
        return _numbers(y, name, Task("regression", "as asked") if task != "auto" else found)
    return _classes(y, name, found)


def spread(target: Target, rows: NDArray[np.int64], n: int) -> Target:
    """``target``, whose labels are those of ``rows`` of n, as a target of all n rows, with what is to be said of it."""
    n_missing = n - len(rows) - target.n_rare
    missing = f"{target.name}: {n_missing:,} of {n:,} rows have no label and are left out"
    notes = ((missing,) if n_missing else ()) + target.notes + _spellings(target)
    if len(rows) == n:
        return replace(target, labelled=None, notes=notes)
    y = np.zeros((n, *target.y.shape[1:]), dtype=target.y.dtype)  # (as wide as the longest label)
    if target.task.kind == "regression":
        y[:] = np.nan
    y[rows] = target.y
    codes = np.full(n, -1) if len(target.codes) else target.codes
    if len(target.codes):
        codes[rows] = target.codes
    return replace(target, y=y, codes=codes, labelled=rows, n_missing=n_missing, notes=notes)


def _spellings(target: Target) -> tuple[str, ...]:
    """Classes that are text and nearly one another."""
    pairs = alike([str(c) for c in target.classes]) if target.classes.dtype.kind in "OU" else []
    shown = "; ".join(f"{a!r} and {b!r}" for a, b in pairs[:MOST_SHOWN]) + ("; …" if len(pairs) > MOST_SHOWN else "")
    what = f"{target.name}: classes that differ only in blanks, upper and lower case or Unicode form"
    return (f"{what} are kept apart: {shown}",) if pairs else ()


def _drop_rare(target: Target, fewest: int) -> Target:
    """Without the classes that have fewer rows than ``fewest``; ``labelled``: the rows that are left of its own."""
    if target.task.kind not in ("classification", "multilabel") or fewest <= 1:
        return target
    several = target.task.kind == "multilabel"
    counts = target.y.sum(axis=0) if several else np.bincount(target.codes, minlength=len(target.classes))
    rare = np.flatnonzero(counts < fewest)
    if len(rare) == 0:
        return target
    kept = np.setdiff1d(np.arange(len(target.classes)), rare)
    if len(kept) < 2:
        allowed = f"must leave at least two classes of column {target.name!r}"
        raise SpecError(f"--drop-rare {fewest}", allowed, f"{len(kept)} with so many rows")
    shown = _shown_counts(target, rare, counts)
    what = f"{target.name}: {len(rare):,} classes with fewer than {fewest:,} rows are left out"
    if several:
        return replace(target, y=target.y[:, kept], classes=target.classes[kept], notes=(f"{what}: {shown}",))
    rows = np.flatnonzero(~np.isin(target.codes, rare))
    n_rare = len(target) - len(rows)
    return replace(
        target,
        y=target.y[rows],
        classes=target.classes[kept],
        codes=np.searchsorted(kept, target.codes[rows]).astype(np.int64),
        labelled=rows,
        n_rare=n_rare,
        notes=(f"{what}, {n_rare:,} rows in all: {shown}",),
    )


def _shown_counts(target: Target, which: NDArray[np.int64], counts: NDArray[np.int64]) -> str:
    names = [f"{target.classes[c]!s} ({counts[c]})" for c in which[:MOST_SHOWN]]
    return ", ".join(names) + (", …" if len(which) > MOST_SHOWN else "")


def _are_whole(y: NDArray[Any]) -> bool:
    return bool(np.isfinite(y).all() and np.array_equal(y, np.round(y)) and np.abs(y).max() <= LARGEST_WHOLE)


def _check_comma_decimals(y: NDArray[Any], name: str, task: str) -> None:
    """Numbers with a decimal comma are text to every reader, and would be as many classes as there are numbers."""
    if y.dtype.kind not in "OU":
        return
    cells = [str(cell).strip() for cell in y]
    commas = [cell for cell in cells if COMMA_DECIMAL.fullmatch(cell)]
    n_whole = sum(WHOLE.fullmatch(cell) is not None for cell in cells)
    if commas and len(commas) + n_whole >= NEARLY_ALL * len(cells):
        classes = "" if task == "regression" else f" (--task {name}=classification reads them as classes)"
        raise InputError(f"column {name!r}", f"numbers have a decimal point, not a comma{classes}", repr(commas[0]))


def _numbers(y: NDArray[Any], name: str, task: Task) -> Target:
    if y.dtype.kind not in "iufb":
        raise InputError(f"column {name!r}", "--task regression needs numbers", _type_of(y))
    numbers = y.astype(np.float64)
    if not np.isfinite(numbers).all():
        raise InputError(f"column {name!r}", "numbers must be finite", "inf")
    if numbers.min() == numbers.max():
        raise InputError(f"column {name!r}", "at least two different values to tell apart", f"only {numbers[0]:g}")
    return Target(name, task, numbers, np.empty(0), np.empty(0, dtype=np.int64))


def _classes(y: NDArray[Any], name: str, task: Task) -> Target:
    labels = y
    if y.dtype.kind == "f":
        if not np.array_equal(y, np.round(y)) or np.abs(y).max() > LARGEST_WHOLE:
            raise InputError(f"column {name!r}", "--task classification needs text or whole numbers", "decimal numbers")
        labels = y.astype(np.int64)
    elif y.dtype.kind == "O":
        labels = y.astype(np.str_)
    classes, codes = np.unique(labels, return_inverse=True)
    if len(classes) < 2:
        raise InputError(f"column {name!r}", "at least two classes to tell apart", f"only {classes[0]!s}")
    return Target(name, task, labels, classes, codes.astype(np.int64))


def _look_like_lists(y: NDArray[Any]) -> bool:
    """Whether all labels are text in square brackets, as Python prints lists."""
    return y.dtype.kind in "OU" and all(str(label).startswith("[") and str(label).endswith("]") for label in y)


def is_missing(y: NDArray[Any]) -> NDArray[np.bool_]:
    """(n,) true for NaN, None and blank text."""
    if y.dtype.kind == "f":
        return np.asarray(np.isnan(y), dtype=np.bool_)
    if y.dtype.kind in "OU":
        return np.array([_is_nothing(value) for value in y], dtype=np.bool_)
    return np.zeros(len(y), dtype=np.bool_)


def _is_nothing(value: Any) -> bool:
    if isinstance(value, str):
        return not value.strip()
    return value is None or (isinstance(value, float) and bool(np.isnan(value)))


def _type_of(values: NDArray[Any]) -> str:
    return type(values[0]).__name__ if values.dtype.kind == "O" else str(values.dtype)
