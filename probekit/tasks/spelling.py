"""Names that a reader would take for one and the same."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence


def alike(names: Sequence[str]) -> list[tuple[str, str]]:
    """Pairs of different ``names`` that differ only in outer blanks, case or Unicode normalisation form.

    Of more than two such names each is paired with the first.

    >>> alike(["neg", "pos", "pos "])
    [('pos', 'pos ')]
    """
    first: dict[str, str] = {}
    pairs = []
    for name in names:
        key = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold()).strip()
        if key in first:
            pairs.append((first[key], name))
        else:
            first[key] = name
    return pairs
