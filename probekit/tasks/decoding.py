"""From a fitted probe to a tag for every word, read a few thousand words at a time."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator

from probekit.metrics.viterbi import best_tags
from probekit.tasks.task import States

BATCH_WORDS = 8192
"""Words whose states are in memory at a time."""


def decode_words(
    states: States,
    estimator: BaseEstimator,
    words: NDArray[np.int64],
    *,
    unread: NDArray[np.bool_],
    classes: NDArray[Any],
    unread_code: int,
    lengths: NDArray[np.int64] | None,
) -> NDArray[np.int64]:
    """(n,) codes of the tags of ``words``: positions in ``classes``, sorted tag names.

    ``unread``: (n,) which of them have no sub-tokens; they get ``unread_code``. ``lengths``: of the sentences that
    ``words`` are, to choose each sentence's tags together under IOB2's rule (Viterbi); None to take every word by
    itself.
    """
    there = np.flatnonzero(~unread)
    batches = [there[start : start + BATCH_WORDS] for start in range(0, len(there), BATCH_WORDS)]
    column = np.searchsorted(classes, estimator.classes_)
    if lengths is None:
        codes = np.full(len(words), unread_code)
        for part in batches:
            codes[part] = np.searchsorted(classes, estimator.predict(states.rows(words[part])))
        return codes
    probability = np.zeros((len(words), len(classes)))
    probability[unread, unread_code] = 1
    for part in batches:
        probability[np.ix_(part, column)] = estimator.predict_proba(states.rows(words[part]))
    with np.errstate(divide="ignore"):
        return best_tags(np.log(probability), classes.tolist(), lengths)
