"""Mass-mean probes: the direction from one class mean to the other, and nothing fitted beyond it.

Marks and Tegmark (2023), "The geometry of truth". The plain form assigns a row to the nearest class mean; the
covariance-corrected form ("iid") measures the distance by the inverse covariance within classes, as a linear
discriminant does, here shrunken so that it exists for fewer rows than features.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.dummy import DummyClassifier
from sklearn.neighbors import NearestCentroid

from probekit.probes.grid_search import fit_once
from probekit.probes.result import FittedProbe, Folds


def fit_mass_mean(
    X: NDArray[Any],
    y: NDArray[Any],
    *,
    folds: Folds,  # noqa: ARG001  (nothing to choose)
    seed: int,  # noqa: ARG001  (nothing here is random)
) -> FittedProbe:
    """Nearest class mean in the states as they are (n, d), not standardised: the difference of means is the point."""
    alike = not np.ptp(X, axis=0).any()  # as the first token's embeddings are, which scikit-learn refuses
    return fit_once(DummyClassifier() if alike else NearestCentroid(), X, y)


def fit_mass_mean_iid(
    X: NDArray[Any],
    y: NDArray[Any],
    *,
    folds: Folds,  # noqa: ARG001  (nothing to choose)
    seed: int,  # noqa: ARG001  (nothing here is random)
) -> FittedProbe:
    """Nearest class mean by the inverse covariance within classes (n, d), all classes taken as equally common."""
    n_classes = len(np.unique(y))
    equal = np.full(n_classes, 1 / n_classes)
    return fit_once(LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto", priors=equal), X, y)
