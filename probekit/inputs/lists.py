"""Columns of lists become JSON text, one list a cell."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

HOLDS: dict[type, str] = {str: "text", bool: "true/false", int: "numbers", float: "numbers"}
"""What messages call the items of a list."""


def list_items(values: Sequence[Any]) -> str | None:
    """What the lists hold: "text" (also where all are empty), "true/false" or "numbers".

    ``values``: n cells. None if one of them is neither a list nor missing, or if the items are of several kinds,
    missing (null), or lists or objects themselves.
    """
    if not all(value is None or isinstance(value, list) for value in values):
        return None
    kinds = {HOLDS.get(kind) for value in values if value for kind in set(map(type, value))} or {"text"}
    return kinds.pop() if len(kinds) == 1 else None


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


def name_labels(values: Sequence[list[int] | None], names: Sequence[str]) -> list[list[Any] | None]:
    """The n lists with class names for their codes, "" for a negative one (none); as they are if a code has no name."""
    if max((code for value in values for code in value or ()), default=-1) >= len(names):
        return list(values)
    return [None if value is None else [names[code] if code >= 0 else "" for code in value] for value in values]


def label_lists(features: Any) -> dict[str, list[str]]:
    """The names of the classes, by column, of the columns that are lists of class labels.

    ``features``: as ``datasets`` writes them as JSON (``Features.to_dict``); what has another form has no such columns.
    """
    found = {}
    for column, feature in features.items() if isinstance(features, Mapping) else ():
        item = feature.get("feature") if isinstance(feature, Mapping) else None
        if isinstance(feature, list) and len(feature) == 1:  # how datasets 3 wrote some lists
            item = feature[0]
        if not isinstance(item, Mapping) or item.get("_type") != "ClassLabel":
            continue
        names = item.get("names")
        if isinstance(names, list) and all(isinstance(name, str) for name in names):
            found[column] = names
    return found
