"""What is predicted, and which rows may be used for what: targets, splits, inner folds."""

from __future__ import annotations

from probekit.splits.folds import inner_folds
from probekit.splits.label_sets import label_lists, parse_lists
from probekit.splits.official import read_parts
from probekit.splits.plan import DEFAULT_FRACTION, Column, Split, make_splits, own_parts
from probekit.splits.target import KINDS, Target, Task, guess_task, is_missing, read_target, spread

__all__ = [
    "DEFAULT_FRACTION",
    "KINDS",
    "Column",
    "Split",
    "Target",
    "Task",
    "guess_task",
    "inner_folds",
    "is_missing",
    "label_lists",
    "make_splits",
    "own_parts",
    "parse_lists",
    "read_parts",
    "read_target",
    "spread",
]
