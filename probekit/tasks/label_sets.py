"""Several labels per row: a column of lists becomes a yes or no per label."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from probekit.errors import InputError


def parse_lists(values: NDArray[Any]) -> list[list[Any]] | None:
    """The lists that a column of JSON text holds, (n,); None if one of its cells is no JSON list of plain values.

    >>> parse_lists(np.array(['["a","b"]', "[]"], dtype=object))
    [['a', 'b'], []]
    """
    if values.dtype.kind not in "OU" or not len(values) or not all(str(cell).startswith("[") for cell in values):
        return None
    try:
        found = [json.loads(cell) for cell in values]
    except ValueError:
        return None
    plain = all(isinstance(row, list) and not any(isinstance(item, list | dict) for item in row) for row in found)
    return found if plain else None


def indicator_matrix(
    lists: Sequence[Sequence[Any]], name: str, ids: Sequence[Any] | NDArray[Any]
) -> tuple[NDArray[np.int64], NDArray[np.object_]]:
    """(n, n_labels) 0 or 1, and the labels, sorted, as text.

    Raises ``InputError`` for a row with a label twice, one whose label is missing, and a column without any two labels.
    """
    sets: list[set[str]] = []
    for row, labels in enumerate(lists):
        texts = ["" if label is None else str(label) for label in labels]
        if len(set(texts)) < len(texts) or "" in texts:
            raise InputError(
                f"example {ids[row]!s}, column {name!r}", "every label once, none empty", str(list(labels))
            )
        sets.append(set(texts))
    known = sorted(set().union(*sets))
    if len(known) < 2:
        raise InputError(f"column {name!r}", "at least two labels to tell apart", ", ".join(known) or "none")
    position = {label: k for k, label in enumerate(known)}
    matrix = np.zeros((len(sets), len(known)), dtype=np.int64)
    for row, of_row in enumerate(sets):
        matrix[row, [position[label] for label in of_row]] = 1
    return matrix, np.array(known, dtype=np.object_)


def label_lists(matrix: NDArray[Any], names: NDArray[np.object_]) -> NDArray[np.object_]:
    """The labels of every row of ``matrix`` (n, n_labels), (n,) lists: what ``indicator_matrix`` was given.

    >>> label_lists(np.array([[1, 0], [1, 1]]), np.array(["a", "b"], dtype=object)).tolist()
    [['a'], ['a', 'b']]
    """
    rows = np.empty(len(matrix), dtype=np.object_)
    rows[:] = [names[row == 1].tolist() for row in matrix]
    return rows
