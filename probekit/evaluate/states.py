"""The features that something is fitted on, by row: a layer's states, or what stands for them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from probekit.errors import InputError
from probekit.evaluate.geometry import mean_pair_cosine
from probekit.ragged import RaggedArray
from probekit.tasks import States

N_PAIRS = 500
"""Of rows, to see whether all texts look alike."""


class TextStates:
    """All rows of a layer in memory, (n_texts, d). Raises InputError for NaN and infinite values."""

    def __init__(self, X: NDArray[Any], name: str) -> None:
        self.X = as_floats(X)
        self.largest = _largest(self.X, name)

    @property
    def pair_cosine(self) -> float:
        """Mean cosine of random pairs of rows."""
        return mean_pair_cosine(self.X, n_pairs=N_PAIRS, seed=0)

    def rows(self, which: NDArray[np.int64]) -> NDArray[Any]:
        """(len(which), d)."""
        return np.asarray(self.X[which])


class PartStates:
    """Words, or the tokens of texts, of a layer, a few at a time, checked as they are read.

    ``largest``: absolute value so far.
    """

    pair_cosine = float("nan")

    def __init__(self, states: States, name: str) -> None:
        self._states, self._name, self.largest = states, name, 0.0

    def rows(self, which: NDArray[np.int64]) -> Any:
        """(len(which), d), or so many rows of tokens. Raises InputError for NaN and infinite values."""
        found = self._states.rows(which)
        values = found.values if isinstance(found, RaggedArray) else np.asarray(found)
        self.largest = max(self.largest, _largest(values, self._name)) if values.size else self.largest
        return found if isinstance(found, RaggedArray) else values


class FixedRows:
    """Features that no layer has a part in: counts of words, numbers of tokens, words as written."""

    largest = pair_cosine = float("nan")

    def __init__(self, features: Any) -> None:
        self._features = features

    def rows(self, which: NDArray[np.int64]) -> Any:
        """The rows ``which``."""
        return self._features[which]

    def __call__(self, _layer: int, _opened: Mapping[str, LayerStates | None]) -> FixedRows:
        """The same for every layer."""
        return self


LayerStates = TextStates | PartStates | FixedRows

Read = Callable[[int, Mapping[str, LayerStates | None]], LayerStates | None]
"""Gives the states of a layer, None where there are none; by name, what has been opened of that layer already."""


@dataclass(frozen=True)
class LayerReader:
    """Reads a layer and checks it; ``of``: which model it is of, for messages."""

    read: Callable[[int], NDArray[Any] | States]
    of: str = ""

    def __call__(self, layer: int, _opened: Mapping[str, LayerStates | None]) -> LayerStates:
        """The states of ``layer``."""
        found, name = self.read(layer), f"layer {layer}{self.of}"
        return TextStates(found, name) if isinstance(found, np.ndarray) else PartStates(found, name)


@dataclass(frozen=True)
class BesideLayer0:
    """Layer 0 and a layer side by side, (n, 2 d); for layer 0 there is no such thing."""

    read: Callable[[int], Any]

    def __call__(self, layer: int, opened: Mapping[str, LayerStates | None]) -> LayerStates | None:
        """The states of layer 0 and those of ``layer``, which are opened as "states"."""
        states = opened.get("states")
        if layer == 0 or not isinstance(states, TextStates):
            return None
        return TextStates(np.hstack([as_floats(self.read(0)), states.X]), f"layer {layer}")


def as_floats(states: NDArray[Any]) -> NDArray[Any]:
    """float16 as float32: scikit-learn would keep the dtype, and sum and overflow in it."""
    return states.astype(np.float32) if states.dtype == np.float16 else states


def _largest(X: NDArray[Any], name: str) -> float:
    """The largest absolute value."""
    largest = max(abs(float(X.max())), abs(float(X.min())))
    if not np.isfinite(largest):
        raise InputError(name, "probes need finite hidden states", "NaN or infinite values")
    return largest
