from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from probekit.metrics.bootstrap import PairedDifference, differences_from, holm, paired_difference
from probekit.metrics.score import SCORES
from tests.metrics.draws import bootstrap_draws


def test_holm_by_hand():
    # Sorted: .005 x 4, .01 x 3, .03 x 2, .04 x 1; then no smaller than the one before.
    np.testing.assert_allclose(holm([0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02])
    np.testing.assert_allclose(holm([0.6, 0.5]), [1, 1])
    np.testing.assert_allclose(holm([0.02, np.nan, 0.02]), [0.04, np.nan, 0.04])
    assert holm([]).shape == (0,)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_lies_between_no_correction_and_bonferroni_and_keeps_the_order(p_values):
    p = np.array(p_values)
    corrected = holm(p)
    assert (corrected >= p).all()
    assert (corrected <= np.minimum(p * len(p), 1) + 1e-15).all()
    assert (np.diff(corrected[np.argsort(p, kind="stable")]) >= 0).all()
    # The textbook's rule: reject in order of size while p <= level / number left.
    for level in (0.05, 0.3):
        rejected = np.zeros(len(p), dtype=bool)
        for step, i in enumerate(np.argsort(p, kind="stable")):
            if p[i] * (len(p) - step) > level:
                break
            rejected[i] = True
        np.testing.assert_array_equal(corrected <= level, rejected)


def test_the_difference_of_equals():
    draws = np.random.default_rng(0).random(100)
    assert paired_difference(draws, draws) == PairedDifference(0, 0, 1)


def test_a_difference_by_hand():
    a, b = np.array([3.0, 4, 5, 1, np.nan]), np.array([1.0, 1, 1, 2, 1])
    found = paired_difference(a, b, confidence=0.5)
    assert (found.low, found.high) == tuple(np.quantile([2, 3, 4, -1], [0.25, 0.75]))
    assert found.p_value == 2 * (1 + 1) / 5
    turned = paired_difference(b, a, confidence=0.5)
    assert (turned.low, turned.high, turned.p_value) == (-found.high, -found.low, found.p_value)
    assert np.isnan(paired_difference(a[4:], b[4:]).p_value)


def test_pairing_finds_what_two_separate_intervals_hide():
    """Two layers that fail on the same hard rows, one of them on a few more."""
    rng = np.random.default_rng(0)
    truth = np.ones(400, dtype=int)
    better = (rng.random(400) < 0.6).astype(int)
    worse = better.copy()
    worse[np.flatnonzero(better)[:12]] = 0
    draws = bootstrap_draws(SCORES["accuracy"], truth, np.column_stack([worse, better]), groups=None, seed=0)
    assert np.quantile(draws[:, 0], 0.975) > np.quantile(draws[:, 1], 0.025)
    found = differences_from(draws, 1)
    assert found[0].high < 0
    assert found[0].p_value == pytest.approx(2 / 1001)
    assert found[1] == PairedDifference(0, 0, 1)


def test_layers_of_equal_worth_are_rarely_told_apart():
    """Twenty layers, none better: without a correction most runs would find one that is."""
    alarms = plain_alarms = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        truth = np.ones(300, dtype=int)
        predicted = (rng.random((300, 20)) < 0.7).astype(int)
        draws = bootstrap_draws(SCORES["accuracy"], truth, predicted, groups=None, seed=seed, n_draws=1000)
        alarms += any(found.p_value < 0.05 for found in differences_from(draws, 0))
        plain_alarms += any(paired_difference(draws[:, k], draws[:, 0]).p_value < 0.05 for k in range(20))
    assert alarms <= 8
    assert plain_alarms >= 20
