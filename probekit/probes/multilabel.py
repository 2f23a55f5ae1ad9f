"""Several labels per row: a probe of its own for each label."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.dummy import DummyClassifier
from sklearn.multioutput import MultiOutputClassifier

from probekit.probes.result import FittedProbe, Folds


def fit_columns(fit: Callable[..., FittedProbe], X: Any, Y: NDArray[Any], *, folds: Folds, seed: int) -> FittedProbe:
    """Fit ``fit`` to every column of ``Y`` (n, n_labels), 0 or 1; each chooses its own regularisation.

    The estimator is scikit-learn's ``MultiOutputClassifier`` of these probes. A label that all training rows have, or
    none, is always answered so. ``regularisation``: the geometric mean over labels.
    """
    return _together([None if len(np.unique(y)) < 2 else fit(X, y, folds=folds, seed=seed) for y in Y.T], X, Y)


def refit_columns(
    refit: Callable[[BaseEstimator, NDArray[Any]], FittedProbe],
    estimators: Sequence[BaseEstimator],
    X: NDArray[Any],
    Y: NDArray[Any],
) -> FittedProbe:
    """The probes ``estimators`` of all labels once more, each by ``refit(estimator, y)``, on ``X`` and ``Y``.

    A label that was constant where they were fitted has no probe, and so none now: it is answered as before.
    """
    again = [
        None if isinstance(estimator, DummyClassifier) or len(np.unique(y)) < 2 else refit(estimator, y)
        for estimator, y in zip(estimators, Y.T, strict=True)
    ]
    constant = [
        np.full(len(Y), estimator.constant) if isinstance(estimator, DummyClassifier) else y
        for estimator, y in zip(estimators, Y.T, strict=True)
    ]
    return _together(again, X, np.column_stack(constant))


def _together(probes: Sequence[FittedProbe | None], X: NDArray[Any], Y: NDArray[Any]) -> FittedProbe:
    """One probe of all labels; a label without one is answered as the first row of ``Y`` has it."""
    fitted = [probe for probe in probes if probe is not None]
    constant = [DummyClassifier(strategy="constant", constant=int(y[0])).fit(X[:1], y[:1]) for y in Y.T]
    each = [dummy if probe is None else probe.estimator for probe, dummy in zip(probes, constant, strict=True)]
    # (By this one scikit-learn tells what it is of; a user's own may lack that.)
    whole = MultiOutputClassifier(next((one for one in each if isinstance(one, BaseEstimator)), constant[0]))
    whole.estimators_ = each
    whole.classes_ = [estimator.classes_ for estimator in each]
    if not fitted:
        nan = float("nan")
        return FittedProbe(whole, nan, grid_edge=False, converged=True, cv_score=nan, grid=(), cv_scores=())
    return FittedProbe(
        estimator=whole,
        regularisation=float(np.exp(np.mean(np.log([probe.regularisation for probe in fitted])))),
        grid_edge=any(probe.grid_edge for probe in fitted),
        converged=all(probe.converged for probe in fitted),
        cv_score=float(np.mean([probe.cv_score for probe in fitted])),
        grid=fitted[0].grid,
        cv_scores=tuple(np.mean([probe.cv_scores for probe in fitted], axis=0).tolist()),
    )
