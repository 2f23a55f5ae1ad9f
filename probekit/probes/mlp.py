"""A small multi-layer perceptron: what is there, if not along a direction."""

from __future__ import annotations

from itertools import product
from typing import Any

from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.compose import TransformedTargetRegressor
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from probekit.probes.grid_search import accuracy, is_regression_target, r_squared, search_grid
from probekit.probes.result import FittedProbe, Folds

DECAY_GRID = (1e-2, 1.0, 10.0, 100.0)
"""Weight decay, scikit-learn's ``alpha``. Hidden states have more dimensions than there are rows, so it must be able to
reach values that leave little but the strongest directions."""
WIDTH_GRID = (32, 128)
"""Hidden units, each with every decay."""
MOST_FOLDS = 3
"""Of the inner folds: an MLP takes long, and only an order of magnitude is chosen."""
EARLY_STOPPING_ROWS = 5000
"""From so many rows on, training stops by a tenth of them. Of a few hundred rows a tenth is too few to tell one epoch
from the next: the fit then stops before it has learnt anything (R² below zero where a converged network has 0.4)."""
MAX_EPOCHS = 1000


def fit_mlp(
    X: NDArray[Any],
    y: NDArray[Any],
    *,
    folds: Folds,
    seed: int,
    grid: tuple[float, ...] = DECAY_GRID,
) -> FittedProbe:
    """One hidden layer, trained until its loss stands still; decay and width chosen together over three folds.

    The choice and the estimator are those of ``GridSearchCV`` by accuracy or R². Features are standardised, and so are
    numbers to regress on. The same ``seed`` gives the same network. ``regularisation`` is the decay.
    """
    numbers = is_regression_target(y)
    pairs = list(product(grid, WIDTH_GRID))
    stop = len(y) >= EARLY_STOPPING_ROWS
    candidates = [_network(decay, width, numbers=numbers, stop=stop, seed=seed) for decay, width in pairs]
    score = r_squared if numbers else accuracy
    decays = [decay for decay, _ in pairs]
    return search_grid("mlp", candidates, decays, X, y, folds=list(folds)[:MOST_FOLDS], score=score)


def _network(decay: float, width: int, *, numbers: bool, stop: bool, seed: int) -> BaseEstimator:
    options = {
        "hidden_layer_sizes": (width,),
        "alpha": decay,
        "max_iter": MAX_EPOCHS,
        "early_stopping": stop,
        "random_state": seed,
    }
    if numbers:
        scaled = TransformedTargetRegressor(MLPRegressor(**options), transformer=StandardScaler())
        return make_pipeline(StandardScaler(), scaled)
    return make_pipeline(StandardScaler(), MLPClassifier(**options))
