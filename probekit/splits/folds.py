"""Inner folds of the training rows, for choosing hyper-parameters."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import GroupKFold, KFold, StratifiedGroupKFold, StratifiedKFold

Fold = tuple[NDArray[np.int64], NDArray[np.int64]]

N_FOLDS = 5


def inner_folds(
    y: NDArray[Any], *, stratify: bool, groups: NDArray[Any] | None, seed: int, n_folds: int = N_FOLDS
) -> list[Fold]:
    """(fit, held out) positions within the n training rows; at most ``n_folds`` folds, at least 2.

    ``y``: (n,) labels. ``stratify``: keep classes in proportion. ``groups``: (n,); a group is never on both sides. The
    splitters are scikit-learn's: (Stratified)(Group)KFold, shuffled by ``seed``. Fewer folds where the largest class or
    the number of groups is smaller; a rare class is held out in as many folds as it has rows, and one with a single row
    never (unless its group is), so that without groups every class is in every fitted part.
    """
    n = len(y)
    if groups is not None:
        return _grouped(y, groups, stratify=stratify, seed=seed, n_folds=n_folds)
    if not stratify:
        folds = KFold(min(n_folds, n), shuffle=True, random_state=seed)
        return [(fit, held) for fit, held in folds.split(y)]
    _, code, counts = np.unique(y, return_inverse=True, return_counts=True)
    several = np.flatnonzero(counts[code] >= 2)
    if len(several) < 2:
        return inner_folds(y, stratify=False, groups=None, seed=seed, n_folds=n_folds)
    folds = StratifiedKFold(min(n_folds, int(counts.max())), shuffle=True, random_state=seed)
    with _rare_classes():
        held_out = [several[held] for _, held in folds.split(several, code[several])]
    return [(np.setdiff1d(np.arange(n), held), held) for held in held_out]


@contextmanager
def _rare_classes() -> Iterator[None]:
    """scikit-learn's warning that the rarest class is not in every fold: known, and said above."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The least populated class", category=UserWarning)
        yield


def _grouped(y: NDArray[Any], groups: NDArray[Any], *, stratify: bool, seed: int, n_folds: int) -> list[Fold]:
    n_groups = len(np.unique(groups))
    k = min(n_folds, n_groups)
    largest = int(np.unique(y, return_counts=True)[1].max())
    if stratify and largest >= 2:
        splitter = StratifiedGroupKFold(min(k, largest), shuffle=True, random_state=seed)
        with _rare_classes():
            folds = list(splitter.split(y, y, groups))
        # With few groups, balancing the classes can leave a fold without any group.
        if all(len(held) and len(fit) and len(np.unique(y[fit])) >= 2 for fit, held in folds):
            return [(fit, held) for fit, held in folds]
    return [(fit, held) for fit, held in GroupKFold(k, shuffle=True, random_state=seed).split(y, y, groups)]
