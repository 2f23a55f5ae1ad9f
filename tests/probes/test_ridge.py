"""The fast ridge path against scikit-learn's own grid search."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.model_selection import KFold

from probekit.probes.ridge import fit_ridge, fit_ridge_plain


@pytest.mark.parametrize(("n", "d"), [(400, 50), (100, 300), (60, 60)])
@pytest.mark.parametrize("t", [0, 3])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_equal_to_plain(n, d, t, dtype) -> None:
    rng = np.random.default_rng(0)
    X = rng.standard_normal((n, d)) * np.arange(1, d + 1) ** -0.5
    X = X @ np.linalg.qr(rng.standard_normal((d, d)))[0]
    X[:, 0] = 40 * X[:, 0] + 300
    X[:, 1] = 0.1
    X = X.astype(dtype)
    y = X.astype(float) @ rng.standard_normal((d, max(t, 1)))
    y = (y / y.std(0) + rng.standard_normal(y.shape)) * [0.5, 60, 4][: max(t, 1)] + 3
    y = y[:, 0] if t == 0 else y
    folds = list(KFold(5, shuffle=True, random_state=0).split(X))
    a, b = fit_ridge(X, y, folds=folds, seed=0), fit_ridge_plain(X, y, folds=folds, seed=0)
    assert a.regularisation == b.regularisation
    np.testing.assert_allclose(a.cv_scores, b.cv_scores, atol=1e-4)
    np.testing.assert_allclose(a.estimator.predict(X), b.estimator.predict(X), rtol=1e-3, atol=1e-3 * np.abs(y).max())


def test_a_fold_with_rows_left_out_or_held_out_twice_takes_the_plain_way():
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((60, 5)), rng.standard_normal(60)
    twice = [(np.arange(20, 60), np.arange(30)), (np.arange(40), np.arange(40, 60)), (np.arange(30), np.arange(25, 60))]
    a, b = (fit(X, y, folds=twice, seed=0) for fit in (fit_ridge, fit_ridge_plain))
    assert a.cv_scores == b.cv_scores


def test_rows_that_no_fold_holds_out_count_in_training():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((60, 5))
    y = X[:, 0] + 0.1 * rng.standard_normal(60)
    folds = [(np.setdiff1d(np.arange(60), held), held) for held in (np.arange(10), np.arange(10, 25))]
    a, b = (fit(X, y, folds=folds, seed=0) for fit in (fit_ridge, fit_ridge_plain))
    np.testing.assert_allclose(a.cv_scores, b.cv_scores, atol=1e-6)


def test_scale_of_a_feature_changes_nothing():
    rng = np.random.default_rng(1)
    X = rng.standard_normal((80, 6))
    y = X @ rng.standard_normal(6)
    folds = list(KFold(4).split(X))
    a = fit_ridge(X, y, folds=folds, seed=0)
    b = fit_ridge(X * [1, 1e4, 1, 1e-3, 1, 1], y, folds=folds, seed=0)
    np.testing.assert_allclose(a.cv_scores, b.cv_scores, rtol=1e-6)


def test_a_row_held_out_twice_takes_the_plain_way_even_if_the_counts_agree():
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((40, 5)), rng.standard_normal(40)
    twice = [(np.arange(20, 40), np.arange(20)), (np.setdiff1d(np.arange(40), np.arange(10, 30)), np.arange(10, 30))]
    a, b = (fit(X, y, folds=twice, seed=0) for fit in (fit_ridge, fit_ridge_plain))
    assert a.cv_scores == b.cv_scores
