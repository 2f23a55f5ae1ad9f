"""A probe to be fitted: one of this house's own, or a scikit-learn estimator of the user's."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, clone
from sklearn.multioutput import MultiOutputClassifier

from probekit.errors import InputError, SpecError
from probekit.probes.grid_search import fit_once, is_regression_target
from probekit.probes.multilabel import fit_columns, refit_columns
from probekit.probes.result import FittedProbe, Folds


class FitFunction(Protocol):
    """How a probe is fitted and its hyper-parameter chosen."""

    def __call__(self, X: Any, y: NDArray[Any], *, folds: Folds, seed: int) -> FittedProbe:
        """Fit on ``X`` (n_train, d) and ``y`` (n_train,) or (n_train, n_targets)."""


class RefitFunction(Protocol):
    """How it is fitted once more, with the hyper-parameters of a fitted ``estimator``."""

    def __call__(self, estimator: BaseEstimator, X: Any, y: NDArray[Any], *, seed: int) -> FittedProbe:
        """Fit on ``X`` (n, d) and ``y`` (n,)."""


def refit_clone(estimator: BaseEstimator, X: Any, y: NDArray[Any], *, seed: int) -> FittedProbe:  # noqa: ARG001
    """An unfitted copy with the same parameters, the seed among them, fitted on other rows."""
    return fit_once(clone(estimator), X, y)


@dataclass(frozen=True)
class Probe:
    """A probe. ``name``: in tables and file names. ``tasks``: which of "classification" and "regression" it can do.

    ``has_probability``: whether it gives probabilities of classes. ``own``: whether it is a user's. ``of_tokens``:
    whether a row is the states of a text's tokens (a ``RaggedArray``) and not one vector. Picklable, if it is sent to
    other processes.
    """

    name: str
    tasks: tuple[str, ...]
    fit_function: FitFunction
    refit_function: RefitFunction = refit_clone
    has_probability: bool = True
    own: bool = False
    of_tokens: bool = False

    def fit(self, X: Any, y: NDArray[Any], *, folds: Folds, seed: int) -> FittedProbe:
        """Fit on all rows of ``X``, the hyper-parameter chosen by ``folds``.

        ``X``: (n_train, d) float32 or float64, read once (it may be a memory map), or so many rows of tokens. ``y``:
        (n_train,) class labels of any dtype, or floats (n_train,) or (n_train, n_targets) for regression. ``folds``:
        inner (training, validation) pairs of row indices; may be empty for probes without hyper-parameters. The same
        arguments give the same bytes.

        Raises SpecError where there are hyper-parameters and no fold to choose by, and for float16, in which
        scikit-learn would sum and overflow; InputError for labels of one class only.
        """
        _check_dtype(X)
        if not is_regression_target(y) and len(np.unique(y)) < 2:
            raise InputError("labels of the training rows", "at least two classes", "1")
        return self.fit_function(X, y, folds=folds, seed=seed)

    def fit_labels(self, X: Any, Y: NDArray[Any], *, folds: Folds, seed: int) -> FittedProbe:
        """The same for several labels per row, ``Y`` (n_train, n_labels) 0 or 1: a probe of its own for each label."""
        _check_dtype(X)
        return fit_columns(self.fit_function, X, Y, folds=folds, seed=seed)

    def refit(self, estimator: BaseEstimator, X: Any, y: NDArray[Any], *, seed: int) -> FittedProbe:
        """With all hyper-parameters of the fitted ``estimator``, on other rows or labels.

        ``y``: (n,), or (n, n_labels) 0 or 1 for an estimator of ``fit_labels``, whose labels keep their own each.
        """
        _check_dtype(X)
        if isinstance(estimator, MultiOutputClassifier):
            return refit_columns(partial(self._refit_label, X, seed=seed), estimator.estimators_, X, y)
        return self.refit_function(estimator, X, y, seed=seed)

    def _refit_label(self, X: Any, estimator: BaseEstimator, y: NDArray[Any], *, seed: int) -> FittedProbe:
        return self.refit_function(estimator, X, y, seed=seed)


def _check_dtype(X: Any) -> None:
    if X.dtype == np.float16:
        raise SpecError("X", "float32 or float64", "float16")
