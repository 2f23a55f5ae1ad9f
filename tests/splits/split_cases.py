"""Targets and columns for the tests of splits."""

from __future__ import annotations

import numpy as np

from probekit.splits import Column, Split
from probekit.tasks import Target
from probekit.tasks.read import read_target


def names(n: int) -> np.ndarray:
    return np.array([f"row{i}" for i in range(n)], dtype=object)


def classes(labels, ids=None) -> Target:
    labels = np.array([str(label) for label in labels], dtype=object)
    return read_target(labels, "label", ids=names(len(labels)) if ids is None else ids)


def numbers(n: int) -> Target:
    return read_target(np.arange(n) + 0.5, "score", ids=names(n))


def grouping(values) -> Column:
    return Column("writer", np.array([f"w{value}" for value in values], dtype=object))


def parts(split: Split) -> dict[str, np.ndarray]:
    return {"train": split.train, "val": split.val, "test": split.test}


def check_disjoint_and_complete(split: Split, n: int) -> None:
    rows = np.concatenate(list(parts(split).values()))
    assert sorted(rows.tolist()) == list(range(n))
    for at in parts(split).values():
        assert len(at) > 0
        assert at.dtype == np.int64


def group_parts(split: Split, groups: Column) -> dict[str, set[str]]:
    return {part: set(groups.values[at]) for part, at in parts(split).items()}
