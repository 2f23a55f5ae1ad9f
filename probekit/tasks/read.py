"""A label column becomes a target: classes or numbers, coded; rows without a label are known and left out."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from probekit.errors import InputError, SpecError
from probekit.tasks import TASKS
from probekit.tasks.classes import CLASSES
from probekit.tasks.label_sets import indicator_matrix, parse_lists
from probekit.tasks.labels import LABELS
from probekit.tasks.numbers import NUMBERS
from probekit.tasks.target import Target, spread, without_rare
from probekit.tasks.task import Task

OF_TEXTS: dict[str, Task] = {name: task for name, task in TASKS.items() if not task.of_words}
"""What ``--task`` may say: tags of words are found by the data."""

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


class Guess(NamedTuple):
    """A task, how it was found out (one phrase for the reader), and the one that could have been meant instead."""

    task: Task
    how: str
    otherwise: str = ""


def guess_task(y: ArrayLike, name: str = "target") -> Guess:
    """Tell classes from numbers.

    Text and booleans are classes; numbers with a decimal type are numbers. Whole numbers are ambiguous (a class code or
    a count?): they are classes if they have at most 20 different values, each twice or more on average, or if they are
    0..k-1 without a gap with 10 rows or more per value; numbers otherwise.

    >>> task, how, otherwise = guess_task([3, 1, 2, 1, 2, 3], "grade")
    >>> task.name, how, otherwise
    ('classification', 'guessed from 3 different whole numbers', 'regression')
    >>> guess_task([0.0, 1.0, 0.0]).task.name
    'regression'

    Raises ``InputError`` for a column of another type (dates, lists).
    """
    values = np.asarray(y)
    if values.dtype.kind in "US" or (values.dtype.kind == "O" and all(isinstance(v, str) for v in values)):
        return Guess(CLASSES, "guessed from text labels")
    if values.dtype.kind == "b":
        return Guess(CLASSES, "guessed from true/false labels")
    if values.dtype.kind == "f":
        return Guess(NUMBERS, "guessed from decimal numbers")
    if values.dtype.kind not in "iu":
        raise InputError(f"column {name!r}", "labels are text, true/false or numbers", _type_of(values))
    if len(values) == 0:
        raise InputError(f"column {name!r}", "at least one row")
    distinct = np.unique(values)
    few = len(distinct) <= FEW_CLASSES and len(values) >= 2 * len(distinct)
    coded = distinct[0] == 0 and distinct[-1] == len(distinct) - 1 and len(values) >= ROWS_PER_CODE * len(distinct)
    task, other = (CLASSES, NUMBERS) if few or coded else (NUMBERS, CLASSES)
    return Guess(task, f"guessed from {len(distinct)} different whole numbers", other.name)


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
    if task not in ("auto", *OF_TEXTS):
        raise SpecError(f"--task {task}", f"one of auto, {', '.join(OF_TEXTS)}")
    rows = np.flatnonzero(~is_missing(y))
    if len(rows) == 0:
        raise InputError(f"column {name!r}", "at least one row with a label", f"none in {len(y):,} rows")
    given = y[rows]
    if len(rows) < len(y) and given.dtype.kind == "f" and _are_whole(given):
        given = given.astype(np.int64)
    found = _read_labels(given, name, ids=np.asarray(ids, dtype=np.object_)[rows], task=task)
    found = without_rare(found, drop_rare)
    return spread(found, rows if found.labelled is None else rows[found.labelled], len(y))


def _read_labels(y: NDArray[Any], name: str, *, ids: NDArray[Any], task: str) -> Target:
    """The target of labels of which none is missing."""
    asked = OF_TEXTS.get(task)
    lists = parse_lists(y) if asked in (None, LABELS) else None
    if lists is not None:
        matrix, names = indicator_matrix(lists, name, ids)
        how = "guessed from lists" if asked is None else "as asked"
        return Target(name, LABELS, matrix, names, np.empty(0, dtype=np.int64), how)
    if asked is LABELS or (asked is None and _look_like_lists(y)):
        raise InputError(f"column {name!r}", 'several labels per row are JSON lists, as ["a","b"]', repr(y[0]))
    if asked is not CLASSES:
        _check_comma_decimals(y, name, asked)
    found = guess_task(y, name) if asked is None else Guess(asked, "as asked")
    return (_numbers if found.task.ability == "regression" else _classes)(y, name, found)


def _are_whole(y: NDArray[Any]) -> bool:
    return bool(np.isfinite(y).all() and np.array_equal(y, np.round(y)) and np.abs(y).max() <= LARGEST_WHOLE)


def _check_comma_decimals(y: NDArray[Any], name: str, asked: Task | None) -> None:
    """Numbers with a decimal comma are text to every reader, and would be as many classes as there are numbers."""
    if y.dtype.kind not in "OU":
        return
    cells = [str(cell).strip() for cell in y]
    commas = [cell for cell in cells if COMMA_DECIMAL.fullmatch(cell)]
    n_whole = sum(WHOLE.fullmatch(cell) is not None for cell in cells)
    if commas and len(commas) + n_whole >= NEARLY_ALL * len(cells):
        classes = "" if asked is NUMBERS else f" (--task {name}=classification reads them as classes)"
        raise InputError(f"column {name!r}", f"numbers have a decimal point, not a comma{classes}", repr(commas[0]))


def _numbers(y: NDArray[Any], name: str, found: Guess) -> Target:
    if y.dtype.kind not in "iufb":
        raise InputError(f"column {name!r}", "--task regression needs numbers", _type_of(y))
    numbers = y.astype(np.float64)
    if not np.isfinite(numbers).all():
        raise InputError(f"column {name!r}", "numbers must be finite", "inf")
    if numbers.min() == numbers.max():
        raise InputError(f"column {name!r}", "at least two different values to tell apart", f"only {numbers[0]:g}")
    none = np.empty(0, dtype=np.int64)
    return Target(name, found.task, numbers, np.empty(0), none, found.how, found.otherwise)


def _classes(y: NDArray[Any], name: str, found: Guess) -> Target:
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
    return Target(name, found.task, labels, classes, codes.astype(np.int64), found.how, found.otherwise)


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
