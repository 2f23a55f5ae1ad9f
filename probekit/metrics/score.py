"""The metrics that choose layers and get intervals: functions of sums over rows, so that resampling is a product."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from probekit.metrics.entities import entity_counts, entity_f1


@dataclass(frozen=True)
class Score:
    """A metric that depends on the rows only through sums over them; higher is better.

    ``terms(truth, predicted)``: (n, n_terms) what each row adds to the sums. ``value(sums)``: the metric of sums
    (..., n_terms), shape (...); NaN where undefined.
    """

    terms: Callable[[NDArray[Any], NDArray[Any]], NDArray[np.float64]]
    value: Callable[[NDArray[np.float64]], NDArray[np.float64]]

    def __call__(self, truth: NDArray[Any], predicted: NDArray[Any]) -> float:
        """The metric of ``truth`` and ``predicted``: (n,); (n, n_labels) 0 and 1 for "micro_f1"; lists of tags."""
        return float(self.value(self.terms(truth, predicted).sum(axis=0)))


def _accuracy_terms(truth: NDArray[Any], predicted: NDArray[Any]) -> NDArray[np.float64]:
    return np.column_stack([truth == predicted, np.ones(len(truth))]).astype(np.float64)


def _accuracy_value(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    return _ratio(sums[..., 0], sums[..., 1])


def _r2_terms(truth: NDArray[Any], predicted: NDArray[Any]) -> NDArray[np.float64]:
    # About the mean: the sum of squares would otherwise cancel for a target like 1e6 ± 1.
    centred = truth - truth.mean()
    return np.column_stack([(predicted - truth) ** 2, centred**2, centred, np.ones(len(truth))])


def _r2_value(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    total = sums[..., 1] - _ratio(sums[..., 2] ** 2, sums[..., 3])
    # A draw of one row many times has a total of zero up to rounding: undefined, not minus infinity.
    total = np.where(total > 1e-12 * sums[..., 1], total, 0.0)
    return 1.0 - _ratio(sums[..., 0], total)


def _micro_f1_terms(truth: NDArray[Any], predicted: NDArray[Any]) -> NDArray[np.float64]:
    right = (truth & predicted).sum(axis=1)
    return np.column_stack([right, truth.sum(axis=1) + predicted.sum(axis=1)]).astype(np.float64)


def _micro_f1_value(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    return 2 * _ratio(sums[..., 0], sums[..., 1])


def _ratio(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    out = np.full(np.shape(a), np.nan)
    return np.asarray(np.divide(a, b, out=out, where=np.asarray(b) != 0))


SCORES: dict[str, Score] = {
    "accuracy": Score(_accuracy_terms, _accuracy_value),
    "r2": Score(_r2_terms, _r2_value),
    "micro_f1": Score(_micro_f1_terms, _micro_f1_value),
    "entity_f1": Score(partial(entity_counts, strict=True), entity_f1),
}
