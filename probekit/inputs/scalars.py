"""Python values become one NumPy column, without losing a digit or a row."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from probekit.errors import InputError

EXACT = 2**53
"""Whole numbers up to here are exact in float64."""

FAMILIES: dict[type, str] = {str: "text", bool: "true/false", int: "a number", float: "a number"}

DTYPE_WORDS = {"i": "whole numbers", "f": "decimal numbers", "b": "true/false", "O": "text"}


def type_objects(values: Sequence[Any], column: str, *, where: Callable[[int], str]) -> NDArray[Any]:
    """A column of str, bool, int, float and None.

    ``values``: n scalars. ``where``: names a row, for messages. Returns (n,): bool or int64 if complete; float64 for
    numbers with decimals or with gaps (NaN); else object of str, "" for None. Gaps among true/false, and whole numbers
    that float64 or int64 can't hold exactly, make text too.

    >>> type_objects([1, None, 3], "grade", where=str)
    array([ 1., nan,  3.])

    Raises ``InputError`` for a value of another type than those before it; names both rows.
    """
    families = {FAMILIES[kind] for kind in set(map(type, values)) if kind is not type(None)}
    if len(families) > 1:
        given = [row for row, value in enumerate(values) if value is not None]
        first = FAMILIES[type(values[given[0]])]
        odd = next(row for row in given if FAMILIES[type(values[row])] != first)
        raise InputError(
            f"{where(odd)}, column {column!r}",
            f"one type per column, and {where(given[0])} has {first}",
            f"{FAMILIES[type(values[odd])]} ({values[odd]!r})",
        )
    if families == {"a number"}:
        numbers = exact_numbers(values)
        return words([None if v is None else repr(v) for v in values]) if numbers is None else numbers
    if families == {"true/false"}:
        if None not in values:
            return np.array(values, dtype=np.bool_)
        return words([None if v is None else str(v).lower() for v in values])
    return words(values)


def exact_numbers(values: Sequence[int | float | None]) -> NDArray[Any] | None:
    """(n,) int64 if all are whole and none is missing, else float64 with NaN; None if digits would be lost."""
    whole = [value for value in values if isinstance(value, int)]
    low, high = min(whole, default=0), max(whole, default=0)
    if whole and len(whole) == len(values):
        return np.array(values, dtype=np.int64) if low >= -(2**63) and high < 2**63 else None
    if low < -EXACT or high > EXACT:
        return None
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)


def words(values: Sequence[str | None]) -> NDArray[np.object_]:
    """(n,) object array of str, "" for None."""
    return np.array([value or "" for value in values], dtype=np.object_)


def dtype_words(values: NDArray[Any]) -> str:
    """The type of a column for messages: "whole numbers (int64)"."""
    return DTYPE_WORDS[values.dtype.kind] + ("" if values.dtype.kind == "O" else f" ({values.dtype})")
