"""What each score is held against: the commonest class or the mean, the words of the text alone, or its length."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from sklearn.base import BaseEstimator, clone
from sklearn.linear_model import LogisticRegression, Ridge
from threadpoolctl import threadpool_limits

from probekit.evaluate.controls import common_labels, length_features, majority_class, mean_value, tfidf_features
from probekit.evaluate.fit import METRIC, Fit, coded, probe_score
from probekit.metrics import SCORES
from probekit.probes.grid_search import mean_over_folds, negative_log_loss, quiet_fit, r_squared

C_GRID = (0.1, 1.0, 10.0, 100.0, 1000.0)
ALPHA_GRID = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
"""For rows of length 1, as TF-IDF gives them, without standardising (which would make them dense)."""


TRIVIAL: dict[str, Callable[[NDArray[Any], int], NDArray[Any]]] = {
    "classification": majority_class,
    "regression": mean_value,
    "multilabel": common_labels,
}
"""What needs no text at all, by task."""


@dataclass(frozen=True)
class TextTask:
    """A text-only baseline, as a unit of work: the same rows and folds as the probes have. ``counts``: of the words."""

    counts: csr_matrix
    fit: Fit


@dataclass(frozen=True)
class LengthTask:
    """A length-only baseline, as a unit of work. ``n_tokens``: (n,)."""

    n_tokens: NDArray[np.integer[Any]]
    fit: Fit


def trivial_score(fit: Fit) -> float:
    """The test score of always answering the commonest class, or the mean, of the training rows."""
    truth, split = fit.target.truth, fit.split
    answer = TRIVIAL[fit.target.task.kind]
    return SCORES[METRIC[fit.target.task.kind]](truth[split.test], answer(truth[split.train], len(split.test)))


def text_score(task: TextTask) -> float:
    """The test score of logistic or ridge regression on TF-IDF, its hyper-parameter chosen by the same inner folds.

    (One regression for each label, where rows have several.) Vocabulary and weights are learnt anew in every fold:
    words that only a held-out text has must be as unknown there as they are in the test part.
    """
    fit, test = task.fit, task.fit.split.test
    with threadpool_limits(1):
        if fit.target.task.kind == "multilabel":
            predicted = np.column_stack([_text_answers(task, column) for column in fit.labels.T])
        else:
            predicted = coded(_text_answers(task, fit.labels), fit.target)
    truth = coded(fit.labels, fit.target)
    return SCORES[METRIC[fit.target.task.kind]](truth[test], predicted)


def length_score(task: LengthTask) -> float:
    """The test score of the same kind of probe on the number of tokens alone."""
    with threadpool_limits(1):
        return probe_score(length_features(task.n_tokens), task.fit)


def _text_answers(task: TextTask, labels: NDArray[Any]) -> NDArray[Any]:
    """(n_test,) predictions, of ``labels`` (n,)."""
    numbers, train, test = task.fit.target.task.kind == "regression", task.fit.split.train, task.fit.split.test
    if not numbers and len(np.unique(labels[train])) < 2:
        return np.full(len(test), labels[train][0])
    candidates = _candidates(numbers=numbers)
    score = r_squared if numbers else negative_log_loss
    found = []
    for learnt, held in ((train[a], train[b]) for a, b in task.fit.folds):
        if numbers or len(np.unique(labels[learnt])) > 1:
            X = tfidf_features(task.counts, learnt)
            fitted = [clone(candidate) for candidate in candidates]
            for candidate in fitted:
                quiet_fit(candidate, X[learnt], labels[learnt])
            found.append([score(candidate, X[held], labels[held]) for candidate in fitted])
    best = candidates[int(np.argmax(mean_over_folds("text", np.array(found).T)))] if found else candidates[0]
    X = tfidf_features(task.counts, train)
    quiet_fit(best, X[train], labels[train])
    return np.asarray(best.predict(X[test]))


def _candidates(*, numbers: bool) -> list[BaseEstimator]:
    if not numbers:
        return [LogisticRegression(C=C, max_iter=1000) for C in C_GRID]
    return [Ridge(alpha=alpha) for alpha in ALPHA_GRID]
