"""The labels of a target as tensors, and a head's logits as answers in the form of scikit-learn's estimators."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import expit, softmax
from sklearn.base import BaseEstimator
from torch import Tensor

from probekit.heads.losses import CLASSES, LABELS, NUMBERS, Link, n_answers
from probekit.splits import Split
from probekit.tasks import Target, Task


@dataclass(frozen=True)
class Truth:
    """A target for a head. ``y``: (n_rows, ...) what the loss compares with; ``known``: (n_rows,) which rows have it.

    ``mean``, ``scale``: of the training rows' numbers, which are standardised inside; 0 and 1 for classes.
    """

    target: Target
    link: Link
    y: Tensor
    known: NDArray[np.bool_]
    mean: float = 0.0
    scale: float = 1.0

    @property
    def n_answers(self) -> int:
        """Logits of a row."""
        return n_answers(self.link, len(self.target.classes))


def link_of(task: Task) -> Link:
    """How logits answer a task."""
    return LABELS if task.several else NUMBERS if task.ability == "regression" else CLASSES


def read_truth(target: Target, split: Split) -> Truth:
    """The labels of all rows; the scale of numbers is that of the training rows alone."""
    link = link_of(target.task)
    known = np.zeros(len(target.y), dtype=np.bool_)
    known[target.readable(target.units)] = True
    if link is not NUMBERS:
        y = target.y if link is LABELS else target.codes
        return Truth(target, link, torch.from_numpy(np.ascontiguousarray(y)), known)
    numbers = target.y[target.readable(split.train)]
    mean, scale = float(numbers.mean()), float(numbers.std()) or 1.0
    y = np.where(known, (target.y - mean) / scale, 0.0)
    return Truth(target, link, torch.from_numpy(y), known, mean, scale)


class ClassAnswers(BaseEstimator):  # type: ignore[misc]
    """Logits (n, n_classes), or (n, 1) of two classes, as a fitted classifier answers."""

    def __init__(self, classes_: NDArray[Any]) -> None:
        self.classes_ = classes_

    def predict(self, logits: NDArray[Any]) -> NDArray[Any]:
        """(n,) classes."""
        return np.asarray(self.classes_[np.argmax(_both(logits), axis=1)])

    def predict_proba(self, logits: NDArray[Any]) -> NDArray[np.float64]:
        """(n, n_classes)."""
        return np.asarray(softmax(_both(logits).astype(np.float64), axis=1))


class LabelAnswers(BaseEstimator):  # type: ignore[misc]
    """Logits (n, n_labels) as a ``MultiOutputClassifier`` answers."""

    def __init__(self, n_labels: int) -> None:
        self.n_labels = n_labels
        self.classes_ = [np.array([0, 1])] * n_labels
        self.estimators_ = [None] * n_labels

    def predict(self, logits: NDArray[Any]) -> NDArray[np.int64]:
        """(n, n_labels) 0 or 1."""
        return (logits > 0).astype(np.int64)

    def predict_proba(self, logits: NDArray[Any]) -> list[NDArray[np.float64]]:
        """For each label (n, 2)."""
        p = expit(logits.astype(np.float64))
        return [np.column_stack([1 - column, column]) for column in p.T]


class NumberAnswers(BaseEstimator):  # type: ignore[misc]
    """Standardised numbers (n, 1) in their own units."""

    def __init__(self, mean: float, scale: float) -> None:
        self.mean, self.scale = mean, scale

    def predict(self, logits: NDArray[Any]) -> NDArray[np.float64]:
        """(n,)."""
        return np.asarray(logits[:, 0].astype(np.float64) * self.scale + self.mean)


Answers = ClassAnswers | LabelAnswers | NumberAnswers


def answers(link: Link, classes: NDArray[Any], mean: float, scale: float) -> Answers:
    """What turns logits of a head into labels."""
    if link is NUMBERS:
        return NumberAnswers(mean, scale)
    return LabelAnswers(len(classes)) if link is LABELS else ClassAnswers(classes)


class Logits:
    """The logits of some rows, (n_rows, n_answers), as the states of ``Task.predict``."""

    def __init__(self, values: NDArray[np.float32]) -> None:
        self.values = values

    def rows(self, which: NDArray[np.int64]) -> NDArray[np.float32]:
        """(len(which), n_answers)."""
        return np.asarray(self.values[which])


def _both(logits: NDArray[Any]) -> NDArray[Any]:
    return np.hstack([np.zeros_like(logits), logits]) if logits.shape[1] == 1 else logits
