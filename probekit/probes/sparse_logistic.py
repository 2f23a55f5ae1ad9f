"""Logistic regression on the k best single dimensions (Gurnee et al. 2023, "Finding neurons in a haystack")."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.dummy import DummyClassifier
from sklearn.feature_selection import SelectKBest, VarianceThreshold, f_classif
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from probekit.probes.grid_search import fit_once, negative_log_loss, search_grid
from probekit.probes.result import FittedProbe, Folds

K_GRID = (1, 4, 16, 64)
"""Dimensions to keep."""


def fit_sparse_logistic(
    X: NDArray[Any],
    y: NDArray[Any],
    *,
    folds: Folds,
    seed: int,  # noqa: ARG001  (nothing here is random)
    grid: tuple[int, ...] = K_GRID,
) -> FittedProbe:
    """Rank the dimensions by their F statistic and keep k, chosen by the log-loss over ``folds``; C is 1.

    The ranking is part of the pipeline: it sees the training rows of each fold alone. ``regularisation`` is k.
    """
    if not np.ptp(X, axis=0).any():
        return fit_once(DummyClassifier(), X, y)  # rows that are all alike have no dimension to keep
    ks = [k for k in grid if k <= X.shape[1]]
    candidates = [
        make_pipeline(
            VarianceThreshold(), StandardScaler(), SelectKBest(f_classif, k=k), LogisticRegression(max_iter=1000)
        )
        for k in ks
    ]
    return search_grid(
        "sparse-logistic", candidates, [float(k) for k in ks], X, y, folds=folds, score=negative_log_loss
    )
