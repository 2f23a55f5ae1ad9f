"""The plain way: scikit-learn's own fit for each grid point and fold. The reference that the fast paths must equal."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import accuracy_score, r2_score

from probekit.errors import SpecError
from probekit.probes.result import FittedProbe, Folds, at_edge, chosen_index

Score = Callable[[BaseEstimator, NDArray[Any], NDArray[Any]], float]
"""``score(fitted estimator, X, y)``, higher is better; NaN where nothing can be scored."""


def negative_log_loss(estimator: BaseEstimator, X: NDArray[Any], y: NDArray[Any]) -> float:
    """Minus the mean log-loss in nats, as ``scoring="neg_log_loss"`` gives it.

    Rows of a class that ``estimator`` has never seen are left out: no hyper-parameter can predict them, so they carry
    no information for the choice (``GridSearchCV`` gives up on the whole fold there). NaN if no row is left.
    """
    classes = estimator.classes_
    column = np.minimum(np.searchsorted(classes, y), len(classes) - 1)
    known = classes[column] == y
    if not known.any():
        return math.nan
    probability = estimator.predict_proba(X)[np.arange(len(y)), column][known]
    smallest = np.finfo(probability.dtype).eps
    return float(np.mean(np.log(np.clip(probability, smallest, 1 - smallest)), dtype=np.float64))


def accuracy(estimator: BaseEstimator, X: NDArray[Any], y: NDArray[Any]) -> float:
    """Share of rows predicted right."""
    return float(accuracy_score(y, estimator.predict(X)))


def r_squared(estimator: BaseEstimator, X: NDArray[Any], y: NDArray[Any]) -> float:
    """R², the mean over targets where there are several. NaN for fewer than two rows, where it is not defined."""
    return math.nan if len(y) < 2 else float(r2_score(y, estimator.predict(X)))


def is_regression_target(y: NDArray[Any]) -> bool:
    """Whether ``y`` holds numbers to regress on (float dtype) rather than class labels."""
    return bool(np.asarray(y).dtype.kind == "f")


def quiet_fit(estimator: BaseEstimator, X: NDArray[Any], y: NDArray[Any]) -> bool:
    """Fit ``estimator`` in place; whether it converged. Its ``ConvergenceWarning`` goes into the answer, not out.

    Other warnings pass through: they are about the data, and hiding them would hide a fault.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        estimator.fit(X, y)
    converged = True
    for warning in caught:
        if issubclass(warning.category, ConvergenceWarning):
            converged = False
        else:
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
    return converged


def fit_once(estimator: BaseEstimator, X: NDArray[Any], y: NDArray[Any]) -> FittedProbe:
    """Fit ``estimator`` itself on all rows: a probe without a hyper-parameter."""
    nan = math.nan
    converged = quiet_fit(estimator, X, y)
    return FittedProbe(estimator, nan, grid_edge=False, converged=converged, cv_score=nan, grid=(), cv_scores=())


def check_folds(probe: str, folds: Folds, grid: Sequence[float]) -> None:
    """A grid of several points needs folds to choose by.

    Raises:
        SpecError: ``grid`` has several points and ``folds`` is empty.
    """
    if len(grid) > 1 and len(folds) == 0:
        raise SpecError(f"folds of probe {probe!r}", "at least one inner fold, to choose among the grid", "none")


def mean_over_folds(probe: str, scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean over folds of ``scores`` (n_grid, n_folds), leaving out the folds that could not be scored (NaN).

    Raises:
        SpecError: a grid point has no scored fold at all, although another does not say why: the folds are unusable.
    """
    usable = ~np.isnan(scores).all(axis=0)
    if not usable.any():
        raise SpecError(
            f"folds of probe {probe!r}",
            "at least one inner fold with two classes to learn and a known class to score (or two rows to regress)",
            f"{scores.shape[1]} folds without",
        )
    return np.asarray(scores[:, usable].mean(axis=1))


def search_grid(
    probe: str,
    candidates: Sequence[BaseEstimator],
    grid: Sequence[float],
    X: NDArray[Any],
    y: NDArray[Any],
    *,
    folds: Folds,
    score: Score,
) -> FittedProbe:
    """Choose among ``candidates`` (one unfitted estimator per grid point) by mean score over ``folds``; fit on all.

    ``X``: (n, d); ``y``: (n,) or (n, n_targets). A fold whose training part has one class only is left out for
    classification.

    Raises:
        SpecError: several candidates, but no fold to choose by.
    """
    check_folds(probe, folds, grid)
    scores = np.full((len(grid), len(folds)), np.nan)
    fold_converged = np.ones((len(grid), len(folds)), dtype=bool)
    for k, (train, validation) in enumerate(folds if len(grid) > 1 else ()):
        X_train, y_train, X_validation, y_validation = X[train], y[train], X[validation], y[validation]
        if not is_regression_target(y) and len(np.unique(y_train)) < 2:
            continue
        for g, candidate in enumerate(candidates):
            estimator = clone(candidate)
            fold_converged[g, k] = quiet_fit(estimator, X_train, y_train)
            scores[g, k] = score(estimator, X_validation, y_validation)
    cv_scores = mean_over_folds(probe, scores) if len(grid) > 1 else np.full(1, np.nan)
    best = chosen_index(cv_scores.tolist(), grid)
    final = clone(candidates[best])
    converged = quiet_fit(final, X, y)
    return FittedProbe(
        estimator=final,
        regularisation=float(grid[best]),
        grid_edge=at_edge(best, grid),
        converged=converged and bool(fold_converged[best].all()),
        cv_score=float(cv_scores[best]),
        grid=tuple(float(value) for value in grid),
        cv_scores=tuple(float(value) for value in cv_scores),
    )
