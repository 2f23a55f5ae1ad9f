"""What a score is held against: answers that need no hidden states, and labels that mean nothing."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from probekit.arguments import names
from probekit.errors import InputError, SpecError

WORD = r"(?u)\w+|[^\w\s]"

CONTROLS: tuple[str, ...] = ("shuffled", "length", "conditional", "mdl", "random")
"""What can be asked for beside the baselines that every table has."""


def control_names(value: Any) -> tuple[str, ...]:
    """True: all controls; False: none; else names, in a list or a text with commas.

    Raises ``SpecError`` for an unknown name.

    >>> control_names("mdl,length")
    ('length', 'mdl')
    """
    if isinstance(value, bool):
        return CONTROLS if value else ()
    given = [name.strip() for name in names(value, "controls")]
    for name in given:
        if name not in CONTROLS:
            raise SpecError(f"--control {name}", f"one of {', '.join(CONTROLS)}")
    return tuple(name for name in CONTROLS if name in given)


def word_counts(texts: Sequence[str]) -> csr_matrix:
    """How often every text has each word and word pair, (n, n_words) sparse float32; words in alphabetical order.

    A word is a run of letters and digits; every other sign stands for itself, so that "film." is the word "film".
    Counted once for all splits and folds: these are rows of it, see :mod:`probekit.probes.text`.

    Raises ``InputError`` if the texts hold no word at all.
    """
    found = [re.findall(WORD, text.lower()) for text in texts]
    words = sorted({word for of_text in found for word in of_text})
    if not words:
        raise InputError("texts", "the text baseline needs words to count", "none in all texts")
    number = {word: i for i, word in enumerate(words)}
    ids = np.array([number[word] for of_text in found for word in of_text], dtype=np.int64)
    rows = np.repeat(np.arange(len(texts)), [len(of_text) for of_text in found])
    first = np.flatnonzero(rows[:-1] == rows[1:])  # of a pair
    # A space sorts before all that words are made of: "a" comes before "a b", and that before "ab".
    terms = np.concatenate([ids * (len(words) + 1), ids[first] * (len(words) + 1) + ids[first + 1] + 1])
    known, columns = np.unique(terms, return_inverse=True)
    entries = (np.ones(len(terms), dtype=np.float32), (np.concatenate([rows, rows[first]]), columns))
    return csr_matrix(entries, shape=(len(texts), len(known)))


def length_features(n_tokens: NDArray[np.integer[Any]]) -> NDArray[np.float64]:
    """(n, 2): the number of tokens that was read, and its logarithm. Nothing else of the text is in them."""
    counts = n_tokens.astype(np.float64)
    return np.column_stack([counts, np.log(counts)])


def shuffled_labels(
    y: NDArray[Any], parts: Sequence[NDArray[np.int64]], *, seed: int, texts: Sequence[str] | None = None
) -> NDArray[Any]:
    """Labels that have nothing to do with the text: what a probe scores on them, held-out rows included, is a leak.

    (Not the control task of Hewitt and Liang 2019, whose labels are fixed by word type and can be memorised.)

    ``y``: (n,). ``parts``: row positions of train, val and test; labels are permuted within each, so that every part
    keeps its label distribution. With ``texts``, equal texts get equal labels, so that duplicates across parts show.
    Returns (n,); rows in no part keep their label.
    """
    rng = np.random.default_rng(seed)
    shuffled = y.copy()
    for rows in parts:
        shuffled[rows] = y[rng.permutation(rows)]
    if texts is not None:
        first: dict[str, int] = {}
        for row in (int(i) for rows in parts for i in rows):
            shuffled[row] = shuffled[first.setdefault(texts[row], row)]
    return shuffled
