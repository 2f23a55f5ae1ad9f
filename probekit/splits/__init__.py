"""Which rows may be used for what: splits and inner folds."""

from __future__ import annotations

from probekit.splits.folds import inner_folds
from probekit.splits.joint import joint_splits, labelled_part
from probekit.splits.plan import DEFAULT_FRACTION, Column, Split, make_splits, own_parts, read_parts

__all__ = [
    "DEFAULT_FRACTION",
    "Column",
    "Split",
    "inner_folds",
    "joint_splits",
    "labelled_part",
    "make_splits",
    "own_parts",
    "read_parts",
]
