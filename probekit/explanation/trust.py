"""Whether to trust an importance: what the answer loses without the words that it calls important.

Comprehensiveness and sufficiency of DeYoung et al. 2020 ("ERASER"), beside the same for random words.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit
from scipy.stats import rankdata

from probekit.explanation.methods import Asked, removed
from probekit.explanation.opened import Reading
from probekit.explanation.results import Settings, Trust

SHARE = 0.2
"""Of the words that are taken out, at least one."""

DRAWS = 10
"""Of random words."""


def trusts(
    reading: Reading, asked: Asked, importances: Sequence[NDArray[np.float64]], settings: Settings, *, seed: int
) -> list[Trust | None]:
    """For each importance (n_words,) of the first answer asked for; None for a text of a single word.

    All are held against the same draws, and read in one go.
    """
    read = asked.bound.read
    n = math.ceil(SHARE * len(read))
    if n >= len(read):
        return [None] * len(importances)
    rng = np.random.default_rng(seed)
    tops = [read[np.argsort(-words[read], kind="stable")[:n]] for words in importances]
    chosen = [*tops, *(rng.choice(read, size=n, replace=False) for _ in range(DRAWS))]
    variants = [asked.bound]
    for words in chosen:
        for gone in (words, np.setdiff1d(read, words)):
            variants.append(removed(reading, asked.bound, gone, settings.remove, at=asked.at))
    answers = answer_of(reading, reading.scores(variants, at=asked.at)[:, asked.answers[0]])
    lost = (answers[0] - answers[1:]).reshape(-1, 2)
    random = lost[len(tops) :].mean(axis=0)
    return [
        Trust(n, float(without), float(alone), float(random[0]), float(random[1]))
        for without, alone in lost[: len(tops)]
    ]


def answer_of(reading: Reading, scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Probabilities of log-odds; numbers as they are."""
    return np.asarray(expit(scores)) if reading.opened.scorer.answers else scores


def agreement(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Spearman's rank correlation over words that both measured; NaN where one of them tells no two apart."""
    both = np.isfinite(a) & np.isfinite(b)
    ranks = rankdata(a[both]), rankdata(b[both])
    if both.sum() < 2 or np.ptp(ranks[0]) == 0 or np.ptp(ranks[1]) == 0:
        return float("nan")
    return float(np.corrcoef(*ranks)[0, 1])
