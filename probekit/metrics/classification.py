"""Metrics of predicted classes and class probabilities: one class per row, several labels, and class by class."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata
from sklearn.metrics import f1_score, matthews_corrcoef, precision_recall_fscore_support, recall_score

from probekit.spec import Json


def classification_metrics(
    truth: NDArray[np.int64], predicted: NDArray[np.int64], probability: NDArray[np.floating] | None
) -> dict[str, float]:
    """All classification columns of the table; NaN where one is undefined.

    ``truth``, ``predicted``: (n,) class codes. ``probability``: (n, n_classes), or None for a probe that has none; a
    class that training never saw has a column of zeros.

    - ``accuracy``: share predicted right.
    - ``balanced_accuracy``: mean recall of the classes that occur in ``truth`` (scikit-learn's definition).
    - ``macro_f1``: mean F1 of the classes that occur in ``truth`` or ``predicted``, 0 for one never predicted right.
    - ``mcc``: Matthews' correlation in Gorodkin's form for many classes; 0 where a side is constant.
    - ``log_loss``: mean of -ln p(true class) in nats; undefined (infinite) if training never saw a class of ``truth``.
    - ``auroc``: area under the ROC curve, for more than two classes the mean of one-against-the-rest over the classes
      that have both positive and negative rows; undefined if there is none.
    """
    present = np.unique(truth)
    return {
        "accuracy": float(np.mean(truth == predicted)),
        "balanced_accuracy": float(recall_score(truth, predicted, labels=present, average="macro", zero_division=0.0)),
        "macro_f1": float(f1_score(truth, predicted, average="macro", zero_division=0.0)),
        # (scikit-learn warns where both sides are one and the same class.)
        "mcc": float(matthews_corrcoef(truth, predicted)) if len(np.union1d(present, predicted)) > 1 else 0.0,
        "log_loss": np.nan if probability is None else _log_loss(truth, probability),
        "auroc": np.nan if probability is None else _auroc(truth, probability),
    }


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
    return {
        "accuracy": float(np.mean((truth == predicted).all(axis=1))),
        "micro_f1": float(f1_score(truth, predicted, average="micro", zero_division=0.0)),
        "macro_f1": float(f1_score(truth, predicted, average="macro", zero_division=0.0)),
        "auroc": np.nan if probability is None else _mean_area(truth == 1, probability),
    }


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


def _log_loss(truth: NDArray[np.int64], probability: NDArray[np.floating]) -> float:
    seen = np.asarray(probability.any(axis=0))
    if not seen[truth].all():
        return np.nan
    p = probability[np.arange(len(truth)), truth].astype(np.float64)
    smallest = np.finfo(probability.dtype).eps  # a probability rounded to 0 costs what scikit-learn lets it cost
    return float(-np.mean(np.log(np.clip(p, smallest, 1.0))))


def _auroc(truth: NDArray[np.int64], probability: NDArray[np.floating]) -> float:
    n_classes = probability.shape[1]
    columns = np.array([1]) if n_classes == 2 else np.arange(n_classes)
    return _mean_area(truth[:, None] == columns, probability[:, columns])


def _mean_area(positive: NDArray[np.bool_], score: NDArray[np.floating]) -> float:
    """Over the columns of both, (n, k), that have positive and negative rows; NaN if none has."""
    areas = [_one_area(p, s) for p, s in zip(positive.T, score.T, strict=True)]
    defined = [area for area in areas if not np.isnan(area)]
    return float(np.mean(defined)) if defined else np.nan


def _one_area(positive: NDArray[np.bool_], score: NDArray[np.floating]) -> float:
    """Mann-Whitney: how often a positive row scores above a negative one, ties counting half."""
    n_positive = int(positive.sum())
    n_negative = len(positive) - n_positive
    if n_positive == 0 or n_negative == 0:
        return np.nan
    rank_sum = float(rankdata(score)[positive].sum())
    return (rank_sum - n_positive * (n_positive + 1) / 2) / (n_positive * n_negative)
