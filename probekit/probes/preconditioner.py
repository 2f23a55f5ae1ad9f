"""Coordinates in which the logistic objective is nearly round."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import lapack

BLOCK_ROWS = 2048  # of the weighted copy
JITTER = 1e-7  # of the largest diagonal entry: keeps the factorisation of a float32 Gram matrix positive


@dataclass(frozen=True)
class Preconditioner:
    """A matrix T with T Tᵀ close to the inverse Hessian, kept as ``identity`` I + ``left`` ``right``.

    ``left``: (d, r) float32; ``right``: (r, d) float32, or None for the identity matrix (then ``identity`` is 0).
    """

    identity: float
    left: NDArray[np.float32]
    right: NDArray[np.float32] | None

    def apply(self, v: NDArray[np.float64]) -> NDArray[np.float64]:
        """T v for ``v`` (d, columns)."""
        narrow = v.astype(np.float32)
        if self.right is None:
            return (self.left @ narrow).astype(np.float64)
        return np.asarray(self.identity * v + (self.left @ (self.right @ narrow)), dtype=np.float64)

    def apply_transposed(self, g: NDArray[np.float64]) -> NDArray[np.float64]:
        """Tᵀ g for ``g`` (d, columns)."""
        narrow = g.astype(np.float32)
        if self.right is None:
            return (self.left.T @ narrow).astype(np.float64)
        return np.asarray(self.identity * g + (self.right.T @ (self.left.T @ narrow)), dtype=np.float64)


def weighted_gram(Z: NDArray[np.float32], row_weights: NDArray[np.float32]) -> NDArray[np.float64]:
    """The Hessian's data part Zᵀ diag(w) Z / n, (d, d), or where n < d its small twin √w Z Zᵀ √w / n, (n, n)."""
    n, d = Z.shape
    root = np.sqrt(row_weights)[:, None]
    if n < d:
        weighted = Z * root
        return np.asarray((weighted @ weighted.T).astype(np.float64) / n)
    gram = np.zeros((d, d))
    for start in range(0, n, BLOCK_ROWS):
        block = Z[start : start + BLOCK_ROWS] * root[start : start + BLOCK_ROWS]
        gram += block.T @ block
    return np.asarray(gram / n)


def precondition(
    gram: NDArray[np.float64], ridge: float, Z: NDArray[np.float32], row_weights: NDArray[np.float32]
) -> Preconditioner:
    """T for the Hessian ``gram`` + ``ridge`` I, with ``gram`` from :func:`weighted_gram` of the same rows.

    Where d <= n: T = L⁻ᵀ of the Cholesky factor L (a third of the cost of an eigendecomposition, and the matrix
    changes with the row weights). Where n < d: with gram = Q diag(s) Qᵀ and V = Zᵀ√w Q / √(n s) orthonormal,
    T = ridge^-1/2 I + V ((s + ridge)^-1/2 - ridge^-1/2) Vᵀ.
    """
    n, d = Z.shape
    if d <= n:
        diagonal = np.einsum("ii->i", gram)
        regular = gram + (ridge + JITTER * float(diagonal.max(initial=0.0))) * np.eye(d)
        factor, _ = lapack.dpotrf(regular, lower=1, overwrite_a=1)
        inverse, _ = lapack.dtrtri(factor, lower=1, overwrite_c=1)
        return Preconditioner(0.0, np.ascontiguousarray(np.tril(inverse).T, dtype=np.float32), None)
    s, Q = np.linalg.eigh(gram)
    kept = s > JITTER * max(float(s[-1]), 1e-300)
    s, Q = s[kept], Q[:, kept]
    weighted = Z * np.sqrt(row_weights)[:, None]
    V = (weighted.T @ Q.astype(np.float32)) / np.sqrt(n * s).astype(np.float32)
    change = 1.0 / np.sqrt(s + ridge) - 1.0 / np.sqrt(ridge)
    return Preconditioner(1.0 / float(np.sqrt(ridge)), V * change.astype(np.float32), np.ascontiguousarray(V.T))
