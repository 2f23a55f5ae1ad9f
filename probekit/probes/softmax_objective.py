"""scikit-learn's logistic objective for all folds at once, each matrix product shared by them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from probekit.probes.fold_scaling import FoldScaling

BLOCK_ROWS = 512  # a block of float32 rows stays in the processor's cache between the two products
ABSENT = np.float32(-1e30)  # the logit of a class that a fold's training rows lack: probability exactly 0


@dataclass(frozen=True)
class Problem:
    """What the objective is made of; ``P`` = 1 for two classes (sigmoid), else the number of classes (softmax).

    ``Z``: (n, d) float32 rows. ``codes``: (n,) class numbers. ``scaling``: the folds. ``present``: (n_folds, n_classes)
    whether a class occurs in the fold's training rows. ``loss_cap``: the largest log-loss of a row, which
    scikit-learn's clipping of probabilities gives.
    """

    Z: NDArray[np.float32]
    codes: NDArray[np.intp]
    scaling: FoldScaling
    present: NDArray[np.bool_]
    loss_cap: float

    @property
    def n_outputs(self) -> int:
        """P: 1 for two classes, else their number."""
        n_classes = self.present.shape[1]
        return 1 if n_classes == 2 else n_classes


@dataclass(frozen=True)
class FoldValues:
    """The objective of ``m`` folds: values (m,), gradients by weights (m, d, P) and by intercepts (m, P).

    ``validation_loss``: (m,) mean log-loss of the validation rows whose class the fold has seen; NaN without any.
    """

    value: NDArray[np.float64]
    weight_gradient: NDArray[np.float64]
    intercept_gradient: NDArray[np.float64]
    validation_loss: NDArray[np.float64]


def evaluate_folds(
    problem: Problem,
    which: NDArray[np.intp],
    weights: NDArray[np.float64],
    intercepts: NDArray[np.float64],
    C: float,
) -> FoldValues:
    """The objective and its gradient for the folds ``which`` (m,) at ``weights`` (m, d, P), ``intercepts`` (m, P).

    With fold f's mean m, scale t and n_f training rows, its scikit-learn weights are w = t u, so that the logit of
    a row z is ((z - m) / t) w + b = (z - m) u + b, and the objective is

        1/n_f sum over training rows of log-loss(y, (z - m) u + b)  +  1/(2 C n_f) |t u|².

    Gradients are by u and b. All rows are multiplied, held-out ones with weight 0, so that their loss comes for free.
    """
    m, d, n_outputs = weights.shape
    scaling = problem.scaling
    n_train, mean, scale = scaling.n_train[which], scaling.mean[which], scaling.scale[which]
    offset = intercepts - np.einsum("md,mdp->mp", mean, weights)
    stacked = np.ascontiguousarray(weights.transpose(1, 0, 2).reshape(d, m * n_outputs), dtype=np.float32)
    shift = offset.reshape(m * n_outputs, 1).astype(np.float32)
    train, validation = scaling.train[which], scaling.validation[which]
    absent = ~problem.present[which]
    known = problem.present[which].astype(np.float32)
    product = np.zeros((m * n_outputs, d), dtype=np.float32)
    residual_sum = np.zeros((m, n_outputs))
    loss, validation_loss, n_scored = np.zeros(m), np.zeros(m), np.zeros(m)
    for start in range(0, len(problem.Z), BLOCK_ROWS):
        rows = slice(start, start + BLOCK_ROWS)
        Z, codes = problem.Z[rows], problem.codes[rows]
        # (Rows first, then turned: BLAS is up to twice as fast at Z Wᵀ as at W Zᵀ for a few narrow columns.)
        logits = np.ascontiguousarray((Z @ stacked).T + shift).reshape(m, n_outputs, len(Z))
        if n_outputs == 1:
            row_loss, residual = _sigmoid_loss(logits[:, 0], codes)
        else:
            logits[absent] = ABSENT
            row_loss, residual = _softmax_loss(logits, codes)
        residual *= train[:, None, rows]
        loss += np.einsum("mi,mi->m", row_loss, train[:, rows], dtype=np.float64)
        scored = validation[:, rows] * known[:, codes]
        capped = np.clip(row_loss, 0.0, problem.loss_cap)
        validation_loss += np.einsum("mi,mi->m", capped, scored, dtype=np.float64)
        n_scored += scored.sum(axis=1, dtype=np.float64)
        residual_sum += residual.sum(axis=2, dtype=np.float64)
        product += residual.reshape(m * n_outputs, len(Z)) @ Z
    penalty = weights * (scale**2)[:, :, None] / (C * n_train)[:, None, None]
    weight_gradient = product.reshape(m, n_outputs, d).transpose(0, 2, 1).astype(np.float64)
    weight_gradient -= mean[:, :, None] * residual_sum[:, None, :]
    weight_gradient /= n_train[:, None, None]
    return FoldValues(
        value=loss / n_train + 0.5 * np.einsum("mdp,mdp->m", weights, penalty),
        weight_gradient=weight_gradient + penalty,
        intercept_gradient=residual_sum / n_train[:, None],
        validation_loss=np.where(n_scored > 0, validation_loss / np.maximum(n_scored, 1.0), np.nan),
    )


def _sigmoid_loss(logits: NDArray[Any], codes: NDArray[np.intp]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Log-loss (m, rows) and residual p - y (m, 1, rows) of logits (m, rows), without overflow."""
    target = codes.astype(logits.dtype)
    small = np.exp(-np.abs(logits))
    loss = np.maximum(logits, 0) + np.log1p(small) - logits * target
    probability = np.where(logits >= 0, 1, small) / (1 + small)
    return loss, (probability - target)[:, None, :]


def _softmax_loss(logits: NDArray[Any], codes: NDArray[np.intp]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Log-loss (m, rows) and residual p - onehot(y) (m, P, rows) of logits (m, P, rows), without overflow."""
    columns = np.arange(len(codes))
    top = logits.max(axis=1)
    own = logits[:, codes, columns]
    exponential = np.exp(logits - top[:, None, :])
    total = exponential.sum(axis=1)
    exponential /= total[:, None, :]
    exponential[:, codes, columns] -= 1
    return np.log(total) + top - own, exponential


def mean_curvature(
    problem: Problem, weights: NDArray[np.float64], intercepts: NDArray[np.float64]
) -> NDArray[np.float32]:
    """p (1 - p) of every row, (n,) float32, the mean over classes, under the model averaged over folds.

    This is the weight of a row in the Hessian; ``weights`` (m, d, P), ``intercepts`` (m, P).
    """
    centre = weights.mean(axis=0)
    offset = (intercepts - np.einsum("md,mdp->mp", problem.scaling.mean, weights)).mean(axis=0)
    logits = problem.Z @ centre.astype(np.float32) + offset.astype(np.float32)
    if problem.n_outputs == 1:
        small = np.exp(-np.abs(logits[:, 0]))
        return np.asarray(small / np.square(1 + small))
    probability = np.exp(logits - logits.max(axis=1, keepdims=True))
    probability /= probability.sum(axis=1, keepdims=True)
    return np.asarray((probability * (1 - probability)).mean(axis=1))
