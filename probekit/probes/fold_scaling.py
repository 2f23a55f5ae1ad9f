"""Exact standardisation of every fold without a copy of its rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.preprocessing import StandardScaler

from probekit.probes.result import Folds

BLOCK_ROWS = 512  # rows of float64 copies held at a time


@dataclass(frozen=True)
class FoldScaling:
    """Per fold: which rows train and validate, and the scaler that its training rows alone give.

    ``train``, ``validation``: (n_folds, n) float32, how often a row occurs there (0 or 1 in ordinary folds).
    ``n_train``, ``n_validation``: (n_folds,). ``mean``, ``scale``: (n_folds, d) float64, of the training rows of Z.
    """

    train: NDArray[np.float32]
    validation: NDArray[np.float32]
    n_train: NDArray[np.float64]
    n_validation: NDArray[np.float64]
    mean: NDArray[np.float64]
    scale: NDArray[np.float64]


def fold_counts(folds: Folds, n: int, part: int) -> NDArray[np.float32]:
    """How often each of ``n`` rows occurs in part 0 (training) or 1 (validation) of each fold: (n_folds, n)."""
    return np.stack([np.bincount(np.asarray(fold[part]), minlength=n) for fold in folds]).astype(np.float32)


def scale_folds(Z: NDArray[Any], folds: Folds) -> FoldScaling:
    """Means and scales of every fold's training rows, in one pass over ``Z`` (n, d).

    ``Z`` should be standardised on all rows already: then the variance of a fold, mean(z²) - mean(z)², loses no
    digits that matter, except in columns that vary (almost) only in the held-out rows. Those few are done again by
    ``StandardScaler`` on the rows themselves, which also gives its rule for constant columns (scale 1).
    """
    n, d = Z.shape
    train = fold_counts(folds, n, 0)
    validation = fold_counts(folds, n, 1)
    counts = train.astype(np.float64)
    n_train = counts.sum(axis=1)
    total = np.zeros((len(folds), d))
    total_squared = np.zeros((len(folds), d))
    for start in range(0, n, BLOCK_ROWS):
        block = Z[start : start + BLOCK_ROWS].astype(np.float64)
        total += counts[:, start : start + BLOCK_ROWS] @ block
        total_squared += counts[:, start : start + BLOCK_ROWS] @ np.square(block)
    mean = total / n_train[:, None]
    variance = total_squared / n_train[:, None] - mean**2
    scale = np.sqrt(np.maximum(variance, 0.0))
    for k, (rows, _) in enumerate(folds):
        delicate = np.flatnonzero(variance[k] < 1e-6 * (1.0 + mean[k] ** 2))
        if len(delicate):
            scaler = StandardScaler().fit(Z[np.ix_(np.asarray(rows), delicate)])
            mean[k, delicate], scale[k, delicate] = scaler.mean_, scaler.scale_
    return FoldScaling(train, validation, n_train, validation.sum(axis=1, dtype=np.float64), mean, scale)
