"""The unit of work: every probe of one layer, fitted on a worker that reads the layer once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from threadpoolctl import threadpool_limits

from probekit.errors import InputError
from probekit.evaluate.geometry import mean_pair_cosine
from probekit.evaluate.mdl import probe_code_bits
from probekit.metrics import SCORES, classification_metrics, multilabel_metrics, regression_metrics
from probekit.probes import FittedProbe, Folds, fit_each_label, fit_probe
from probekit.splits import Split
from probekit.tasks import Target

METRIC = {
    "classification": "accuracy",
    "regression": "r2",
    "multilabel": "micro_f1",
    "tags": "accuracy",
    "entities": "entity_f1",
}
"""The score that chooses the layer and gets the interval."""

N_PAIRS = 500
"""Of rows, to see whether all texts look alike."""


@dataclass(frozen=True)
class Fit:
    """What is to be fitted: one target, split and probe.

    ``labels``: (n, ...) what the probe learns, ``target.y`` or, for the control task, its shuffled form.
    ``folds``: inner folds, as positions in ``split.train``. ``controls``: what else to measure on the layer.
    """

    target: Target
    split: Split
    probe: str
    folds: Folds
    labels: NDArray[Any]
    is_control: bool = False
    controls: tuple[str, ...] = ()


@dataclass(frozen=True)
class LayerTask:
    """A layer and all that is to be fitted on it; small and picklable.

    ``read()`` gives (n, d_model). ``read_layer0``, ``read_random``: the same of layer 0 and of a model with random
    weights, or None.
    """

    layer: int
    read: Callable[[], NDArray[Any]]
    fits: tuple[Fit, ...]
    read_layer0: Callable[[], NDArray[Any]] | None = None
    read_random: Callable[[], NDArray[Any]] | None = None


@dataclass(frozen=True)
class Outcome:
    """One fitted probe's results; the order of an outcome is that of ``LayerTask.fits``.

    ``predicted``: (n_test, ...) in the form of ``target.truth``, in the order of ``split.test``. ``metrics``: of the
    test rows. ``with_layer0``: test score of the probe on this layer and layer 0 side by side. ``mdl_bits``: the online
    code of the training labels. ``random_model``: test score of the probe on a random model's layer. NaN where not
    asked for.
    """

    estimator: BaseEstimator
    train_score: float
    val_score: float
    predicted: NDArray[Any]
    metrics: dict[str, float]
    regularisation: float
    grid_edge: bool
    converged: bool
    with_layer0: float = float("nan")
    mdl_bits: float = float("nan")
    random_model: float = float("nan")


@dataclass(frozen=True)
class LayerOutcomes:
    """All outcomes of a layer, the largest absolute value in its states, and the mean cosine of random pairs."""

    layer: int
    max_abs: float
    pair_cosine: float
    outcomes: tuple[Outcome, ...]


def fit_layer(task: LayerTask) -> LayerOutcomes:
    """Fit everything that ``task`` asks for, on one BLAS thread.

    One thread because workers are as many as cores, and so that the numbers don't depend on how many there are.

    Raises InputError if the layer holds NaN or infinite values.
    """
    with threadpool_limits(1):
        X = as_floats(task.read())
        largest = _largest(X, f"layer {task.layer}")
        outcomes = [_fit(X, fit) for fit in task.fits]
        if task.read_layer0 is not None:
            both = np.hstack([as_floats(task.read_layer0()), X])
            outcomes = [
                replace(outcome, with_layer0=probe_score(both, fit)) if "conditional" in fit.controls else outcome
                for outcome, fit in zip(outcomes, task.fits, strict=True)
            ]
        if task.read_random is not None:
            random = as_floats(task.read_random())
            _largest(random, f"layer {task.layer} of the random model")
            outcomes = [
                outcome if fit.is_control else replace(outcome, random_model=probe_score(random, fit))
                for outcome, fit in zip(outcomes, task.fits, strict=True)
            ]
        cosine = mean_pair_cosine(X, n_pairs=N_PAIRS, seed=0)
        return LayerOutcomes(task.layer, largest, cosine, tuple(outcomes))


def _largest(X: NDArray[Any], name: str) -> float:
    """The largest absolute value."""
    largest = max(abs(float(X.max())), abs(float(X.min())))
    if not np.isfinite(largest):
        raise InputError(name, "probes need finite hidden states", "NaN or infinite values")
    return largest


def as_floats(states: NDArray[Any]) -> NDArray[Any]:
    """float16 as float32: scikit-learn would keep the dtype, and sum and overflow in it."""
    return states.astype(np.float32) if states.dtype == np.float16 else states


def _fit(X: NDArray[Any], fit: Fit) -> Outcome:
    fitted = fit_on(X, fit)
    outcome = _score(fitted, X, fit)
    if "mdl" in fit.controls and has_code(fit.target, fit.probe):
        train = fit.split.train
        bits = probe_code_bits(fitted, X[train], fit.target.codes[train], len(fit.target.classes))
        return replace(outcome, mdl_bits=bits)
    return outcome


def has_code(target: Target, probe: str) -> bool:
    """Whether the control "mdl" applies: it is of the logistic probe and of labels of which each row has one."""
    return probe == "logistic" and target.is_classes


def fit_on(X: NDArray[Any], fit: Fit) -> FittedProbe:
    """The probe that ``fit`` asks for, fitted on its training rows of ``X`` (n, any)."""
    train = fit.split.train
    fit_all = fit_each_label if fit.target.task.kind == "multilabel" else fit_probe
    return fit_all(fit.probe, X[train], fit.labels[train], folds=fit.folds, seed=fit.split.seed)


def part_score(estimator: BaseEstimator, X: NDArray[Any], fit: Fit, rows: NDArray[np.int64]) -> float:
    """The score of a fitted ``estimator`` on some ``rows`` of ``X``."""
    truth = coded(fit.labels[rows], fit.target)
    return SCORES[METRIC[fit.target.task.kind]](truth, predict(estimator, X[rows], fit.target))


def probe_score(X: NDArray[Any], fit: Fit) -> float:
    """The test score of the probe that ``fit`` asks for on other features, (n, any)."""
    return part_score(fit_on(X, fit).estimator, X, fit, fit.split.test)


def _score(fitted: FittedProbe, X: NDArray[Any], fit: Fit) -> Outcome:
    """Predict all parts and score them. Nothing is chosen by what comes out for the test rows."""
    split, target, estimator = fit.split, fit.target, fitted.estimator
    truth = coded(fit.labels, target)
    predicted = {part: predict(estimator, X[getattr(split, part)], target) for part in ("train", "val", "test")}
    score = SCORES[METRIC[target.task.kind]]
    scores = {part: score(truth[getattr(split, part)], values) for part, values in predicted.items()}
    if target.is_classes:
        probability = class_probability(estimator, X[split.test], target)
        metrics = classification_metrics(truth[split.test], predicted["test"], probability)
    elif target.task.kind == "multilabel":
        metrics = multilabel_metrics(truth[split.test], predicted["test"], label_probability(estimator, X[split.test]))
    else:
        metrics = regression_metrics(truth[split.test], predicted["test"])
    return Outcome(
        estimator=estimator,
        train_score=scores["train"],
        val_score=scores["val"],
        predicted=predicted["test"],
        metrics=metrics,
        regularisation=fitted.regularisation,
        grid_edge=fitted.grid_edge,
        converged=fitted.converged,
    )


def coded(labels: NDArray[Any], target: Target) -> NDArray[Any]:
    """Class labels as positions in ``target.classes``; numbers, and 0 and 1, as they are."""
    return np.searchsorted(target.classes, labels).astype(np.int64) if target.is_classes else labels


def predict(estimator: BaseEstimator, X: Any, target: Target) -> NDArray[Any]:
    """Predictions in the form of ``target.truth``."""
    return coded(np.asarray(estimator.predict(X)), target)


def class_probability(estimator: BaseEstimator, X: Any, target: Target) -> NDArray[np.floating] | None:
    """(n, n_classes), a class that training never saw having zeros; None for a probe without probabilities."""
    if not hasattr(estimator, "predict_proba"):
        return None
    known = estimator.predict_proba(X)
    probability = np.zeros((len(known), len(target.classes)), dtype=known.dtype)
    probability[:, coded(estimator.classes_, target)] = known
    return probability


def label_probability(estimator: BaseEstimator, X: Any) -> NDArray[np.floating] | None:
    """(n, n_labels) probability that a row has each label; None for a probe without probabilities."""
    if not hasattr(estimator, "predict_proba"):
        return None
    known = zip(estimator.predict_proba(X), estimator.classes_, strict=True)
    return np.column_stack([p @ (classes == 1) for p, classes in known])
