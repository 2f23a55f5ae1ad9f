"""Held-out scores of ridge regression for every alpha and fold, from one Gram matrix.

Each row is multiplied with itself once, in the fold that holds it out. A fold's Gram matrix is the sum of all folds'
minus its own part, standardised afterwards by the fold's own means and scales
(Z = (X - m) / s gives ZᵀZ = (XᵀX - n m mᵀ) / s sᵀ), so that every alpha costs a Cholesky factorisation and no more.
Products of blocks of standardised float32 rows stay float32 (their error is far below the smallest alpha); sums,
subtractions and solutions are float64.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import lapack
from sklearn.metrics import r2_score

from probekit.probes.fold_scaling import FoldScaling, scale_folds
from probekit.probes.result import Folds

BLOCK_ROWS = 1024
REFINED = 1e-6  # norm of the residual, relative
MAX_REFINEMENTS = 12
Matrix = NDArray[np.float64]


def held_out_scores(Z: NDArray[Any], Y: Matrix, folds: Folds, alphas: Sequence[float]) -> Matrix | None:
    """R² (mean over targets) of the held-out rows, (n_alphas, n_folds); NaN where a fold holds out fewer than two.

    ``Z``: (n, d), standardised on all rows (each fold is standardised anew by its own training rows; this only keeps
    the digits together). ``Y``: (n, n_targets). None where a row is held out by several folds or a fold leaves rows
    unused: the sums above don't hold there.
    """
    held_by = _held_by(folds, len(Z))
    if held_by is None:
        return None
    folds = [(train, np.sort(held)) for train, held in folds]  # (in the order in which ``_primal`` answers)
    scaling = scale_folds(Z, folds)
    by_fold = _primal(Z, Y, held_by, scaling, alphas) if Z.shape[1] <= len(Z) else _dual(Z, Y, folds, scaling, alphas)
    scores = np.full((len(alphas), len(folds)), np.nan)
    for k, predictions in enumerate(by_fold):
        held = folds[k][1]
        if len(held) > 1:
            scores[:, k] = [r2_score(Y[held], predicted) for predicted in predictions]
    return scores


def _held_by(folds: Folds, n: int) -> NDArray[np.intp] | None:
    """Which fold holds each row out, -1 for none: (n,). None where that has no single answer."""
    held_by = np.full(n, -1)
    for k, (train, held) in enumerate(folds):
        if (held_by[held] >= 0).any() or len(train) + len(held) != n or len(np.intersect1d(train, held)):
            return None
        held_by[held] = k
    return held_by


@dataclass(frozen=True)
class _Sums:
    """ZᵀZ (d, d), ZᵀY (d, t) and the sum of Y (t,) over some rows."""

    gram: NDArray[np.floating]
    cross: Matrix
    total: Matrix

    @classmethod
    def over(cls, Z: NDArray[Any], Y: Matrix) -> _Sums:
        d = Z.shape[1]
        gram, cross = np.zeros((d, d), dtype=Z.dtype), np.zeros((d, Y.shape[1]))
        for start in range(0, len(Z), BLOCK_ROWS):
            block = Z[start : start + BLOCK_ROWS]
            gram += block.T @ block
            cross += block.T.astype(np.float64) @ Y[start : start + BLOCK_ROWS]
        return cls(gram, cross, Y.sum(axis=0))

    def __add__(self, other: _Sums) -> _Sums:
        return _Sums(
            np.add(self.gram, other.gram, dtype=np.float64), self.cross + other.cross, self.total + other.total
        )


def _primal(
    Z: NDArray[Any], Y: Matrix, held_by: NDArray[np.intp], scaling: FoldScaling, alphas: Sequence[float]
) -> Iterator[list[Matrix]]:
    """Predictions of the held-out rows, by alpha, fold after fold."""
    n_folds = len(scaling.n_train)
    held_rows = [np.flatnonzero(held_by == k) for k in range(n_folds)]
    held = [_Sums.over(Z[rows], Y[rows]) for rows in held_rows]
    whole = _Sums.over(Z[held_by < 0], Y[held_by < 0])
    for part in held:
        whole = whole + part
    for k, rows in enumerate(held_rows):
        n, mean, scale = scaling.n_train[k], scaling.mean[k], scaling.scale[k]
        y_mean = (whole.total - held[k].total) / n
        gram = whole.gram - held[k].gram
        gram -= n * np.outer(mean, mean)
        gram /= np.outer(scale, scale)
        cross = (whole.cross - held[k].cross - n * np.outer(mean, y_mean)) / scale[:, None]
        Z_held = (Z[rows] - mean) / scale
        solutions = [_regularised_solution(gram, alpha, cross) for alpha in alphas]
        yield [part + y_mean for part in np.hsplit(Z_held @ np.hstack(solutions), len(alphas))]


def _dual(
    Z: NDArray[Any], Y: Matrix, folds: Folds, scaling: FoldScaling, alphas: Sequence[float]
) -> Iterator[list[Matrix]]:
    """The same with more features than rows: the kernel matrix of the training rows stands for the Gram matrix."""
    for k, (train, held) in enumerate(folds):
        standardised = (Z - scaling.mean[k]) / scaling.scale[k]
        Z_train, Z_held = standardised[train], standardised[held]
        kernel, kernel_held = Z_train @ Z_train.T, Z_held @ Z_train.T
        y_mean = Y[train].mean(axis=0)
        yield [kernel_held @ _regularised_solution(kernel, alpha, Y[train] - y_mean) + y_mean for alpha in alphas]


def _regularised_solution(A: Matrix, alpha: float, b: Matrix) -> Matrix:
    """(A + alpha I)⁻¹ b for a symmetric positive semi-definite A, which is left as it is.

    A float32 Cholesky factor, at half the price, and float64 residuals fed back through it (iterative refinement as in
    LAPACK's dsposv; Langou et al. 2006); where that does not converge quickly, a float64 factor.
    """
    regular = A.copy()
    regular.flat[:: len(A) + 1] += alpha
    # A C-ordered symmetric matrix is its own Fortran-ordered transpose, so LAPACK takes it without another copy.
    factor, failed = lapack.spotrf(regular.astype(np.float32).T, lower=1, overwrite_a=1, clean=0)
    solution: Matrix = np.zeros_like(b)
    enough = REFINED * np.linalg.norm(b)
    for _ in range(0 if failed else MAX_REFINEMENTS):
        residual = b - regular @ solution
        if np.linalg.norm(residual) <= enough:
            return solution
        solution += lapack.spotrs(factor, residual.astype(np.float32), lower=1)[0]
    _, solution, failed = lapack.dposv(regular.T, b, lower=1)
    if failed:  # rounding made it indefinite: alpha is below the noise, and any solution is a bad one
        return np.asarray(np.linalg.lstsq(regular, b, rcond=None)[0], dtype=np.float64)
    return np.asarray(solution, dtype=np.float64)
