"""Columns of lists become JSON text, one list a cell."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from probekit.inputs.table import LeftOut

HOLDS: dict[type, str] = {str: "text", bool: "true/false", int: "numbers", float: "numbers"}
"""What messages call the items of a list."""


def no_flat_lists(values: Sequence[Any]) -> LeftOut | None:
    """Why a column of lists can't be kept, and the first row that shows it; None where it can.

    ``values``: n cells. Each must be a list or missing, and all items of one kind: none missing (null), nor lists or
    objects themselves.
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
    return None


def list_items(values: Sequence[Any]) -> str:
    """What flat lists hold: "text" (also where all are empty), "true/false" or "numbers"; ``values``: n lists or None.

    (They must be such as ``no_flat_lists`` has nothing against.)
    """
    return next((HOLDS[type(value[0])] for value in values if value), "text")


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
