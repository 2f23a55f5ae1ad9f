"""How the rows of a layer lie: their spread over dimensions, their angles, and their likeness to another layer's."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def top_dimension_share(centred: NDArray[np.float64]) -> float:
    """Share of the total variance in the dimension that has most of it; NaN without any variance.

    ``centred``: (n, d), columns of mean zero.
    """
    variance = (centred**2).sum(axis=0)
    total = float(variance.sum())
    return float(variance.max()) / total if total > 0 else float("nan")


def effective_rank(centred: NDArray[np.float64]) -> float:
    """exp of the entropy of the shares that the eigenvalues of the covariance have in their sum.

    Between 1 (all rows on a line) and min(n - 1, d) (the same variance in every direction). Roy and Vetterli (2007);
    they take singular values where this takes their squares, the variances. ``centred``: (n, d). NaN without variance.

    >>> effective_rank(np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]]))
    2.0
    """
    n, d = centred.shape
    gram = centred.T @ centred if d <= n else centred @ centred.T
    eigenvalues = np.clip(np.linalg.eigvalsh(gram), 0.0, None)
    total = float(eigenvalues.sum())
    if total <= 0:
        return float("nan")
    shares = eigenvalues[eigenvalues > 0] / total
    return float(np.exp(-np.sum(shares * np.log(shares))))


def mean_pair_cosine(X: NDArray[np.floating], *, n_pairs: int, seed: int) -> float:
    """Mean cosine of ``n_pairs`` random pairs of different rows of ``X`` (n, d); rows of zeros are left out.

    NaN if there are no two rows.
    """
    n = len(X)
    if n < 2:
        return float("nan")
    rng = np.random.default_rng(seed)
    a = rng.integers(0, n, n_pairs)
    b = (a + rng.integers(1, n, n_pairs)) % n
    A, B = X[a].astype(np.float64), X[b].astype(np.float64)
    lengths = np.linalg.norm(A, axis=1) * np.linalg.norm(B, axis=1)
    known = lengths > 0
    return float(np.mean((A * B).sum(axis=1)[known] / lengths[known])) if known.any() else float("nan")


def linear_cka(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Likeness of two sets of features of the same rows, 0 to 1: ||bᵀa||² / (||aᵀa|| ||bᵀb||), Frobenius norms.

    Kornblith et al. (2019), equation 3. Turning or scaling either side changes nothing. ``a``: (n, d_a) and ``b``:
    (n, d_b), columns of mean zero. NaN where a side has no variance.
    """
    if max(a.shape[1], b.shape[1]) > len(a):  # the same sums by the (n, n) Gram matrices
        of_a, of_b = a @ a.T, b @ b.T
        cross = float(np.sum(of_a * of_b))
    else:
        of_a, of_b = a.T @ a, b.T @ b
        cross = float(np.sum((b.T @ a) ** 2))
    norms = float(np.linalg.norm(of_a) * np.linalg.norm(of_b))
    return cross / norms if norms > 0 else float("nan")
