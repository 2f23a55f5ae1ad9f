"""Ragged token states: one flat array and where each example's part begins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from probekit.store.encoding import from_bfloat16


@dataclass(frozen=True)
class TokenStates(Sequence[NDArray[Any]]):
    """The token states of one layer: ``[i]`` is (n_tokens of example i, d_model), special tokens included.

    ``stored``: (total_tokens, d_model) as in the file; ``offsets``: (n_examples + 1,).
    """

    stored: NDArray[Any]
    offsets: NDArray[np.int64]
    token_ids: NDArray[np.int32]
    token_special: NDArray[np.bool_]
    token_word: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @overload
    def __getitem__(self, i: int) -> NDArray[Any]: ...
    @overload
    def __getitem__(self, i: slice) -> list[NDArray[Any]]: ...
    def __getitem__(self, i: int | slice) -> NDArray[Any] | list[NDArray[Any]]:
        if isinstance(i, slice):
            return [self[j] for j in range(*i.indices(len(self)))]
        return decoded(self.stored[self._rows(i)])

    @property
    def all(self) -> NDArray[Any]:
        """(total_tokens, d_model) of all examples."""
        return decoded(self.stored)

    def ids(self, i: int) -> NDArray[np.int32]:
        """Token ids of example ``i``."""
        return self.token_ids[self._rows(i)]

    def special(self, i: int) -> NDArray[np.bool_]:
        """Which tokens of example ``i`` are special ones."""
        return self.token_special[self._rows(i)]

    def word(self, i: int) -> NDArray[np.int32]:
        """Index of the word that each token of example ``i`` is from, -1 for none."""
        return self.token_word[self._rows(i)]

    def _rows(self, i: int) -> slice:
        i = range(len(self))[i]  # an IndexError ends iteration
        return slice(int(self.offsets[i]), int(self.offsets[i + 1]))


def decoded(stored: NDArray[Any]) -> NDArray[Any]:
    """The values as NumPy knows them: bfloat16 becomes float32, all else stays as it is."""
    return frozen(from_bfloat16(stored)) if stored.dtype == np.uint16 else stored


def frozen(values: NDArray[Any]) -> NDArray[Any]:
    """``values`` itself, made read-only."""
    values.flags.writeable = False
    return values
