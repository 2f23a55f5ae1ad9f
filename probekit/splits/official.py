"""The input's own split column."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from probekit.errors import InputError

PARTS = ("train", "val", "test")

NAMES: dict[str, str] = {
    "train": "train",
    "training": "train",
    "dev": "val",
    "development": "val",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}
"""What data sets call their parts, lower case."""


def read_parts(values: Sequence[Any] | NDArray[Any], name: str) -> dict[str, NDArray[np.int64]]:
    """Row positions of "train", "val" and "test", each (k,) int64 ascending, empty where the column has none.

    >>> {part: rows.tolist() for part, rows in read_parts(["Train", "dev", "train"], "split").items()}
    {'train': [0, 2], 'val': [1], 'test': []}

    Raises ``InputError`` for a value that names no part, and where no row is for training.
    """
    cleaned = [str(value).strip().lower() for value in values]
    unknown = sorted({str(values[i]) for i, value in enumerate(cleaned) if value not in NAMES})
    if unknown:
        shown = ", ".join(repr(value) for value in unknown[:5]) + (", …" if len(unknown) > 5 else "")
        raise InputError(f"split column {name!r}", f"values are {', '.join(NAMES)} (any case)", shown)
    part_of = np.array([NAMES[value] for value in cleaned])
    rows = {part: np.flatnonzero(part_of == part).astype(np.int64) for part in PARTS}
    if len(rows["train"]) == 0:
        raise InputError(f"split column {name!r}", "some rows must be 'train'", ", ".join(sorted(set(cleaned))))
    return rows
