"""Several labels for each text, or none of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator

from probekit.metrics.classification import multilabel_metrics
from probekit.tasks.classes import all_class_rows
from probekit.tasks.task import Codes, States, Task, Units, predict_rows, row_terms

if TYPE_CHECKING:
    from probekit.tasks.target import Target


def _probability(
    _target: Target, states: States, estimator: BaseEstimator, units: Units
) -> NDArray[np.floating] | None:
    return label_probability(estimator, states.rows(units))


def label_probability(estimator: BaseEstimator, X: Any) -> NDArray[np.floating] | None:
    """(n, n_labels) probability that a row has each label; None for a probe without probabilities."""
    if not hasattr(estimator, "predict_proba"):
        return None
    known = zip(estimator.predict_proba(X), estimator.classes_, strict=True)
    return np.column_stack([p @ (classes == 1) for p, classes in known])


def common_labels(target: Target, train: Units, test: Units) -> NDArray[np.int64]:
    """The labels that more than half of the rows ``train`` have, for each of ``test``: (n_test, n_labels)."""
    return np.tile((target.y[train].mean(axis=0) > 0.5).astype(np.int64), (len(test), 1))


def _metrics(
    target: Target, _train: Units, test: Units, answers: Codes, probability: NDArray[np.floating] | None
) -> dict[str, float]:
    return multilabel_metrics(target.y[test], answers, probability)


LABELS = Task(
    name="multilabel",
    metric="micro_f1",
    columns=("accuracy", "micro_f1", "macro_f1", "auroc"),
    ability="classification",
    predict=predict_rows,
    probability=_probability,
    terms=row_terms,
    metrics=_metrics,
    dummy=common_labels,
    class_rows=all_class_rows,
    dummy_name="labels of most rows",
    several=True,
    few="rows with each label",
)
