"""What the word alone says, without any state: the commonest tag of each word type, and tags drawn by type."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin


class LookUp(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Answers for each word the tag that it has most often in training, for a new word the commonest of all tags.

    Of equally common tags the first by name.
    """

    def fit(self, X: NDArray[np.object_], y: NDArray[Any]) -> LookUp:
        """``X``: (n,) the words as written; ``y``: (n,) their tags."""
        self.classes_, codes = np.unique(y, return_inverse=True)
        self.overall_ = int(np.argmax(np.bincount(codes)))
        counts: dict[str, NDArray[np.int64]] = {}
        for word, code in zip(X, codes, strict=True):
            counts.setdefault(word, np.zeros(len(self.classes_), dtype=np.int64))[code] += 1
        self.table_ = {word: int(np.argmax(count)) for word, count in counts.items()}
        return self

    def predict(self, X: NDArray[np.object_]) -> NDArray[Any]:
        """(n,) tags of the words ``X``."""
        return np.asarray(self.classes_[[self.table_.get(word, self.overall_) for word in X]])


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
