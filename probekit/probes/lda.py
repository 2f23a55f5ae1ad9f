"""Linear discriminant analysis with a shrunken covariance (Ledoit and Wolf 2004): no hyper-parameter to choose."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from probekit.probes.grid_search import fit_once
from probekit.probes.result import FittedProbe, Folds


def fit_lda(
    X: NDArray[Any],
    y: NDArray[Any],
    *,
    folds: Folds,  # noqa: ARG001  (nothing to choose)
    seed: int,  # noqa: ARG001  (nothing here is random)
) -> FittedProbe:
    """Fit on standardised features (n, d) and labels (n,)."""
    return fit_once(make_pipeline(StandardScaler(), LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto")), X, y)
