"""Inner folds: inside the training rows, group-aware, and no class lost without need."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from probekit.splits import inner_folds


def check(folds, n, *, all_held_out=True):
    assert len(folds) >= 2
    for fit, held in folds:
        assert len(fit) > 0
        assert len(held) > 0
        assert sorted([*fit, *held]) == list(range(n))
    held_out = np.concatenate([held for _, held in folds])
    assert len(held_out) == len(set(held_out))  # each row at most once
    if all_held_out:
        assert len(held_out) == n


@settings(max_examples=60, deadline=None)
@given(y=st.lists(st.integers(0, 3), min_size=4, max_size=60).filter(lambda y: len(set(y)) > 1), seed=st.integers(0, 3))
def test_stratified(y, seed):
    y = np.array(y)
    folds = inner_folds(y, stratify=True, groups=None, seed=seed)
    counts = np.bincount(y)
    check(folds, len(y), all_held_out=(counts != 1).all())
    if counts.max() >= 2:
        for fit, _ in folds:
            assert set(y[fit]) == set(y)  # every class can be learnt in every fold
    for c in np.flatnonzero(counts >= 5):
        assert all(counts[c] // 5 <= np.sum(y[held] == c) <= -(-counts[c] // 2) for _, held in folds)


def test_a_rare_class_does_not_cost_the_others_their_folds():
    y = np.array([0] * 50 + [1] * 50 + [2] * 2)
    folds = inner_folds(y, stratify=True, groups=None, seed=0)
    assert len(folds) == 5
    assert sum(2 in y[held] for _, held in folds) == 2


def test_every_class_once():
    folds = inner_folds(np.arange(6), stratify=True, groups=None, seed=0)
    check(folds, 6)


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(st.tuples(st.integers(0, 2), st.integers(0, 8)), min_size=6, max_size=60).filter(
        lambda rows: len({group for _, group in rows}) > 1
    ),
    stratify=st.booleans(),
    seed=st.integers(0, 3),
)
def test_groups_are_never_on_both_sides(rows, stratify, seed):
    y, groups = np.array(rows).T
    folds = inner_folds(y, stratify=stratify, groups=groups, seed=seed)
    check(folds, len(y))
    for fit, held in folds:
        assert not set(groups[fit]) & set(groups[held])


def test_grouped_folds_keep_classes_in_proportion_where_they_can():
    rng = np.random.default_rng(0)
    y, groups = rng.integers(0, 2, 400), np.repeat(np.arange(80), 5)
    for _, held in inner_folds(y, stratify=True, groups=groups, seed=0):
        assert abs(y[held].mean() - y.mean()) < 0.05


@pytest.mark.parametrize("groups", [None, np.arange(30) // 3])
def test_numbers_and_seeds(groups):
    y = np.linspace(0, 1, 30)
    folds = inner_folds(y, stratify=False, groups=groups, seed=0)
    check(folds, 30)
    assert len(folds) == 5
    again = inner_folds(y, stratify=False, groups=groups, seed=0)
    other = inner_folds(y, stratify=False, groups=groups, seed=1)
    assert all((a[1] == b[1]).all() for a, b in zip(folds, again, strict=True))
    assert any(list(a[1]) != list(b[1]) for a, b in zip(folds, other, strict=True))
    assert len(inner_folds(y[:2], stratify=False, groups=None, seed=0)) == 2
    assert len(inner_folds(y, stratify=False, groups=groups, seed=0, n_folds=3)) == 3
