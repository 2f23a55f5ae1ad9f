"""A scikit-learn estimator of the user's own as a probe."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, clone, is_classifier, is_regressor
from sklearn.pipeline import Pipeline

from probekit.errors import SpecError
from probekit.probes.grid_search import fit_once, is_regression_target
from probekit.probes.probe import Probe
from probekit.probes.result import FittedProbe, Folds

_NO_NAME = re.compile(r"[^a-z0-9.-]+")
_LONGEST_NAME = 60


def own_probe(estimator: Any) -> Probe:
    """Anything with scikit-learn's ``fit`` and ``predict``, used as it is; what it says of itself says what it can do.

    It is copied for every fit and never fitted itself. Every ``random_state`` in it that is None (also of a ``cv``
    that shuffles, and of estimators to choose among) becomes the seed of the split, so that the same command gives the
    same numbers. A search of its own (``GridSearchCV``) divides the training rows by its own ``cv``, and its best
    estimator is the probe: fitted once more, it keeps what was chosen.

    Raises SpecError for a class instead of an object, for what has no ``fit`` and ``predict``, and for what can't be
    copied.
    """
    if isinstance(estimator, type) or not (hasattr(estimator, "fit") and _predicts(estimator)):
        got = " ".join(repr(estimator).split())
        raise SpecError("probe", "a name, or an estimator with fit and predict", got[:80])
    name = own_name(estimator)
    try:
        clone(estimator, safe=False)
    except Exception as error:
        raise SpecError(f"probe {name}", "must be one that scikit-learn can clone", _said(error)) from error
    return Probe(
        name=name,
        own=True,
        tasks=_tasks(estimator),
        fit_function=partial(_fit, estimator, name),
        refit_function=partial(_refit, name),
        has_probability=_has_probability(estimator),
    )


def own_name(estimator: Any) -> str:
    """A short name, of a pipeline that of its steps.

    >>> from sklearn.decomposition import PCA
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.svm import LinearSVC
    >>> own_name(make_pipeline(PCA(50), LinearSVC()))
    'pca-linearsvc'
    """
    steps = [name for name, _ in estimator.steps] if isinstance(estimator, Pipeline) else [type(estimator).__name__]
    return _NO_NAME.sub("_", "-".join(steps).lower())[:_LONGEST_NAME]


def _predicts(estimator: Any) -> bool:
    """Whether it has ``predict``, now or (as a stack with its default final estimator) once it is fitted.

    A search that fits its choice to nothing (``refit=False``) never has.
    """
    later = getattr(estimator, "refit", True) is not False and isinstance(estimator, BaseEstimator)
    return hasattr(estimator, "predict") or (later and (is_classifier(estimator) or is_regressor(estimator)))


def _tasks(estimator: Any) -> tuple[str, ...]:
    """What it says that it is; both, for one that does not say."""
    if not isinstance(estimator, BaseEstimator):
        return ("classification", "regression")
    if is_classifier(estimator):
        return ("classification",)
    if is_regressor(estimator):
        return ("regression",)
    raise SpecError(f"probe {own_name(estimator)}", "must be a classifier or a regressor", "neither")


def _has_probability(estimator: Any) -> bool:
    """Whether it says so before it is fitted. (Some, as SVC, have the method only where they were asked for it.)"""
    try:
        return hasattr(estimator, "predict_proba")
    except AttributeError:
        return False


def _refit(name: str, estimator: Any, X: Any, y: NDArray[Any], *, seed: int) -> FittedProbe:
    return _fit(estimator, name, X, y, folds=(), seed=seed)


def _fit(estimator: Any, name: str, X: Any, y: NDArray[Any], *, folds: Folds, seed: int) -> FittedProbe:  # noqa: ARG001
    fresh = _seeded(clone(estimator, safe=False), seed)
    try:
        fitted = fit_once(fresh, X, y)
    except Exception as error:
        what = f"{len(y):,} rows of {X.shape[1]:,} features" + (
            "" if is_regression_target(y) else f" in {len(np.unique(y)):,} classes"
        )
        raise SpecError(f"probe {name}", f"must be able to fit {what}", _said(error)) from error
    kept = getattr(fresh, "best_estimator_", fresh)
    if not is_regression_target(y) and not hasattr(kept, "classes_"):
        kept.classes_ = np.unique(y)
    return replace(fitted, estimator=kept)


def _seeded(estimator: Any, seed: int) -> Any:
    """``estimator`` itself, and all that is in it, with ``seed`` where it has none."""
    for part in _parts(estimator):
        if getattr(part, "random_state", seed) is None:
            part.random_state = seed
    return estimator


def _parts(value: Any) -> Iterator[Any]:
    """``value`` and all parameters in it, also those that a search may set: estimators in lists and dictionaries."""
    yield value
    if isinstance(value, Mapping):
        inside = list(value.values())
    elif isinstance(value, list | tuple):
        inside = list(value)
    elif hasattr(value, "get_params") and not isinstance(value, type):
        inside = list(value.get_params(deep=False).values())
    else:
        return
    for part in inside:
        yield from _parts(part)


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".split("\n")[0][:200]
