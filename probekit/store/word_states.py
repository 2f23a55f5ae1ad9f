"""One vector per word, made of the states of its tokens as they are read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from probekit.errors import CacheError, SpecError
from probekit.store.pread import FileRows
from probekit.store.token_states import TokenStates, decoded

SUBWORDS = ("mean", "first", "last")
"""Which of a word's tokens stand for it: their mean, or the first or last one alone."""


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
