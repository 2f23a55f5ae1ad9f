"""Probes: cheap heads that read a label or a number off the hidden states of one layer, on the CPU."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, clone
from sklearn.multioutput import MultiOutputClassifier

from probekit.errors import SpecError
from probekit.probes.grid_search import fit_once
from probekit.probes.knn import fit_knn
from probekit.probes.lda import fit_lda
from probekit.probes.logistic import fit_logistic
from probekit.probes.mass_mean import fit_mass_mean, fit_mass_mean_iid
from probekit.probes.mlp import fit_mlp
from probekit.probes.multilabel import fit_columns, refit_columns
from probekit.probes.result import FitFunction, FittedProbe, Folds, ProbeKind
from probekit.probes.ridge import fit_ridge
from probekit.probes.sparse_logistic import fit_sparse_logistic

__all__ = [
    "PROBES",
    "FitFunction",
    "FittedProbe",
    "Folds",
    "ProbeKind",
    "fit_each_label",
    "fit_estimator",
    "fit_probe",
    "refit",
]

PROBES: dict[str, ProbeKind] = {
    "logistic": ProbeKind(("classification",), fit_logistic),
    "ridge": ProbeKind(("regression",), fit_ridge),
    "mlp": ProbeKind(("classification", "regression"), fit_mlp),
    "lda": ProbeKind(("classification",), fit_lda),
    "mass-mean": ProbeKind(("classification",), fit_mass_mean),
    "mass-mean-iid": ProbeKind(("classification",), fit_mass_mean_iid),
    "knn": ProbeKind(("classification", "regression"), fit_knn),
    "sparse-logistic": ProbeKind(("classification",), fit_sparse_logistic),
}


def fit_probe(probe: str, X: NDArray[Any], y: NDArray[Any], *, folds: Folds, seed: int) -> FittedProbe:
    """Fit the probe named ``probe`` on all rows of ``X``, its hyper-parameter chosen by ``folds``.

    ``X``: (n_train, d) float32 or float64, read once (it may be a memory map). ``y``: (n_train,) class labels of any
    dtype, or floats (n_train,) or (n_train, n_targets) for regression. ``folds``: inner (training, validation) pairs of
    row indices; may be empty for probes without hyper-parameters. The same arguments give the same bytes.

    Raises:
        SpecError: no probe of this name; there are hyper-parameters and no fold to choose by; or ``X`` is float16, in
            which scikit-learn would sum and overflow.
    """
    return _kind(probe, X).fit(X, y, folds=folds, seed=seed)


def fit_each_label(probe: str, X: NDArray[Any], Y: NDArray[Any], *, folds: Folds, seed: int) -> FittedProbe:
    """The same for several labels per row, ``Y`` (n_train, n_labels) 0 or 1: a probe of its own for each label."""
    return fit_columns(_kind(probe, X).fit, X, Y, folds=folds, seed=seed)


def _kind(probe: str, X: NDArray[Any]) -> ProbeKind:
    if probe not in PROBES:
        raise SpecError("probe", f"one of {', '.join(PROBES)}", repr(probe))
    if np.asarray(X).dtype == np.float16:
        raise SpecError("X", "float32 or float64", "float16")
    return PROBES[probe]


def refit(probe: str, estimator: BaseEstimator, X: NDArray[Any], y: NDArray[Any], *, seed: int) -> FittedProbe:
    """The same kind of probe with all hyper-parameters of the fitted ``estimator``, on other rows or labels.

    ``y``: (n,), or (n, n_labels) 0 or 1 for an estimator of ``fit_each_label``, whose labels keep their own each.
    """
    if isinstance(estimator, MultiOutputClassifier):
        again = partial(_refit_label, probe, X, seed=seed)
        return refit_columns(again, estimator.estimators_, X, y)
    if probe == "logistic":  # which has a faster way
        return fit_logistic(X, y, folds=(), seed=seed, grid=(float(estimator[-1].C),))
    return fit_once(clone(estimator), X, y)


def _refit_label(probe: str, X: NDArray[Any], estimator: BaseEstimator, y: NDArray[Any], *, seed: int) -> FittedProbe:
    return refit(probe, estimator, X, y, seed=seed)


def fit_estimator(estimator: BaseEstimator, X: NDArray[Any], y: NDArray[Any]) -> FittedProbe:
    """Fit a clone of the user's own scikit-learn ``estimator`` on ``X`` (n_train, d) and ``y``; it is used as it is."""
    return fit_once(clone(estimator), X, y)
