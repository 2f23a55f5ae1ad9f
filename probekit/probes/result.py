"""What a fitted probe is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator

Folds = Sequence[tuple[NDArray[np.intp], NDArray[np.intp]]]
"""Inner cross-validation: pairs (training rows, validation rows) of indices into the rows that a probe is given."""


@dataclass(frozen=True)
class FittedProbe:
    """A probe fitted on all rows it was given, and how its hyper-parameter was chosen.

    ``estimator``: the fitted scikit-learn estimator, for the built-in probes a ``Pipeline`` with the scaler inside.
    ``regularisation``: the chosen hyper-parameter (C, alpha, ...); NaN for a probe that has none.
    ``grid_edge``: whether the choice lies at an end of a grid of several points, so that a better value may lie beyond.
    ``converged``: whether the fits of the chosen value and of the final estimator stopped by their own criterion.
    ``cv_score``: mean score over the inner folds of the chosen value, higher is better: minus the log-loss (nats) for
    probes with probabilities, else accuracy; R² for regression. NaN where nothing was cross-validated.
    ``grid``: all values tried, ascending (one occurs several times where something else varies beside it);
    ``cv_scores``: their scores, NaN for those left out by early stopping.
    """

    estimator: BaseEstimator
    regularisation: float
    grid_edge: bool
    converged: bool
    cv_score: float
    grid: tuple[float, ...]
    cv_scores: tuple[float, ...]


def chosen_index(cv_scores: Sequence[float], grid: Sequence[float]) -> int:
    """Index of the best score, NaN ignored; of equal scores the first, as in ``GridSearchCV``.

    A grid of one point needs no score.

    >>> chosen_index([-0.5, -0.3, float("nan")], [1.0, 10.0, 100.0])
    1
    """
    return 0 if len(grid) == 1 else int(np.nanargmax(np.asarray(cv_scores)))


def at_edge(index: int, grid: Sequence[float]) -> bool:
    """Whether the value at ``index`` is an end of a grid of several values."""
    return min(grid) < max(grid) and grid[index] in (min(grid), max(grid))
