"""Texts as explanations take them apart: tokens, the words that they are from, and the text without some of them."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from probekit.inputs.raw_words import split_words
from probekit.models.alignment import span_of_tokens
from probekit.models.tokens import Encoded

UNSPACED = (
    (0x0E00, 0x0EFF),
    (0x1000, 0x109F),
    (0x1780, 0x17FF),
    (0x3040, 0x30FF),
    (0x3400, 0x9FFF),
    (0x20000, 0x3FFFF),
)
"""Characters of scripts that put no blanks between words: Thai, Lao, Burmese, Khmer, kana, Chinese characters."""

Spans = tuple[tuple[int, int], ...]
"""First characters, and those after the last."""


@dataclass(frozen=True)
class Bound:
    """A text as the model reads it.

    ``ids``: (n_tokens,). ``unit``: (n_tokens,) which of ``words`` each token is from, -1 for special tokens and what a
    prompt puts around the text. ``words``: where the words are in ``text``; one that no token is from was not read.
    ``over``: first token to pool over, and the one after the last; None for all. ``word``, ``n_words``: the same as
    ``unit`` and ``words`` for a probe that tags them, else without meaning.
    """

    id: str
    text: str
    ids: NDArray[np.int32]
    unit: NDArray[np.int32]
    words: Spans
    over: tuple[int, int] | None
    n_words: int

    @property
    def word(self) -> NDArray[np.int32]:
        """See above."""
        return self.unit

    @property
    def read(self) -> NDArray[np.int64]:
        """The words that have a token, ascending."""
        return np.unique(self.unit[self.unit >= 0]).astype(np.int64)

    def tokens_of(self, words: Sequence[int] | NDArray[np.int64]) -> NDArray[np.bool_]:
        """(n_tokens,) which tokens are from one of ``words``."""
        return np.isin(self.unit, np.asarray(words, dtype=np.int64))

    def without(self, dropped: NDArray[np.bool_], blank_id: int) -> Bound:
        """The text with the tokens ``dropped`` deleted; with ``blank_id`` in their place where none would be left."""
        kept = ~dropped
        over = self.over
        if over is not None:
            before = np.concatenate([[0], np.cumsum(kept)])
            over = (int(before[over[0]]), int(before[over[1]]))
        if not kept.any() or (over is not None and over[0] == over[1]):
            return self.blanked(dropped, blank_id)
        return replace(self, ids=self.ids[kept], unit=self.unit[kept], over=over)

    def blanked(self, dropped: NDArray[np.bool_], blank_id: int) -> Bound:
        """The text with ``blank_id`` in place of the tokens ``dropped``."""
        return replace(self, ids=np.where(dropped, np.int32(blank_id), self.ids))


def bind(
    encoded: Encoded,
    texts: Sequence[str],
    *,
    over: NDArray[np.int64] | None,
    ids: Sequence[str],
    words: Sequence[Sequence[tuple[int, int]]] | None = None,
    unknown_id: int | None = None,
) -> list[Bound]:
    """Tokenised ``texts`` with their words; ``words``: where they are, if it was not to be found out here.

    ``unknown_id``: the special token that stands for words that the model has none for; it is their words' own.
    """
    found = []
    for i, text in enumerate(texts):
        spans = _whole_words(text, encoded.offsets[i]) if words is None else tuple(words[i])
        unit = span_of_tokens(encoded.offsets[i], np.array(spans, dtype=np.int64).reshape(-1, 2))
        unit[encoded.special[i] & (encoded.ids[i] != (-1 if unknown_id is None else unknown_id))] = -1
        first_last = None if over is None else (int(over[i, 0]), int(over[i, 1]))
        found.append(Bound(ids[i], text, encoded.ids[i], unit, spans, first_last, len(spans)))
    return found


def _whole_words(text: str, offsets: NDArray[np.int32]) -> Spans:
    """Where the words of ``text`` are; those that one token has characters of count as one word ("!!!").

    Where a script has no blanks between words, a character is a word, and several that share a token are one.
    """
    words = [part for word in split_words(text) for part in _characters(text, *word)]
    if not words:
        return ()
    starts, ends = np.array(words).T
    first, last = offsets.T
    joined = np.zeros(len(words), dtype=np.bool_)  # with the word before
    for a, b in zip(first[first < last].tolist(), last[first < last].tolist(), strict=True):
        touched = np.flatnonzero((starts < b) & (ends > a))
        joined[touched[1:]] = True
    begin = np.flatnonzero(~joined)
    end = np.append(begin[1:], len(words)) - 1
    return tuple((int(starts[i]), int(ends[j])) for i, j in zip(begin, end, strict=True))


def _characters(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """The word itself, or its characters (with the marks that belong to them) in a script without blanks."""
    if not any(_unspaced(c) for c in text[start:end]):
        yield start, end
        return
    begin = start
    for i in range(start + 1, end):
        apart = _unspaced(text[i]) or _unspaced(text[i - 1])
        if apart and not unicodedata.category(text[i]).startswith("M"):
            yield begin, i
            begin = i
    yield begin, end


def _unspaced(character: str) -> bool:
    return any(first <= ord(character) <= last for first, last in UNSPACED)
