"""The part of each text that is to be pooled over, given by two columns of the data."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from probekit.errors import InputError
from probekit.models.alignment import word_spans
from probekit.spec import Examples

START, END = "start", "end"
"""Columns: the first character (or word, of data that come as words), counted from 0, and the one after the last."""


def character_spans(examples: Examples) -> NDArray[np.int64]:
    """(n, 2) first character of each example's span, and the one after its last.

    Raises InputError for a missing column and for a row whose span is empty or not within the text.
    """
    for name in (START, END):
        if name not in examples.columns or examples.columns[name].dtype.kind not in "iu":
            got = "none" if name not in examples.columns else str(examples.columns[name].dtype)
            message = f"--pool-over span needs whole numbers in columns {START!r} and {END!r}"
            raise InputError(f"{examples.source}, column {name!r}", message, got)
    spans = np.column_stack([examples.columns[START], examples.columns[END]]).astype(np.int64)
    unit = "characters" if examples.words is None else "words"
    for row, (start, end) in enumerate(spans.tolist()):
        words = None if examples.words is None else examples.words[row]
        size = len(examples.texts[row]) if words is None else len(words)
        if not 0 <= start < end <= size:
            where = f"{examples.source}, example {examples.ids[row]}"
            raise InputError(where, f"a span within its {size} {unit}", f"{START} {start}, {END} {end}")
        if words is not None:
            of_words = word_spans(words)
            spans[row] = of_words[start, 0], of_words[end - 1, 1]
    return spans
