"""Inner folds of the training rows, for choosing hyper-parameters."""

from __future__ import annotations

import warnings
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
    splitters are scikit-learn's: (Stratified)(Group)KFold, shuffled by ``seed``. Fewer folds where the smallest class
    or the number of groups is smaller; a class with a single row is never held out (unless its group is).
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
    k = max(2, min(n_folds, int(counts[counts >= 2].min())))
    held_out = [
        several[held] for _, held in StratifiedKFold(k, shuffle=True, random_state=seed).split(several, code[several])
    ]
    return [(np.setdiff1d(np.arange(n), held), held) for held in held_out]


def _grouped(y: NDArray[Any], groups: NDArray[Any], *, stratify: bool, seed: int, n_folds: int) -> list[Fold]:
    n_groups = len(np.unique(groups))
    k = min(n_folds, n_groups)
    if stratify:
        smallest = int(np.unique(y, return_counts=True)[1].min())
        k = max(2, min(k, smallest))
        with warnings.catch_warnings():
            # "The least populated class has only 1 member": known, and nothing better can be done with whole groups.
            warnings.filterwarnings("ignore", message="The least populated class", category=UserWarning)
            folds = list(StratifiedGroupKFold(k, shuffle=True, random_state=seed).split(y, y, groups))
        # With few groups, balancing the classes can leave a fold without any group.
        if all(len(held) and len(fit) and len(np.unique(y[fit])) >= 2 for fit, held in folds):
            return [(fit, held) for fit, held in folds]
    return [(fit, held) for fit, held in GroupKFold(k, shuffle=True, random_state=seed).split(y, y, groups)]
