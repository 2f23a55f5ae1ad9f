"""The input's own split column."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from probekit.errors import InputError
from probekit.inputs.parts import PART_NAMES, part_named

PARTS = ("train", "val", "test")

NAMES: dict[str, str] = {"train": "train", "dev": "val", "validation": "val", "test": "test"}
"""The part that each of ``PART_NAMES``' values is."""


def read_parts(values: Sequence[Any] | NDArray[Any], name: str) -> dict[str, NDArray[np.int64]]:
    """Row positions of "train", "val" and "test", each (k,) int64 ascending, empty where the column has none.

    A value may have more words than the part's name (``validation_matched``, ``test-0``), but not another part's.

    >>> {part: rows.tolist() for part, rows in read_parts(["Train", "dev_1", "train"], "split").items()}
    {'train': [0, 2], 'val': [1], 'test': []}

    Raises ``InputError`` for a value that names no part, and where no row is for training.
    """
    named = {value: part_named(value) for value in set(map(str, values))}
    unknown = sorted(value for value, part in named.items() if part is None)
    if unknown:
        shown = ", ".join(repr(value) for value in unknown[:5]) + (", …" if len(unknown) > 5 else "")
        raise InputError(f"split column {name!r}", f"values are {', '.join(PART_NAMES)} (any case)", shown)
    part_of = np.array([NAMES[named[str(value)] or ""] for value in values])
    rows = {part: np.flatnonzero(part_of == part).astype(np.int64) for part in PARTS}
    if len(rows["train"]) == 0:
        raise InputError(f"split column {name!r}", "some rows must be 'train'", ", ".join(sorted(named)))
    return rows
