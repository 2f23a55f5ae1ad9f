"""Rows of different lengths in one array: the states of the tokens of texts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class RaggedArray:
    """n rows, of which row i is ``values[offsets[i]:offsets[i + 1]]``, some vectors of d numbers.

    ``values``: (total, d). ``offsets``: (n + 1,) ascending from 0 to total. As features of an estimator it has
    ``shape`` (n, d), ``dtype`` and ``len``, and is indexed by rows.
    """

    values: NDArray[Any]
    offsets: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def shape(self) -> tuple[int, int]:
        """(n, d)."""
        return len(self), self.values.shape[1]

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of ``values``."""
        return self.values.dtype

    @property
    def lengths(self) -> NDArray[np.int64]:
        """(n,) vectors in each row."""
        return np.diff(self.offsets)

    def __getitem__(self, rows: Any) -> RaggedArray:
        """The ``rows``, given as NumPy takes them: positions, a mask or a slice. A copy."""
        which, offsets = places(self.offsets, np.arange(len(self))[rows])
        return RaggedArray(self.values[which], offsets)


def places(offsets: NDArray[np.int64], rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Where the vectors of ``rows`` are, row after row, and the offsets of these rows among them.

    >>> places(np.array([0, 2, 3, 6]), np.array([2, 0]))
    (array([3, 4, 5, 0, 1]), array([0, 3, 5]))
    """
    lengths = offsets[rows + 1] - offsets[rows]
    ends = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return np.arange(ends[-1]) + np.repeat(offsets[rows] - ends[:-1], lengths), ends


def ragged(rows: list[NDArray[Any]]) -> RaggedArray:
    """Of arrays (length, d), at least one."""
    return RaggedArray(np.concatenate(rows), np.concatenate([[0], np.cumsum([len(row) for row in rows])]))
