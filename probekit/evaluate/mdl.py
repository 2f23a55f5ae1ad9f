"""How few bits the labels take for somebody who has the states: the online code of Voita and Titov (2020)."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, clone

from probekit.probes import FittedProbe
from probekit.probes.grid_search import quiet_fit

FRACTIONS = (0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.0625, 0.125, 0.25, 0.5, 1.0)
"""Of the training rows: where the blocks end (Voita and Titov 2020, section 4)."""


def block_ends(n: int) -> list[int]:
    """Where the blocks of ``n`` rows end; with few rows the first ones fall together.

    >>> block_ends(1000)
    [1, 2, 4, 8, 16, 32, 63, 125, 250, 500, 1000]
    >>> block_ends(40)
    [1, 3, 5, 10, 20, 40]
    """
    return sorted({max(1, int(fraction * n + 0.5)) for fraction in FRACTIONS})


def online_code_bits(
    X: NDArray[Any],
    codes: NDArray[np.int64],
    n_classes: int,
    *,
    fit: Callable[[NDArray[Any], NDArray[np.int64]], BaseEstimator],
) -> float:
    """Bits that ``codes`` (n,) take, sent block by block, each with a probe fitted on the blocks before it.

    ``X``: (n, d), what sender and receiver both have. ``fit(X, codes)``: an estimator with probabilities. The first
    block, and any after rows of one class only, is sent with the uniform code. After t rows the code of a label is
    -log2 of (t p + 1) / (t + n_classes): add-one smoothing, for a class that was not seen yet would take infinitely
    many bits.
    """
    ends = block_ends(len(codes))
    bits = ends[0] * np.log2(n_classes)
    for t, end in pairwise(ends):
        known = np.zeros((end - t, n_classes))
        if len(np.unique(codes[:t])) < 2:
            known[:] = 1.0 / n_classes
        else:
            estimator = fit(X[:t], codes[:t])
            known[:, estimator.classes_] = estimator.predict_proba(X[t:end])
        smoothed = (t * known[np.arange(end - t), codes[t:end]] + 1.0) / (t + n_classes)
        bits -= float(np.log2(smoothed).sum())
    return float(bits)


def probe_code_bits(fitted: FittedProbe, X: NDArray[Any], codes: NDArray[np.int64], n_classes: int) -> float:
    """The online code with the probe that was fitted on these very rows, its hyper-parameter kept for all blocks.

    The hyper-parameter was chosen with all the labels, so its name is sent too: log2 of the size of the grid.
    ``X``: (n_train, d) and ``codes``: (n_train,), in the order of sending.
    """

    def fit(rows: NDArray[Any], labels: NDArray[np.int64]) -> BaseEstimator:
        estimator = clone(fitted.estimator)
        quiet_fit(estimator, rows, labels)
        return estimator

    return float(np.log2(max(1, len(fitted.grid)))) + online_code_bits(X, codes, n_classes, fit=fit)
