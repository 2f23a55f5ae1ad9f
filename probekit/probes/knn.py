"""Nearest neighbours: what the geometry of a layer says without any learnt direction."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from probekit.probes.grid_search import accuracy, is_regression_target, r_squared, search_grid
from probekit.probes.result import FittedProbe, Folds

K_GRID = (1, 3, 5, 10, 20, 50)
"""Neighbours to ask, as far as the training rows of a fold go."""


def fit_knn(
    X: NDArray[Any],
    y: NDArray[Any],
    *,
    folds: Folds,
    seed: int,  # noqa: ARG001  (nothing here is random)
    grid: tuple[int, ...] = K_GRID,
) -> FittedProbe:
    """Majority (or mean) of the k nearest rows, features standardised; k by accuracy (or R²) over ``folds``."""
    fewest = min((len(train) for train, _ in folds), default=len(X))
    ks = [k for k in grid if k <= fewest] or [1]
    numbers = is_regression_target(y)
    neighbours: type[BaseEstimator] = KNeighborsRegressor if numbers else KNeighborsClassifier
    candidates = [make_pipeline(StandardScaler(), neighbours(k, algorithm="brute")) for k in ks]
    score = r_squared if numbers else accuracy
    return search_grid("knn", candidates, [float(k) for k in ks], X, y, folds=folds, score=score)
