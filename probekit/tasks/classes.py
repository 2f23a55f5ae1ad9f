"""One class for each text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator

from probekit.metrics.classification import classification_metrics, rows_by_class
from probekit.spec import Json
from probekit.tasks.task import Codes, States, Task, Units, predict_rows, row_terms

if TYPE_CHECKING:
    from probekit.tasks.target import Target


def class_probability(
    target: Target, states: States, estimator: BaseEstimator, units: Units
) -> NDArray[np.floating] | None:
    """(n, n_classes), a class that training never saw having zeros; None for a probe without probabilities."""
    if not hasattr(estimator, "predict_proba"):
        return None
    known = estimator.predict_proba(states.rows(units))
    probability = np.zeros((len(known), len(target.classes)), dtype=known.dtype)
    probability[:, target.coded(estimator.classes_)] = known
    return probability


def majority_class(target: Target, train: Units, test: Units) -> NDArray[np.int64]:
    """The commonest code of the rows ``train``, for each of ``test``; of equally common ones the lowest."""
    return np.full(len(test), np.argmax(np.bincount(target.codes[train])), dtype=np.int64)


def _metrics(
    target: Target, _train: Units, test: Units, answers: Codes, probability: NDArray[np.floating] | None
) -> dict[str, float]:
    return classification_metrics(target.codes[test], answers, probability)


def all_class_rows(target: Target, tests: Sequence[Units], answers: Sequence[Codes]) -> list[Json]:
    """The test rows of all seeds together, by class."""
    truth = np.concatenate([target.truth[target.rows_of(test)] for test in tests])
    return rows_by_class(truth, np.concatenate(answers), target.classes)


CLASSES = Task(
    name="classification",
    metric="accuracy",
    columns=("accuracy", "balanced_accuracy", "macro_f1", "mcc", "log_loss", "auroc"),
    ability="classification",
    predict=predict_rows,
    probability=class_probability,
    terms=row_terms,
    metrics=_metrics,
    dummy=majority_class,
    class_rows=all_class_rows,
    dummy_name="majority class",
    stratified=True,
    few="rows of each class",
    other_reading="{n} classes; for numbers: --task {target}=regression",
)
