"""States of tokens, ragged: one flat array and where each example's part begins; and of words, made of them as read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from probekit.errors import CacheError, SpecError
from probekit.ragged import RaggedArray, places
from probekit.store.encoding import from_bfloat16
from probekit.store.pread import FileRows

SUBWORDS = ("mean", "first", "last")
"""Which of a word's tokens stand for it: their mean, or the first or last one alone."""


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


def word_matrix(states: TokenStates, lengths: Sequence[int], how: str) -> csr_matrix:
    """How much each token counts in each word, (n_words, total_tokens); an empty row for a word without tokens.

    ``lengths``: words per example; words are counted through all of them. ``how``: one of ``SUBWORDS``.

    Raises SpecError for another ``how``, CacheError for word numbers that can't be.
    """
    if how not in SUBWORDS:
        raise SpecError(f"--subword {how}", f"one of {', '.join(SUBWORDS)}")
    tokens = np.flatnonzero(states.token_word >= 0)
    example = np.searchsorted(states.offsets, tokens, side="right") - 1
    if (states.token_word[tokens] >= np.asarray(lengths)[example]).any():
        raise CacheError("/tokens/word", "is damaged: it names a word that its example does not have")
    word = (np.cumsum(lengths) - lengths)[example] + states.token_word[tokens]
    tokens, word = tokens[order := np.argsort(word, kind="stable")], word[order]
    count = np.bincount(word, minlength=int(np.sum(lengths)))
    if how != "mean":
        ends = np.cumsum(count)[count > 0]
        tokens = tokens[ends - (count[count > 0] if how == "first" else 1)]
        count = np.minimum(count, 1)
    weight = np.repeat(1 / np.maximum(count, 1), count).astype(np.float32)
    return csr_matrix((weight, tokens, np.concatenate([[0], np.cumsum(count)])), shape=(len(count), len(states.stored)))


@dataclass(frozen=True)
class WordStates:
    """The states of one layer by word. ``stored``: (total_tokens, d_model), in the file or in memory.

    ``matrix``: as from ``word_matrix``.
    """

    stored: NDArray[Any] | FileRows
    matrix: csr_matrix

    def rows(self, which: NDArray[np.int64]) -> NDArray[np.float32]:
        """(len(which), d_model) float32 of the words ``which``; only their tokens are read. Zeros if none."""
        part = self.matrix[which]
        states = decoded(self.stored[part.indices]).astype(np.float32)
        own = csr_matrix((part.data, np.arange(len(states)), part.indptr), shape=(len(which), len(states)))
        return np.asarray(own @ states)


@dataclass(frozen=True)
class TextTokens:
    """The states of one layer by text, all its tokens. ``stored``: (total_tokens, d_model), in the file or in memory.

    ``offsets``: (n_texts + 1,) where each text's tokens begin.
    """

    stored: NDArray[Any] | FileRows
    offsets: NDArray[np.int64]

    def rows(self, which: NDArray[np.int64]) -> RaggedArray:
        """The tokens of the texts ``which``, float32; no others are read."""
        tokens, offsets = places(self.offsets, which)
        return RaggedArray(decoded(self.stored[tokens]).astype(np.float32, copy=False), offsets)
