"""Which classes are told apart, and which are not."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import precision_recall_fscore_support

from probekit.spec import Json


def rows_by_class(truth: NDArray[np.int64], predicted: NDArray[np.int64], classes: NDArray[Any]) -> list[Json]:
    """One row per class, with scikit-learn's definitions; 0 for what has no rows to divide by.

    ``truth``, ``predicted``: (n,) class codes, or (n, n_classes) 0 and 1. ``classes``: (n_classes,) labels.

    """
    precision, recall, f1, support = precision_recall_fscore_support(
        truth, predicted, labels=np.arange(len(classes)), zero_division=0.0
    )
    return [
        {
            "class": label,
            "precision": float(precision[c]),
            "recall": float(recall[c]),
            "f1": float(f1[c]),
            "support": int(support[c]),
        }
        for c, label in enumerate(classes.tolist())
    ]
