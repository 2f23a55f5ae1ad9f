"""Logistic and ridge regression on sparse rows along a grid, by Newton's method with conjugate gradients.

The objectives are scikit-learn's. L-BFGS needs a hundred steps on TF-IDF, whose columns differ in size by a factor of
a thousand, and most of the time of a step is spent on its memory; a step of conjugate gradients, preconditioned by
the diagonal of the Hessian, is two sparse products, and each solution is the start at the next grid point.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, hstack

Matrix = NDArray[np.float32]

PRECISION = 1e-4  # relative: the decrease of the objective that a further step promises
MAX_STEPS = 50
MAX_PRODUCTS = 200  # with the Hessian, for a step
FORCING = 0.1  # how much smaller a step must make the gradient of the local parabola
RIDGE_FORCING = 1e-4  # scikit-learn's tolerance


class LogisticFold:
    """The way along C of one fold: sigmoid for two classes, softmax for more, an intercept without penalty.

    ``learnt``, ``held``: (n, d) sparse float32 rows, with labels ``y_learnt``, ``y_held``.
    """

    def __init__(self, learnt: csr_matrix, held: csr_matrix, y_learnt: NDArray[Any], y_held: NDArray[Any]) -> None:
        self._X, self._held = _with_ones(learnt), _with_ones(held)
        classes, self._codes = np.unique(y_learnt, return_inverse=True)
        place = np.minimum(np.searchsorted(classes, y_held), len(classes) - 1)
        known = classes[place] == y_held
        self._held, self._held_codes = self._held[known], place[known]
        share = np.log(np.bincount(self._codes) / len(self._codes))
        start = share[1:] - share[:1] if len(classes) == 2 else share - share.mean()
        self._W = np.zeros((self._X.shape[1], len(start)), dtype=np.float32)
        self._W[-1] = start

    def score(self, C: float) -> float:
        """Minus the mean log-loss of the held-out rows of known classes, at the minimum for ``C``; NaN without any."""
        self._W = _minimise_logistic(self._X, self._codes, self._W, 1.0 / (C * self._X.shape[0]))
        if not len(self._held_codes):
            return float("nan")
        largest = -float(np.log(np.finfo(np.float32).eps))
        return -float(np.minimum(_loss(self._held @ self._W, self._held_codes), largest).mean(dtype=np.float64))


class RidgeFold:
    """The way along alpha of one fold, an intercept without penalty. ``X``: (n, d) sparse float32; ``y``: (n,)."""

    def __init__(self, X: csr_matrix, y: NDArray[Any]) -> None:
        self._X = _with_ones(X)
        self._mean = float(y.mean())
        self._y = (y - self._mean).astype(np.float32)[:, None]
        self._W = np.zeros((self._X.shape[1], 1), dtype=np.float32)

    def predict(self, alpha: float, held: csr_matrix) -> NDArray[np.float64]:
        """(n_held,)."""
        X, XT = self._X, self._X.T
        penalty = _penalty(X, alpha)
        gradient = XT @ (X @ self._W - self._y) + penalty * self._W
        size = np.asarray(X.multiply(X).sum(axis=0)).reshape(-1, 1) + penalty
        at_zero = XT @ self._y
        enough = RIDGE_FORCING * float(np.sqrt((at_zero**2 / size).sum()))
        self._W = self._W + _conjugate_gradients(lambda V: XT @ (X @ V) + penalty * V, -gradient, size, enough)
        return np.asarray((_with_ones(held) @ self._W).ravel() + self._mean, dtype=np.float64)


def _with_ones(X: csr_matrix) -> csr_matrix:
    """A last column of ones, for the intercept."""
    return hstack([X, csr_matrix(np.ones((X.shape[0], 1), dtype=X.dtype))], format="csr")


def _penalty(X: csr_matrix, ridge: float) -> Matrix:
    """(d + 1, 1): none for the intercept."""
    penalty = np.full((X.shape[1], 1), ridge, dtype=np.float32)
    penalty[-1] = 0
    return penalty


def _minimise_logistic(X: csr_matrix, codes: NDArray[np.intp], W: Matrix, ridge: float) -> Matrix:
    """The minimum of mean log-loss + ``ridge``/2 |W|² from ``W`` (d + 1, P), P = 1 for two classes."""
    n = X.shape[0]
    XT, squares = X.T, X.multiply(X).T.tocsr()
    penalty = _penalty(X, ridge)

    def objective(logits: Matrix, W: Matrix) -> float:
        losses = _loss(logits, codes).mean(dtype=np.float64)
        return float(losses + 0.5 * (penalty * W * W).sum(dtype=np.float64))

    logits = X @ W
    value = objective(logits, W)
    for _ in range(MAX_STEPS):
        p, residual = _probability(logits, codes)
        gradient = XT @ (residual / n) + penalty * W
        size = squares @ (p * (1 - p) / n) + penalty + np.float32(1e-12)

        def curved(V: Matrix, p: Matrix = p) -> Matrix:
            R = (X @ V) * p
            R -= p * R.sum(axis=1, keepdims=True)
            return np.asarray(XT @ (R / n) + penalty * V)

        enough = FORCING * float(np.sqrt((gradient**2 / size).sum()))
        step = _conjugate_gradients(curved, -gradient, size, enough)
        promised = -float((gradient * step).sum())
        if promised <= PRECISION * value:
            break
        along, length = X @ step, np.float32(1)
        while (there := objective(logits + length * along, W + length * step)) > (
            value - 1e-4 * float(length) * promised
        ):
            length /= np.float32(2)
            if length < 1e-6:  # rounding is all that is left
                return W
        W, logits, value = W + length * step, logits + length * along, there
    return W


def _above_own(logits: Matrix, codes: NDArray[np.intp]) -> tuple[Matrix, Matrix, Matrix]:
    """How far the logits of the other classes are above a row's own, as exponentials that can't overflow.

    (n, n_classes) exp(above - top), 0 for the own class; (n, 1) exp(-top), which is that of the own; (n, 1) top >= 0.
    Kept apart because a row that is all but certain has a loss and a residual far below the rounding of 1.
    """
    whole = np.hstack([np.zeros_like(logits), logits]) if logits.shape[1] == 1 else logits
    rows = np.arange(len(codes))
    above = whole - whole[rows, codes][:, None]
    top = above.max(axis=1, keepdims=True)
    others = np.exp(above - top)
    others[rows, codes] = 0
    return others, np.exp(-top), top


def _loss(logits: Matrix, codes: NDArray[np.intp]) -> Matrix:
    """(n,) log-losses."""
    others, _, top = _above_own(logits, codes)
    return np.asarray(top[:, 0] + np.log1p(others.sum(axis=1) + np.expm1(-top[:, 0])))


def _probability(logits: Matrix, codes: NDArray[np.intp]) -> tuple[Matrix, Matrix]:
    """Probabilities, and how far they are from the truth, both (n, P)."""
    others, own, _ = _above_own(logits, codes)
    rest = others.sum(axis=1, keepdims=True)
    p = others / (own + rest)
    residual = p.copy()
    rows = np.arange(len(codes))
    p[rows, codes] = (own / (own + rest))[:, 0]
    residual[rows, codes] = -(rest / (own + rest))[:, 0]
    return (p[:, 1:], residual[:, 1:]) if logits.shape[1] == 1 else (p, residual)


def _conjugate_gradients(product: Callable[[Matrix], Matrix], b: Matrix, size: Matrix, enough: float) -> Matrix:
    """An approximate solution of ``product(V)`` = ``b``, preconditioned by the diagonal ``size``.

    It ends where the residual, measured by 1/``size``, is at most ``enough``.
    """
    V = np.zeros_like(b)
    residual = b.copy()
    scaled = residual / size
    direction = scaled.copy()
    rho = float((residual * scaled).sum())
    for _ in range(MAX_PRODUCTS):
        if rho <= enough**2:
            break
        image = product(direction)
        curvature = float((direction * image).sum())
        if curvature <= 0:
            break
        length = np.float32(rho / curvature)
        V += length * direction
        residual -= length * image
        scaled = residual / size
        before, rho = rho, float((residual * scaled).sum())
        direction = scaled + np.float32(rho / before) * direction
    return V
