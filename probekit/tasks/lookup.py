"""What the word alone says, without any state: the commonest tag of each word type, and tags drawn by type."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def lookup_codes(
    types: NDArray[np.object_], codes: NDArray[np.int64], *, train: NDArray[np.int64], test: NDArray[np.int64]
) -> NDArray[np.int64]:
    """(n_test,) the tag that each test word has most often in training, the commonest of all tags for a new word.

    ``types``: (n_words,) the words as written. ``train``, ``test``: word positions. Of equally common tags the lowest.
    """
    overall = int(np.argmax(np.bincount(codes[train])))
    counts: dict[str, NDArray[np.int64]] = {}
    n_tags = int(codes.max()) + 1
    for word in train:
        counts.setdefault(types[word], np.zeros(n_tags, dtype=np.int64))[codes[word]] += 1
    best = {name: int(np.argmax(count)) for name, count in counts.items()}
    return np.array([best.get(types[word], overall) for word in test], dtype=np.int64)


def control_codes(
    types: NDArray[np.object_], codes: NDArray[np.int64], train: NDArray[np.int64], *, seed: int
) -> NDArray[np.int64]:
    """The control task of Hewitt and Liang (2019): one random tag per word type, (n_words,).

    Tags are drawn from how often they occur in training. Equal words have equal tags, in training and elsewhere, so
    that a probe can only score by remembering words.
    """
    names, type_of = np.unique(types, return_inverse=True)
    share = np.bincount(codes[train], minlength=int(codes.max()) + 1) / len(train)
    drawn = np.random.default_rng(seed).choice(len(share), size=len(names), p=share)
    return np.asarray(drawn[type_of], dtype=np.int64)
