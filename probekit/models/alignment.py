"""Which tokens are which words: by the characters that both cover.

Words that came as a list are read as running text with single blanks between, so that every tokenizer sees what it was
made for (byte-level vocabularies have other tokens for a word after a blank), and tokens are given to words by their
character offsets.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray


def word_spans(words: Sequence[str]) -> NDArray[np.int64]:
    """(n_words, 2) first character of each word, and the one after its last, in the words with single blanks between.

    >>> word_spans(["ab's", "it"]).tolist()
    [[0, 4], [5, 7]]
    """
    lengths = np.array([len(word) for word in words])
    ends = np.cumsum(lengths + 1) - 1
    return np.column_stack([ends - lengths, ends])


def word_of_tokens(offsets: NDArray[np.int32], words: Sequence[str]) -> NDArray[np.int32]:
    """(n_tokens,) index of the word that each token is from, -1 for none.

    ``offsets``: see ``span_of_tokens``. ``words``: what the text was joined from, with single blanks. A word may have
    no token: the tokenizer dropped its characters, or the text was cut.

    >>> word_of_tokens(np.array([[0, 0], [0, 3], [3, 4], [4, 7], [0, 0]]), ["ab's", "it"]).tolist()
    [-1, 0, 0, 1, -1]
    """
    return span_of_tokens(offsets, word_spans(words))


def span_of_tokens(offsets: NDArray[np.int32], spans: NDArray[np.int64]) -> NDArray[np.int32]:
    """(n_tokens,) index of the span of characters that each token is from, -1 for none.

    ``offsets``: (n_tokens, 2) first character of each token in the text, and the one after the last; an empty range for
    special tokens. ``spans``: (n, 2) likewise, ascending, not overlapping. A token over several spans is the first
    one's.
    """
    if not len(spans):
        return np.full(len(offsets), -1, dtype=np.int32)
    starts, ends = spans.T
    first, last = offsets.T
    word = np.searchsorted(ends, first, side="right")
    inside = (word < len(spans)) & (first < last)
    inside &= starts[np.minimum(word, len(spans) - 1)] < last
    return np.where(inside, word, -1).astype(np.int32)


def one_copy(word: NDArray[np.int32], cuts: Sequence[int]) -> NDArray[np.int32]:
    """Of a text read in overlapping pieces, keep each word in one piece only: the others get -1.

    It is the piece that has most of the word's tokens, and of several the one where the word is farthest from where
    the piece was cut. ``word``: (n_tokens,) as from ``word_of_tokens``, all pieces one after the other. ``cuts``: where
    the pieces begin, without the first.
    """
    if not cuts:
        return word
    bounds = [0, *cuts, len(word)]
    best: dict[int, tuple[int, float, int]] = {}
    for piece, (start, stop) in enumerate(pairwise(bounds)):
        inside = np.flatnonzero(word[start:stop] >= 0)
        for w in np.unique(word[start:stop][inside]).tolist():
            at = np.flatnonzero(word[start:stop] == w)
            from_left = np.inf if piece == 0 else at[0] - inside[0]
            from_right = np.inf if stop == len(word) else inside[-1] - at[-1]
            rank = (len(at), min(from_left, from_right), -piece)
            best[w] = max(best.get(w, rank), rank)
    kept = word.copy()
    for piece, (start, stop) in enumerate(pairwise(bounds)):
        elsewhere = [w for w, (_, _, of_piece) in best.items() if of_piece != -piece]
        kept[start:stop][np.isin(word[start:stop], elsewhere)] = -1
    return kept
