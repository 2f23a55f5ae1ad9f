"""Ridge regression, the probe for numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import Ridge
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from probekit.probes.grid_search import r_squared, search_grid
from probekit.probes.result import FittedProbe, Folds

ALPHA_PER_DIMENSION: tuple[float, ...] = tuple(float(a) for a in np.logspace(-3, 3, 7))
"""The grid of alpha divided by the number of features: standardised features have a total variance of d."""


def ridge_pipeline(alpha: float) -> Pipeline:
    """The unfitted probe: standardise, then ridge regression (which centres the targets by its intercept)."""
    return make_pipeline(StandardScaler(), Ridge(alpha=alpha))


def fit_ridge_plain(
    X: NDArray[Any],
    y: NDArray[Any],
    *,
    folds: Folds,
    seed: int,  # noqa: ARG001  (nothing here is random)
    grid: tuple[float, ...] = ALPHA_PER_DIMENSION,
) -> FittedProbe:
    """The same choice and estimator as :func:`fit_ridge`, by scikit-learn's own fits one after the other."""
    alphas = [X.shape[1] * a for a in grid]
    candidates = [ridge_pipeline(alpha) for alpha in alphas]
    return search_grid("ridge", candidates, alphas, X, np.asarray(y, dtype=np.float64), folds=folds, score=r_squared)


fit_ridge = fit_ridge_plain
