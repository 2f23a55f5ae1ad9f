"""Probes: cheap heads that read a label or a number off the hidden states of one layer, on the CPU."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray
from sklearn.base import BaseEstimator, clone

from probekit.errors import SpecError
from probekit.probes.grid_search import quiet_fit
from probekit.probes.logistic import fit_logistic
from probekit.probes.result import FitFunction, FittedProbe, Folds, ProbeKind
from probekit.probes.ridge import fit_ridge

__all__ = ["PROBES", "FitFunction", "FittedProbe", "Folds", "ProbeKind", "fit_estimator", "fit_probe"]

PROBES: dict[str, ProbeKind] = {
    "logistic": ProbeKind(("classification",), fit_logistic, has_hyperparameters=True),
    "ridge": ProbeKind(("regression",), fit_ridge, has_hyperparameters=True),
}


def fit_probe(probe: str, X: NDArray[Any], y: NDArray[Any], *, folds: Folds, seed: int) -> FittedProbe:
    """Fit the probe named ``probe`` on all rows of ``X``, its hyper-parameter chosen by ``folds``.

    ``X``: (n_train, d) floats, read once (it may be a memory map). ``y``: (n_train,) class labels of any dtype, or
    floats (n_train,) or (n_train, n_targets) for regression. ``folds``: inner (training, validation) pairs of row
    indices; may be empty for probes without hyper-parameters. The same arguments give the same bytes.

    Raises:
        SpecError: no probe of this name; or there are hyper-parameters and no fold to choose by.
    """
    if probe not in PROBES:
        raise SpecError("probe", f"one of {', '.join(PROBES)}", repr(probe))
    return PROBES[probe].fit(X, y, folds=folds, seed=seed)


def fit_estimator(estimator: BaseEstimator, X: NDArray[Any], y: NDArray[Any]) -> FittedProbe:
    """Fit a clone of the user's own scikit-learn ``estimator`` on ``X`` (n_train, d) and ``y``; it is used as it is."""
    nan = float("nan")
    fitted = clone(estimator)
    converged = quiet_fit(fitted, X, y)
    return FittedProbe(fitted, nan, grid_edge=False, converged=converged, cv_score=nan, grid=(), cv_scores=())
