"""Heads that are trained in torch, as probes: a multi-layer perceptron, and attention over the tokens of a text."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone

from probekit.probes.grid_search import check_folds, is_regression_target, mean_over_folds, quiet_fit
from probekit.probes.result import FittedProbe, Folds, at_edge, chosen_index
from probekit.ragged import RaggedArray

EPOCHS = 15
LEAST_STEPS = 150
"""Of a training: few rows are gone through more often."""
BATCH = 64
PENALTIES = {"mlp": (0.003, 0.03, 0.3), "attention": (0.01, 0.1, 1.0)}
"""Of the squares of the weights, beside the mean loss (scikit-learn's ``1 / (n C)``), by kind of head."""
RATES = {"mlp": 1e-3, "attention": 1e-2}
MOST_FOLDS = 3
MANY_ROWS = 2000
"""From here on one inner fold is enough to choose by."""


def fit_mlp_torch(X: NDArray[Any], y: NDArray[Any], *, folds: Folds, seed: int) -> FittedProbe:
    """A ``HeadClassifier`` or ``HeadRegressor`` with one hidden layer on ``X`` (n, d); see ``_fit`` for its choice."""
    return _fit("mlp", X, y, folds=folds, seed=seed)


def fit_attention(X: RaggedArray, y: NDArray[Any], *, folds: Folds, seed: int) -> FittedProbe:
    """A ``HeadClassifier`` or ``HeadRegressor`` with a learnt query over the tokens of ``X``; see ``_fit``."""
    return _fit("attention", X, y, folds=folds, seed=seed)


def _fit(kind: str, X: Any, y: NDArray[Any], *, folds: Folds, seed: int) -> FittedProbe:
    """The penalty and the number of epochs are chosen together by the inner folds.

    For each of three penalties a head is trained on the fitting rows of each fold (three of them, one of many rows) and
    scored on those that it holds out after every epoch, by minus the log-loss or R². The pair with the best mean is
    taken, and a head trained on all rows for as many epochs: nothing need be held out of it to know when to stop. A
    tenth of a few hundred rows would tell that worse, and the folds are there. ``regularisation`` is the penalty,
    ``cv_score`` that of the best epoch.
    """
    from probekit.heads.estimators import HeadClassifier, HeadRegressor  # noqa: PLC0415  (torch: only where asked for)

    grid, numbers = PENALTIES[kind], is_regression_target(y)
    check_folds(kind, folds, grid)
    y = np.asarray(y)
    steps_per_epoch = math.ceil(len(y) / BATCH)
    unfitted = (HeadRegressor if numbers else HeadClassifier)(
        kind,
        lr=RATES[kind],
        epochs=max(EPOCHS, math.ceil(LEAST_STEPS / steps_per_epoch)),
        batch_size=BATCH,
        random_state=seed,
    )
    used = [fold for fold in folds if numbers or len(np.unique(y[fold[0]])) > 1]
    used = used[: 1 if len(y) >= MANY_ROWS else MOST_FOLDS]
    curves = np.full((len(grid), unfitted.epochs, len(used)), np.nan)
    for g, penalty in enumerate(grid):
        for k, (rows, held) in enumerate(used):
            head = clone(unfitted).set_params(penalty=penalty)
            curves[g, :, k] = head.scores_by_epoch(X, y, rows, held)[1:]
    scores = mean_over_folds(kind, curves.reshape(-1, len(used))).reshape(len(grid), -1)
    cv_scores = scores.max(axis=1).tolist()
    best = chosen_index(cv_scores, grid)
    head = clone(unfitted).set_params(penalty=grid[best], stop=int(scores[best].argmax()) + 1)
    converged = quiet_fit(head, X, y)
    return FittedProbe(head, grid[best], at_edge(best, grid), converged, cv_scores[best], grid, tuple(cv_scores))
