"""Metrics of several labels per row."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import f1_score

from probekit.metrics.classification import one_area


def multilabel_metrics(
    truth: NDArray[np.int64], predicted: NDArray[np.int64], probability: NDArray[np.floating] | None
) -> dict[str, float]:
    """The columns of the table that apply, with scikit-learn's definitions.

    ``truth``, ``predicted``: (n, n_labels) 0 or 1. ``probability``: (n, n_labels) of a 1, or None.

    - ``accuracy``: share of rows with exactly the right labels.
    - ``micro_f1``: F1 over all rows and labels together.
    - ``macro_f1``: mean F1 of the labels, 0 for one never predicted right.
    - ``auroc``: mean over the labels that some rows have and some have not; NaN if there is none.
    """
    areas = [] if probability is None else [one_area(t == 1, p) for t, p in zip(truth.T, probability.T, strict=True)]
    defined = [area for area in areas if not np.isnan(area)]
    return {
        "accuracy": float(np.mean((truth == predicted).all(axis=1))),
        "micro_f1": float(f1_score(truth, predicted, average="micro", zero_division=0.0)),
        "macro_f1": float(f1_score(truth, predicted, average="macro", zero_division=0.0)),
        "auroc": float(np.mean(defined)) if defined else np.nan,
    }
