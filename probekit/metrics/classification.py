"""Metrics of predicted classes and class probabilities."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata
from sklearn.metrics import f1_score, matthews_corrcoef, recall_score


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


def _log_loss(truth: NDArray[np.int64], probability: NDArray[np.floating]) -> float:
    seen = np.asarray(probability.any(axis=0))
    if not seen[truth].all():
        return np.nan
    p = probability[np.arange(len(truth)), truth].astype(np.float64)
    smallest = np.finfo(probability.dtype).eps  # a probability rounded to 0 costs what scikit-learn lets it cost
    return float(-np.mean(np.log(np.clip(p, smallest, 1.0))))


def _auroc(truth: NDArray[np.int64], probability: NDArray[np.floating]) -> float:
    n_classes = probability.shape[1]
    columns = [1] if n_classes == 2 else list(range(n_classes))
    areas = [one_area(truth == c, probability[:, c]) for c in columns]
    defined = [area for area in areas if not np.isnan(area)]
    return float(np.mean(defined)) if defined else np.nan


def one_area(positive: NDArray[np.bool_], score: NDArray[np.floating]) -> float:
    """Mann-Whitney: how often a positive row scores above a negative one, ties counting half."""
    n_positive = int(positive.sum())
    n_negative = len(positive) - n_positive
    if n_positive == 0 or n_negative == 0:
        return np.nan
    rank_sum = float(rankdata(score)[positive].sum())
    return (rank_sum - n_positive * (n_positive + 1) / 2) / (n_positive * n_negative)
