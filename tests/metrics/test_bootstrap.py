"""Intervals: the same numbers as a plain loop, the promised coverage, and wider where rows go together."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics as sk

from probekit.metrics import bootstrap
from probekit.metrics.bootstrap import interval
from probekit.metrics.score import SCORES
from tests.metrics.draws import bootstrap_draws


def micro_f1(truth, predicted):
    return sk.f1_score(truth, predicted, average="micro")


BY_HAND = {"accuracy": sk.accuracy_score, "r2": sk.r2_score, "micro_f1": micro_f1}


def simulated(name: str, n: int, n_layers: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    if name == "accuracy":
        truth = rng.integers(0, 3, n)
        wrong = rng.random((n, n_layers)) < 0.4
        return truth, np.where(wrong, (truth[:, None] + 1) % 3, truth[:, None])
    if name == "micro_f1":  # true and false positives, and false negatives, equally often
        truth = rng.integers(0, 2, (n, 4))
        return truth, rng.integers(0, 2, (n, n_layers, 4))
    truth = rng.standard_normal(n) + 50
    return truth, truth[:, None] + rng.standard_normal((n, n_layers))


@pytest.mark.parametrize("name", BY_HAND)
def test_draws_are_those_of_a_plain_loop(name):
    n, n_draws = 37, 50
    truth, predicted = simulated(name, n, 3)
    draws = bootstrap_draws(SCORES[name], truth, predicted, groups=None, seed=4, n_draws=n_draws)
    chosen = np.random.default_rng(4).integers(0, n, size=(n_draws, n))
    by_hand = [[BY_HAND[name](truth[rows], predicted[rows, k]) for k in range(3)] for rows in chosen]
    np.testing.assert_allclose(draws, by_hand, rtol=1e-10)


@pytest.mark.parametrize("name", BY_HAND)
def test_draws_of_groups_are_those_of_a_plain_loop(name):
    n, n_draws = 60, 40
    truth, predicted = simulated(name, n, 2)
    groups = np.array([f"g{i % 7 if i < 40 else 0}" for i in range(n)], dtype=object)
    draws = bootstrap_draws(SCORES[name], truth, predicted, groups=groups, seed=1, n_draws=n_draws)
    members = [np.flatnonzero(groups == name) for name in sorted(set(groups))]
    chosen = np.random.default_rng(1).integers(0, 7, size=(n_draws, 7))
    rows = [np.concatenate([members[g] for g in draw]) for draw in chosen]
    by_hand = [[BY_HAND[name](truth[r], predicted[r, k]) for k in range(2)] for r in rows]
    np.testing.assert_allclose(draws, by_hand, rtol=1e-10)


def test_blocks_of_draws_cover_all_of_them(monkeypatch):
    truth, predicted = simulated("accuracy", 30, 2)
    monkeypatch.setattr(bootstrap, "_BLOCK", 70)
    draws = bootstrap_draws(SCORES["accuracy"], truth, predicted, groups=None, seed=0, n_draws=101)
    assert draws.shape == (101, 2)
    assert len(np.unique(draws[:, 0])) > 5
    np.testing.assert_allclose(draws.mean(axis=0), (truth[:, None] == predicted).mean(axis=0), atol=0.05)


def test_layers_share_their_draws():
    truth, predicted = simulated("accuracy", 200, 1)
    draws = bootstrap_draws(SCORES["accuracy"], truth, np.hstack([predicted, predicted]), groups=None, seed=0)
    np.testing.assert_array_equal(draws[:, 0], draws[:, 1])
    other = bootstrap_draws(SCORES["accuracy"], truth, predicted, groups=None, seed=1)
    assert (draws[:, 0] != other[:, 0]).any()


@pytest.mark.parametrize("name", BY_HAND)
def test_the_interval_covers_the_truth_as_often_as_it_says(name):
    n, repeats = 200, 400
    true_score = {"accuracy": 0.6, "r2": 0.0, "micro_f1": 0.5}[name]  # r2: the noise has the variance of the truth
    covered = 0
    for repeat in range(repeats):
        truth, predicted = simulated(name, n, 1, seed=repeat)
        low, high = interval(bootstrap_draws(SCORES[name], truth, predicted, groups=None, seed=repeat, n_draws=300))
        covered += low <= true_score <= high
    assert 0.92 <= covered / repeats <= 0.98


def test_clustered_rows_need_groups_for_an_honest_interval():
    """All rows of a group are right or wrong together: the effective number of examples is that of the groups."""
    covered = {"rows": 0, "groups": 0}
    widths = {"rows": 0.0, "groups": 0.0}
    repeats = 200
    for repeat in range(repeats):
        rng = np.random.default_rng(repeat)
        groups = np.repeat(np.arange(50), 10)
        predicted = np.repeat((rng.random(50) < 0.7).astype(int), 10)[:, None]
        truth = np.ones(500, dtype=int)
        for how, names in (("rows", None), ("groups", groups)):
            draws = bootstrap_draws(SCORES["accuracy"], truth, predicted, groups=names, seed=repeat, n_draws=300)
            low, high = interval(draws)
            covered[how] += low <= 0.7 <= high
            widths[how] += high - low
    assert covered["groups"] / repeats > 0.9
    assert covered["rows"] / repeats < 0.6
    assert widths["groups"] > 2.5 * widths["rows"]


def test_degenerate_draws():
    low, high = interval(
        bootstrap_draws(SCORES["accuracy"], np.array([1]), np.array([[1, 0]]), groups=None, seed=0, n_draws=9)[:, 0]
    )
    assert (low, high) == (1, 1)
    # One row, or one row drawn many times, has no variance to explain.
    draws = bootstrap_draws(SCORES["r2"], np.array([0.1, 0.7]), np.array([[0.0], [1.0]]), groups=None, seed=0)
    assert 0.4 < np.isnan(draws).mean() < 0.6
    assert np.isfinite(interval(draws)).all()
    assert np.isnan(interval(np.full(5, np.nan))).all()
