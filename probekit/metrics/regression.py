"""Metrics of predicted numbers."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata


def regression_metrics(truth: NDArray[np.float64], predicted: NDArray[np.float64]) -> dict[str, float]:
    """All regression columns of the table; NaN where one is undefined (a constant side).

    ``truth``, ``predicted``: (n,) in the unit of the target.

    - ``r2``: 1 - sum of squared errors / sum of squares about the mean of ``truth`` itself (scikit-learn's
      ``r2_score``). Below zero for a prediction worse than that mean. Not the square of ``pearson``, which forgives
      a wrong offset and a wrong scale.
    - ``rmse``, ``mae``: in the unit of the target.
    - ``pearson``, ``spearman``: correlations of values and of ranks (ties share their mean rank).
    """
    error = predicted - truth
    # Rounding gives even equal values a spread about their mean.
    total = float(np.sum((truth - truth.mean()) ** 2)) if truth.min() < truth.max() else 0.0
    return {
        "r2": 1.0 - float(np.sum(error**2)) / total if total > 0 else np.nan,
        "rmse": float(np.sqrt(np.mean(error**2))),
        "mae": float(np.mean(np.abs(error))),
        "pearson": _correlation(truth, predicted),
        "spearman": _correlation(rankdata(truth), rankdata(predicted)),
    }


def _correlation(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    if a.min() == a.max() or b.min() == b.max():
        return np.nan
    a, b = a - a.mean(), b - b.mean()
    return float(np.clip(a @ b / np.sqrt((a @ a) * (b @ b)), -1.0, 1.0))
