"""The most probable tags of a sentence among those that IOB2 allows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from probekit.errors import InputError
from probekit.metrics.tag_scheme import check_iob2

_IMPOSSIBLE = -1e6
"""What a probability of zero counts. Finite, so that a sentence without a possible sequence still gets a valid one."""


def best_tags(
    log_probability: NDArray[np.floating], tags: Sequence[str], lengths: NDArray[np.int64]
) -> NDArray[np.int64]:
    """The valid tag sequence of each sentence that is most probable, (n_words,) indices of ``tags``.

    ``log_probability``: (n_words, n_tags), all sentences one after the other; -inf is allowed. ``tags``: (n_tags,) in
    IOB2. ``lengths``: (n_sentences,) words of each. Valid: I-X only after B-X or I-X. Viterbi's algorithm (1967), all
    sentences at once.

    >>> log_p = np.log([[0.6, 0.4, 1e-9], [0.1, 0.1, 0.8]])  # each word by itself: O, I-X
    >>> best_tags(log_p, ["O", "B-X", "I-X"], np.array([2])).tolist()
    [1, 2]
    """
    check_iob2(tags)
    if all(tag[0] == "I" for tag in tags):
        raise InputError("tags", "at least one tag that may begin a sentence, O or B-<type>", ", ".join(tags))
    if log_probability.shape != (lengths.sum(), len(tags)):
        raise InputError(
            "log_probability", f"{lengths.sum()} words x {len(tags)} tags", " x ".join(map(str, log_probability.shape))
        )
    if np.isnan(log_probability).any():
        raise InputError("log_probability", "no NaN")
    log_p = np.maximum(log_probability, _IMPOSSIBLE)

    inside, may_precede = _inside_tags(tags)
    # The longest first: the sentences that have a word t are then the first few.
    order = np.argsort(-lengths, kind="stable")
    first_word = (np.cumsum(lengths) - lengths)[order]
    with_word = [int(np.count_nonzero(lengths > t)) for t in range(lengths.max(initial=0))]

    before = np.zeros(log_p.shape, dtype=np.int64)  # of the best sequence that ends in this tag: the tag before it
    score = np.zeros((len(lengths), len(tags)))
    for t, n in enumerate(with_word):
        words = first_word[:n] + t
        if t > 0:
            before[words] = score[:n].argmax(axis=1)[:, None]
            better = score[:n, may_precede].argmax(axis=2)
            before[words[:, None], inside] = may_precede[np.arange(len(inside)), better]
            score[:n] = np.take_along_axis(score[:n], before[words], axis=1)
        else:
            score[:n, inside] = -np.inf
        score[:n] += log_p[words]

    best = np.zeros(len(log_p), dtype=np.int64)
    tag = score.argmax(axis=1)
    for t, n in reversed(list(enumerate(with_word))):
        words = first_word[:n] + t
        best[words] = tag[:n]
        tag[:n] = before[words, tag[:n]]
    return best


def _inside_tags(tags: Sequence[str]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Indices of the I- tags, (n,), and of the two tags that may come before each, (n, 2) ascending."""
    index = {tag: k for k, tag in enumerate(tags)}
    inside = [k for tag, k in index.items() if tag[0] == "I"]
    # Where training saw no B-X, I-X can come only after itself: never.
    pairs = [sorted((k, index.get("B" + tags[k][1:], k))) for k in inside]
    return np.array(inside, dtype=np.int64), np.array(pairs, dtype=np.int64).reshape(-1, 2)
