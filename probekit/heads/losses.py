"""What a head's answers mean, and how wrong they are: one of three links between logits and labels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy


@dataclass(frozen=True)
class Link:
    """``wrongness(logits, truth)``: (n,) loss of each row. ``half``: of the squares in a penalty that is scikit-learn's
    (1 for ridge, 1/2 for logistic regression).
    """

    name: str
    wrongness: Callable[[Tensor, Tensor], Tensor]
    half: float


def _of_classes(logits: Tensor, truth: Tensor) -> Tensor:
    """One class for each row; of two classes a single logit is enough. ``truth``: (n,) int64."""
    if logits.shape[1] == 1:
        return binary_cross_entropy_with_logits(logits[:, 0], truth.to(logits.dtype), reduction="none")
    return cross_entropy(logits, truth, reduction="none")


def _of_labels(logits: Tensor, truth: Tensor) -> Tensor:
    """Any number of labels for each row, (n, n_labels) 0 or 1; the mean over labels."""
    return binary_cross_entropy_with_logits(logits, truth.to(logits.dtype), reduction="none").mean(1)


def _of_numbers(logits: Tensor, truth: Tensor) -> Tensor:
    """A number for each row, standardised. ``truth``: (n,)."""
    return (logits[:, 0] - truth.to(logits.dtype)) ** 2


CLASSES = Link("classes", _of_classes, 0.5)
LABELS = Link("labels", _of_labels, 0.5)
NUMBERS = Link("numbers", _of_numbers, 1.0)
LINKS = {link.name: link for link in (CLASSES, LABELS, NUMBERS)}


def n_answers(link: Link, n_classes: int) -> int:
    """Logits of a head: one for a number and for two classes."""
    if link is NUMBERS or (link is CLASSES and n_classes == 2):
        return 1
    return n_classes


def class_logits(logits: Tensor) -> Tensor:
    """(n, n_classes): of a single logit of two classes those of both, whose softmax is its sigmoid."""
    return torch.cat([torch.zeros_like(logits), logits], 1) if logits.shape[1] == 1 else logits
