"""Running text to words as labelled data have them: at blanks, with punctuation and clitics apart."""

from __future__ import annotations

import re

_CHUNK = re.compile(r"\S+")
_OPENING = "\"'“‘«([{<¿¡"
_CLOSING = "\"'”’»)]}>.,;:!?…"
_CLITIC = re.compile(r"(?:n['’]t|['’](?:s|m|d|re|ve|ll))$", re.IGNORECASE)


def split_words(text: str) -> list[tuple[int, int]]:
    """First character of each word of ``text``, and the one after its last.

    >>> text = 'She said: "Anna\\'s in New York."'
    >>> [text[start:end] for start, end in split_words(text)]
    ['She', 'said', ':', '"', 'Anna', "'s", 'in', 'New', 'York', '.', '"']
    """
    return [span for chunk in _CHUNK.finditer(text) for span in _split_chunk(text, *chunk.span())]


def _split_chunk(text: str, start: int, end: int) -> list[tuple[int, int]]:
    before: list[tuple[int, int]] = []
    after: list[tuple[int, int]] = []
    while end - start > 1 and text[start] in _OPENING:
        before.append((start, start + 1))
        start += 1
    while end - start > 1 and text[end - 1] in _CLOSING:
        after.insert(0, (end - 1, end))
        end -= 1
    clitic = _CLITIC.search(text[start:end])
    if clitic and clitic.start():
        middle = start + clitic.start()
        return [*before, (start, middle), (middle, end), *after]
    return [*before, (start, end), *after]
