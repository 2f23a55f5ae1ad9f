"""Logistic regression, the probe for classes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from probekit.probes.grid_search import negative_log_loss, search_grid
from probekit.probes.result import FittedProbe, Folds

C_GRID: tuple[float, ...] = tuple(float(C) for C in np.logspace(-5, 2, 8))
"""Inverse regularisation strengths, scikit-learn's C."""


def logistic_pipeline(C: float, max_iter: int = 1000) -> Pipeline:
    """The unfitted probe: standardise, then logistic regression with its default solver."""
    return make_pipeline(StandardScaler(), LogisticRegression(C=C, max_iter=max_iter))


def fit_logistic_plain(
    X: NDArray[Any],
    y: NDArray[Any],
    *,
    folds: Folds,
    seed: int,  # noqa: ARG001  (nothing here is random)
    grid: tuple[float, ...] = C_GRID,
    max_iter: int = 1000,
) -> FittedProbe:
    """The same choice and estimator as :func:`fit_logistic`, by scikit-learn's own fits one after the other."""
    candidates = [logistic_pipeline(C, max_iter) for C in grid]
    return search_grid("logistic", candidates, grid, X, y, folds=folds, score=negative_log_loss)


fit_logistic = fit_logistic_plain
