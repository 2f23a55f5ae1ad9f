"""What each score is held against: the commonest class or the mean, the words of the text alone, or its length."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.linear_model import LogisticRegression, Ridge
from threadpoolctl import threadpool_limits

from probekit.controls import length_features, majority_class, mean_value, tfidf_features
from probekit.evaluate.layer import METRIC, Fit, coded, predict, probe_score
from probekit.metrics import SCORES
from probekit.probes.grid_search import mean_over_folds, negative_log_loss, quiet_fit, r_squared

C_GRID = (0.1, 1.0, 10.0, 100.0, 1000.0)
ALPHA_GRID = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
"""For rows of length 1, as TF-IDF gives them, without standardising (which would make them dense)."""


@dataclass(frozen=True)
class TextTask:
    """A text-only baseline, as a unit of work: the same rows and folds as the probes have."""

    texts: Sequence[str]
    fit: Fit


@dataclass(frozen=True)
class LengthTask:
    """A length-only baseline, as a unit of work. ``n_tokens``: (n,)."""

    n_tokens: NDArray[np.integer[Any]]
    fit: Fit


def trivial_score(fit: Fit) -> float:
    """The test score of always answering the commonest class, or the mean, of the training rows."""
    truth, split = fit.target.truth, fit.split
    answer = majority_class if fit.target.is_classes else mean_value
    return SCORES[METRIC[fit.target.task.kind]](truth[split.test], answer(truth[split.train], len(split.test)))


def text_score(task: TextTask) -> float:
    """The test score of logistic or ridge regression on TF-IDF, its hyper-parameter chosen by the same inner folds.

    Vocabulary and weights are learnt anew in every fold: words that only a held-out text has must be as unknown there
    as they are in the test part.
    """
    fit, train = task.fit, task.fit.split.train
    candidates = _candidates(fit)
    with threadpool_limits(1):
        scores = [_fold_scores(task, train[learnt], train[held], candidates) for learnt, held in fit.folds]
        best = candidates[int(np.argmax(mean_over_folds("text", np.array(scores).T)))]
        X = tfidf_features(task.texts, train)
        quiet_fit(best, X[train], fit.labels[train])
        predicted = predict(best, X[fit.split.test], fit.target)
    truth = coded(fit.labels, fit.target)
    return SCORES[METRIC[fit.target.task.kind]](truth[fit.split.test], predicted)


def length_score(task: LengthTask) -> float:
    """The test score of the same kind of probe on the number of tokens alone."""
    with threadpool_limits(1):
        return probe_score(length_features(task.n_tokens), task.fit)


def _candidates(fit: Fit) -> list[BaseEstimator]:
    if fit.target.is_classes:
        return [LogisticRegression(C=C, max_iter=1000) for C in C_GRID]
    return [Ridge(alpha=alpha) for alpha in ALPHA_GRID]


def _fold_scores(
    task: TextTask, learnt: NDArray[np.int64], held: NDArray[np.int64], candidates: list[BaseEstimator]
) -> list[float]:
    """The held-out score of each candidate; NaN where a fold has one class only."""
    labels = task.fit.labels
    if task.fit.target.is_classes and len(np.unique(labels[learnt])) < 2:
        return [float("nan")] * len(candidates)
    X = tfidf_features(task.texts, learnt)
    score = negative_log_loss if task.fit.target.is_classes else r_squared
    found = []
    for candidate in candidates:
        quiet_fit(candidate, X[learnt], labels[learnt])
        found.append(score(candidate, X[held], labels[held]))
    return found
