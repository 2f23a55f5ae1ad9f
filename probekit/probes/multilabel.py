"""Several labels per row: a probe of its own for each label."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.dummy import DummyClassifier
from sklearn.multioutput import MultiOutputClassifier

from probekit.probes.result import FitFunction, FittedProbe, Folds


def fit_columns(fit: FitFunction, X: NDArray[Any], Y: NDArray[Any], *, folds: Folds, seed: int) -> FittedProbe:
    """Fit ``fit`` to every column of ``Y`` (n, n_labels), 0 or 1; each chooses its own regularisation.

    The estimator is scikit-learn's ``MultiOutputClassifier`` of these probes. A label that all training rows have, or
    none, is always answered so. ``regularisation``: the geometric mean over labels.
    """
    probes = [None if len(np.unique(y)) < 2 else fit(X, y, folds=folds, seed=seed) for y in Y.T]
    fitted = [probe for probe in probes if probe is not None]
    constant = [DummyClassifier(strategy="constant", constant=int(y[0])).fit(X[:1], y[:1]) for y in Y.T]
    each = [dummy if probe is None else probe.estimator for probe, dummy in zip(probes, constant, strict=True)]
    whole = MultiOutputClassifier(each[0])
    whole.estimators_ = each
    whole.classes_ = [estimator.classes_ for estimator in each]
    return FittedProbe(
        estimator=whole,
        regularisation=float(np.exp(np.mean(np.log([probe.regularisation for probe in fitted])))),
        grid_edge=any(probe.grid_edge for probe in fitted),
        converged=all(probe.converged for probe in fitted),
        cv_score=float(np.mean([probe.cv_score for probe in fitted])),
        grid=fitted[0].grid,
        cv_scores=tuple(np.mean([probe.cv_scores for probe in fitted], axis=0).tolist()),
    )
