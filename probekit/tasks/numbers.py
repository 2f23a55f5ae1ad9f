"""A number for each text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from probekit.metrics.regression import regression_metrics
from probekit.spec import Json
from probekit.tasks.task import Codes, Task, Units, no_probability, predict_rows, row_terms

if TYPE_CHECKING:
    from probekit.tasks.target import Target


def mean_value(target: Target, train: Units, test: Units) -> NDArray[np.float64]:
    """The mean of the rows ``train``, for each of ``test``."""
    return np.full(len(test), target.y[train].mean())


def _metrics(target: Target, _train: Units, test: Units, answers: Codes, _probability: object) -> dict[str, float]:
    return regression_metrics(target.y[test], answers)


def _no_classes(_target: Target, _tests: Sequence[Units], _answers: Sequence[Codes]) -> list[Json]:
    return []


NUMBERS = Task(
    name="regression",
    metric="r2",
    columns=("r2", "rmse", "mae", "pearson", "spearman"),
    ability="regression",
    predict=predict_rows,
    probability=no_probability,
    terms=row_terms,
    metrics=_metrics,
    dummy=mean_value,
    class_rows=_no_classes,
    dummy_name="mean",
    probe="ridge",
    other_reading="numbers; for classes: --task {target}=classification",
)
