"""A label column becomes a target: classes or numbers, complete and coded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from probekit.errors import InputError, SpecError
from probekit.splits.label_sets import indicator_matrix, label_lists, parse_lists

Kind = Literal["classification", "regression", "multilabel", "tags", "entities"]
"""Tags and entities are of words, all others of whole texts."""

KINDS: tuple[Kind, ...] = ("classification", "regression", "multilabel")

FEW_CLASSES = 20
"""Whole numbers with at most this many different values are taken for class codes."""

ROWS_PER_CODE = 10
"""Whole numbers 0..k-1 without a gap are class codes for any k, if there are this many rows per code."""


LARGEST_WHOLE = 2.0**53
"""Beyond it not every whole number is a float64."""


@dataclass(frozen=True)
class Task:
    """What kind of label it is, and how that was found out (``how``, one phrase for the reader)."""

    kind: Kind
    how: str


@dataclass(frozen=True)
class Target:
    """One label per row, none missing.

    ``y``: what probes are fitted on: (n,) float64 numbers, (n,) class labels as they came (str, int64 or bool), or, for
    several labels per row, (n, n_classes) 0 or 1. ``classes``: (n_classes,) sorted labels; empty for numbers.
    ``codes``: (n,) int64 position of each label in ``classes``, where there is one per row, else empty.
    """

    name: str
    task: Task
    y: NDArray[Any]
    classes: NDArray[Any]
    codes: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.y)

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
    kind: Kind = "classification" if few or coded else "regression"
    return Task(kind, f"guessed from {len(distinct)} different whole numbers")


def read_target(values: ArrayLike, name: str, *, ids: Sequence[Any] | NDArray[Any], task: str = "auto") -> Target:
    """Check a label column and code it.

    ``values``: (n,) labels. ``ids``: (n,) row names, for messages. ``task``: "auto", "classification", "regression" or
    "multilabel"; a column of lists (JSON text, as ``["a","b"]``) is several labels per row.

    Raises ``InputError`` for a missing label (NaN, None, empty text; names the row) and for labels that the task can't
    use; ``SpecError`` for an unknown task.
    """
    y = np.asarray(values)
    if y.ndim != 1 or len(y) != len(ids):
        raise InputError(f"column {name!r}", f"one label for each of the {len(ids)} rows", f"shape {y.shape}")
    if len(y) == 0:
        raise InputError(f"column {name!r}", "at least one row")
    missing = np.flatnonzero(is_missing(y))
    if len(missing):
        more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
        raise InputError(
            f"example {ids[missing[0]]!s}, column {name!r}", f"every example must have a label{more}", "none"
        )
    if task not in ("auto", *KINDS):
        raise SpecError(f"--task {task}", f"one of auto, {', '.join(KINDS)}")
    lists = parse_lists(y) if task in ("auto", "multilabel") else None
    if lists is not None:
        matrix, names = indicator_matrix(lists, name, ids)
        how = "as asked" if task == "multilabel" else "guessed from lists"
        return Target(name, Task("multilabel", how), matrix, names, np.empty(0, dtype=np.int64))
    if task == "multilabel" or (task == "auto" and _look_like_lists(y)):
        raise InputError(f"column {name!r}", 'several labels per row are JSON lists, as ["a","b"]', repr(y[0]))
    found = guess_task(y, name) if task == "auto" else Task("classification", "as asked")
    if task == "regression" or found.kind == "regression":
        return _numbers(y, name, Task("regression", "as asked") if task != "auto" else found)
    return _classes(y, name, found)


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
    """(n,) true for NaN, None and empty text."""
    if y.dtype.kind == "f":
        return np.asarray(np.isnan(y), dtype=np.bool_)
    if y.dtype.kind == "U":
        return np.asarray(y == "", dtype=np.bool_)
    if y.dtype.kind == "O":
        return np.array([v is None or v == "" or (isinstance(v, float) and np.isnan(v)) for v in y], dtype=np.bool_)
    return np.zeros(len(y), dtype=np.bool_)


def _type_of(values: NDArray[Any]) -> str:
    return type(values[0]).__name__ if values.dtype.kind == "O" else str(values.dtype)
