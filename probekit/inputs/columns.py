"""Python values become one NumPy column, without losing a digit or a row; lists become JSON text, one list a cell."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from probekit.errors import InputError

EXACT = 2**53
"""Whole numbers up to here are exact in float64."""

FAMILIES: dict[type, str] = {str: "text", bool: "true/false", int: "a number", float: "a number"}

DTYPE_WORDS = {"i": "whole numbers", "f": "decimal numbers", "b": "true/false", "O": "text"}

HOLDS: dict[type, str] = {str: "text", bool: "true/false", int: "numbers", float: "numbers"}
"""What messages call the items of a list."""


class LeftOut(NamedTuple):
    """Why a column can't be kept: ``what`` it has, and the first ``row`` (from 1) that has it, 0 where all have."""

    what: str
    row: int = 0


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


def list_items(values: Sequence[Any]) -> str | LeftOut:
    """What flat lists hold: "text" (also where all are empty), "true/false" or "numbers"; or why they can't be kept.

    ``values``: n cells. Each must be a list or missing, and all items of one kind: none missing (null), nor lists or
    objects themselves. ``LeftOut`` says the first row where this is not so.
    """
    first = ""
    for row, value in enumerate(values, 1):
        if value is None:
            continue
        if not isinstance(value, list):
            return LeftOut("an object" if isinstance(value, dict) else "a single value, where others have lists", row)
        for kind in set(map(type, value)):
            if kind not in HOLDS:
                item = "an empty (null) item" if kind is type(None) else "lists or objects in it"
                return LeftOut(f"a list with {item}", row)
            if (first := first or HOLDS[kind]) != HOLDS[kind]:
                return LeftOut("a list with items of another kind", row)
    return first or "text"


def list_texts(values: Sequence[list[Any] | None]) -> NDArray[np.object_]:
    """(n,) object array of str: each list as JSON, "" for None.

    >>> list_texts([["a", "ü"], [1, 2.5], None]).tolist()
    ['["a","ü"]', '[1,2.5]', '']
    """
    # float: of Arrow's decimals
    texts = [
        "" if value is None else json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=float)
        for value in values
    ]
    return np.array(texts, dtype=np.object_)


def name_labels(values: Sequence[Sequence[int | None] | None], names: Sequence[str]) -> list[list[Any] | None]:
    """The n lists with class names for their codes, "" for a negative one or None; as they are if one has no name."""
    if max((code for value in values for code in value or () if code is not None), default=-1) >= len(names):
        return [None if value is None else list(value) for value in values]
    return [
        None if value is None else [names[code] if code is not None and code >= 0 else "" for code in value]
        for value in values
    ]


def class_names(features: Any) -> dict[str, list[str]]:
    """The names of the classes, by column, of the columns that are class labels or lists of them.

    ``features``: as ``datasets`` writes them as JSON (``Features.to_dict``); what has another form has no such columns.
    """
    found = {}
    for column, feature in features.items() if isinstance(features, Mapping) else ():
        item = feature.get("feature", feature) if isinstance(feature, Mapping) else None
        if isinstance(feature, list) and len(feature) == 1:  # how datasets 3 wrote some lists
            item = feature[0]
        if not isinstance(item, Mapping) or item.get("_type") != "ClassLabel":
            continue
        names = item.get("names")
        if isinstance(names, list) and all(isinstance(name, str) for name in names):
            found[column] = names
    return found
