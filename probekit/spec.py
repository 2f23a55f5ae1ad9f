"""What the stages hand to each other: frozen dataclasses and the sink protocol, no behaviour.

The data flow is inputs -> extraction -> store -> evaluate -> report; every arrow is a type in this file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Json = dict[str, Any]
"""A JSON object."""


@dataclass(frozen=True)
class Examples:
    """Labelled texts in the order of the input (what ``inputs`` returns).

    ``texts``: n strings, none empty. ``ids``: (n,) object array of unique strings.
    ``columns``: every other scalar column by name, each (n,) of dtype int64, float64 (NaN: missing), bool or object
    (str; an empty string: missing). ``source``: the data as the user named it. ``text_column``: where the texts were.
    """

    source: str
    text_column: str
    texts: list[str]
    ids: NDArray[np.object_]
    columns: Mapping[str, NDArray[Any]]

    def __len__(self) -> int:
        return len(self.texts)


@dataclass(frozen=True)
class TokenLayout:
    """The ragged token axis: (total_tokens,) arrays, example i owning the slice given by the cumulated ``n_tokens``."""

    ids: NDArray[np.int32]
    special: NDArray[np.bool_]
    word: NDArray[np.int32]
    dtype: str


@dataclass(frozen=True)
class CacheLayout:
    """Everything that fixes the size of a cache file; all known after tokenisation.

    ``layers``: stored layer indices, ascending. ``final_norm``: those of them to which the model's final norm was
    applied. ``n_tokens``: (n,) tokens read per example, special tokens included, after truncation.
    ``truncated``: (n,) whether tokens were cut off. ``windows``: (start, stop) rows, covering 0..n in order.
    ``pooled_dtype``: "float32", "float16" or "bfloat16" (stored as uint16). ``tokens``: None for pooled only.
    """

    layers: tuple[int, ...]
    final_norm: tuple[int, ...]
    poolings: tuple[str, ...]
    d_model: int
    n_tokens: NDArray[np.int32]
    truncated: NDArray[np.bool_]
    windows: tuple[tuple[int, int], ...]
    pooled_dtype: str = "float32"
    tokens: TokenLayout | None = None


@dataclass(frozen=True)
class WindowStates:
    """The states of one window of rows, in input order.

    ``pooled[pooling, layer]``: (stop - start, d_model) float32. ``tokens[layer]``: (tokens of the window, d_model)
    float32, ragged. ``split_batches``: how many planned batches had to be split for memory.
    """

    index: int
    pooled: Mapping[tuple[str, int], NDArray[np.float32]]
    tokens: Mapping[int, NDArray[np.float32]] = field(default_factory=dict)
    split_batches: int = 0


class FeatureSink(Protocol):
    """Where extraction writes to: a cache file, or a plain object in a test."""

    def pending(self) -> Sequence[int]:
        """Indices of the windows that are not yet written, ascending."""

    def write_window(self, states: WindowStates) -> None:
        """Write one window durably, then mark it done. Safe to repeat."""
