"""A small multi-layer perceptron: what is there, if not along a direction."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.compose import TransformedTargetRegressor
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from probekit.probes.grid_search import accuracy, is_regression_target, r_squared, search_grid
from probekit.probes.result import FittedProbe, Folds

HIDDEN = (256,)
DECAY_GRID = (1e-4, 1e-2, 1.0)
"""Weight decay, scikit-learn's ``alpha``."""
MOST_FOLDS = 2
"""Of the inner folds: an MLP takes long, and only an order of magnitude is chosen."""


def fit_mlp(
    X: NDArray[Any],
    y: NDArray[Any],
    *,
    folds: Folds,
    seed: int,
    grid: tuple[float, ...] = DECAY_GRID,
) -> FittedProbe:
    """One hidden layer of 256, early stopping on a tenth of the training rows, weight decay chosen over two folds.

    Features are standardised, and so are numbers to regress on. The same ``seed`` gives the same network.
    """
    numbers = is_regression_target(y)
    candidates = [_network(decay, numbers=numbers, seed=seed) for decay in grid]
    score = r_squared if numbers else accuracy
    return search_grid("mlp", candidates, grid, X, y, folds=list(folds)[:MOST_FOLDS], score=score)


def _network(decay: float, *, numbers: bool, seed: int) -> BaseEstimator:
    options = {"hidden_layer_sizes": HIDDEN, "alpha": decay, "early_stopping": True, "random_state": seed}
    if numbers:
        scaled = TransformedTargetRegressor(MLPRegressor(**options), transformer=StandardScaler())
        return make_pipeline(StandardScaler(), scaled)
    return make_pipeline(StandardScaler(), MLPClassifier(**options))
