"""What is erased is gone for every linear reader, and nothing is changed more than it has to be."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import fractional_matrix_power, pinvh
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.metrics import log_loss

from probekit.errors import InputError, SpecError
from probekit.explanation.erase import (
    along,
    along_direction,
    class_distance,
    leace,
    mean_difference,
    moments,
    probe_directions,
    random_erasure,
    random_shift,
    variance_removed,
)
from probekit.probes import PROBES
from probekit.splits import inner_folds

N, D = 300, 12


def states(seed, *, n=N, d=D, k=3, rank=None):
    """(n, d) states with a covariance of their own, and codes of k classes that shift them."""
    rng = np.random.default_rng(seed)
    codes = np.concatenate([np.arange(k), rng.integers(0, k, size=n - k)])
    X = rng.standard_normal((n, rank or d)) @ rng.standard_normal((rank or d, d)) * 3 + 7
    return X + rng.standard_normal((k, d))[codes] @ np.eye(d) * (rank is None), codes


def fitted(X, Z, *, shrinkage=0.0):
    return replace(moments(X, Z, "states"), shrinkage=shrinkage)


def cross_covariance(X, Z):
    return (X - X.mean(0)).T @ (Z - Z.mean(0)) / len(X)


cases = st.tuples(st.integers(0, 2**32 - 1), st.integers(2, 5), st.sampled_from(["classes", "number", "labels"]))


def case(drawn):
    seed, k, kind = drawn
    X, codes = states(seed, k=k)
    rng = np.random.default_rng(seed + 1)
    if kind == "classes":
        return X, np.eye(k)[codes]
    if kind == "number":
        return X, (X @ rng.standard_normal(D) + rng.standard_normal(N))[:, None]
    return X, (X @ rng.standard_normal((D, k)) > 0).astype(float)


@settings(max_examples=15, deadline=None)
@given(cases, st.sampled_from([leace, mean_difference]), st.sampled_from([0.0, 0.3]))
def test_no_cross_covariance_is_left_and_the_rank_is_its_rank(drawn, fit, shrinkage):
    X, Z = case(drawn)
    erasure = fit(fitted(X, Z, shrinkage=shrinkage))
    before = cross_covariance(X, Z)
    assert np.abs(cross_covariance(erasure(X), Z)).max() <= 1e-9 * np.abs(before).max()
    assert erasure.rank == np.linalg.matrix_rank(before, tol=1e-8 * np.linalg.norm(before))
    projection = erasure.left @ erasure.right.T
    assert np.allclose(projection @ projection, projection, atol=1e-8)
    assert np.allclose(erasure(X).mean(0), X.mean(0))


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 4))
def test_nothing_is_left_for_least_squares_and_logistic_regression(seed, k):
    X, codes = states(seed, k=k)
    Z = np.eye(k)[codes]
    erased = leace(fitted(X, Z))(X)
    assert LinearRegression().fit(X, Z).score(X, Z) > 0.01
    shares = np.bincount(codes) / len(codes)
    answers = LinearRegression().fit(erased, Z).predict(erased)
    assert np.allclose(answers, shares, atol=1e-9)  # the commonest class for every row
    model = LogisticRegression(C=1e6, solver="newton-cholesky", tol=1e-10).fit(erased, codes)
    assert log_loss(codes, model.predict_proba(erased)) >= -np.sum(shares * np.log(shares)) - 1e-9


def test_leace_is_the_closed_form_of_the_paper():
    """Theorem 4.3 of Belrose et al. 2023, by other routines: x - W⁺ P W (x - mean), with W = Σ^(-1/2)."""
    X, codes = states(3)
    Z = np.eye(3)[codes]
    W = fractional_matrix_power(np.cov(X.T, bias=True), -0.5).real
    whitened = W @ cross_covariance(X, Z)
    P = whitened @ np.linalg.pinv(whitened)
    expected = X - (X - X.mean(0)) @ (np.linalg.inv(W) @ P @ W).T
    assert np.allclose(leace(fitted(X, Z))(X), expected)


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 4))
def test_leace_changes_least_of_all_that_erase(seed, k):
    X, codes = states(seed, k=k)
    Z = np.eye(k)[codes]
    found = fitted(X, Z)
    erasure = leace(found)
    least = np.mean((erasure.removed(X)) ** 2)
    rng = np.random.default_rng(seed)
    basis = np.linalg.svd(found.cov_xz, full_matrices=False)[0][:, : k - 1]
    others = [mean_difference(found).removed(X)]
    for size in (1e-3, 0.1, 1.0):  # any map whose kernel of the transpose holds the cross-covariance erases
        right = erasure.right @ np.linalg.inv(basis.T @ erasure.right) + size * rng.standard_normal((D, k - 1))
        left = basis @ np.linalg.inv(right.T @ basis)
        others.append((X - X.mean(0)) @ right @ left.T)
        assert np.abs(cross_covariance(X - others[-1], Z)).max() < 1e-6
    assert all(np.mean(other**2) >= least * (1 - 1e-9) for other in others)


def test_states_with_fewer_dimensions_than_they_have_numbers():
    X, codes = states(5, rank=4)
    X = X + np.eye(2, D)[codes % 2] @ np.zeros((D, D)) + 2.0 * (codes[:, None] == 1) * (X[:1] - X.mean(0))
    erasure = leace(fitted(X, np.eye(3)[codes]))
    assert np.isfinite(erasure(X)).all()
    assert np.abs(cross_covariance(erasure(X), np.eye(3)[codes])).max() < 1e-8
    few = X[:8]
    assert np.isfinite(leace(moments(few, np.eye(3)[codes[:8]], ""))(X)).all()


def test_few_rows_are_shrunk_and_many_are_not():
    many, codes = states(0, n=20_000)
    assert moments(many, np.eye(3)[codes], "").shrinkage < 0.01
    assert moments(many[:20], np.eye(3)[codes[:20]], "").shrinkage > 0.02


def test_mean_difference_makes_class_means_one_and_is_orthogonal():
    X, codes = states(1)
    erasure = mean_difference(fitted(X, np.eye(3)[codes]))
    means = np.stack([erasure(X)[codes == k].mean(0) for k in range(3)])
    assert np.allclose(means, means[0])
    assert np.allclose(erasure.left, erasure.right)
    assert np.allclose(erasure.left.T @ erasure.left, np.eye(2))


def test_random_directions_are_orthonormal_and_seeded():
    one, same, other = (random_erasure(3, np.ones(D), np.random.default_rng(seed)) for seed in (0, 0, 1))
    assert one.left.tobytes() == same.left.tobytes() != other.left.tobytes()
    assert np.allclose(one.left.T @ one.left, np.eye(3))
    assert np.linalg.norm(random_shift(2.5, D, np.random.default_rng(0)).by) == pytest.approx(2.5)
    rng = np.random.default_rng(0)
    shares = [random_erasure(3, np.zeros(D), rng).left[0] @ np.eye(3)[0] for _ in range(2000)]
    assert abs(np.mean(shares)) < 0.02  # no sign is preferred
    assert np.mean(np.square(shares)) == pytest.approx(1 / D, rel=0.15)


def test_distance_of_two_classes_and_of_a_number():
    X, codes = states(2, k=2)
    distance = class_distance(fitted(X, np.eye(2)[codes]))
    assert np.allclose(distance, X[codes == 1].mean(0) - X[codes == 0].mean(0))
    number = np.random.default_rng(0).standard_normal(N) * 5
    slope = LinearRegression().fit(number[:, None], X).coef_[:, 0]
    assert np.allclose(class_distance(fitted(X, number[:, None])), slope * number.std())
    part = along_direction(distance, 3 * np.eye(D)[0])
    assert np.allclose(part, np.eye(D)[0] * distance[0])


def test_share_of_variance():
    X = np.random.default_rng(0).standard_normal((5000, 4)) * [3, 1, 1, 1] + 100
    assert variance_removed(along(np.eye(4)[:, :1], X.mean(0)), X) == pytest.approx(9 / 12, rel=0.05)
    assert variance_removed(random_shift(1.0, 4, np.random.default_rng(0)), X) == 0.0


def test_states_that_are_not_finite():
    X, codes = states(0)
    X[3, 2] = np.inf
    with pytest.raises(InputError, match="layer 3: what is erased is fitted on finite hidden states"):
        moments(X, np.eye(3)[codes], "layer 3")


LINEAR = ("logistic", "lda", "mass-mean", "mass-mean-iid", "sparse-logistic")


def decisions(estimator, X):
    """What answers are made of: log-probabilities up to what is the same for all classes."""
    if hasattr(estimator, "predict_proba"):
        logs = np.log(estimator.predict_proba(X))
        return logs - logs.mean(1, keepdims=True)
    return np.asarray(estimator.predict(X))


@pytest.mark.parametrize("k", [2, 3])
@pytest.mark.parametrize("name", LINEAR)
def test_a_classifier_sees_nothing_beside_its_directions(name, k):
    X, codes = states(4, k=k)
    fit = PROBES[name].fit(X, codes, folds=inner_folds(codes, stratify=True, groups=None, seed=0), seed=0)
    directions = probe_directions(fit.estimator, name)
    erasure = along(directions, X.mean(0))
    assert erasure.rank <= k - 1 if name != "sparse-logistic" else erasure.rank <= k
    one = decisions(fit.estimator, erasure(X))
    assert np.allclose(one, one[0], atol=1e-6)
    beside = X + (np.random.default_rng(0).standard_normal((N, D)) @ (np.eye(D) - erasure.left @ erasure.left.T))
    assert np.allclose(decisions(fit.estimator, beside), decisions(fit.estimator, X), atol=1e-6)


def test_ridge_and_several_labels():
    X, codes = states(4)
    rng = np.random.default_rng(0)
    y = X @ rng.standard_normal(D)
    folds = inner_folds(y, stratify=False, groups=None, seed=0)
    ridge = PROBES["ridge"].fit(X, y, folds=folds, seed=0).estimator
    erased = along(probe_directions(ridge, ""), X.mean(0))(X)
    assert np.allclose(ridge.predict(erased), ridge.predict(erased)[0])
    labels = np.column_stack([codes == 0, codes == 1, np.ones(N)]).astype(int)
    several = PROBES["logistic"].fit_labels(X, labels, folds=folds, seed=0).estimator
    assert probe_directions(several, "").shape == (D, 2)  # a label that all have has none


@pytest.mark.parametrize("name", [pytest.param("mlp", marks=pytest.mark.slow), "knn"])
def test_what_is_not_linear_has_no_direction(name):
    X, codes = states(4)
    fit = PROBES[name].fit(X, codes, folds=inner_folds(codes, stratify=True, groups=None, seed=0), seed=0)
    with pytest.raises(SpecError, match="probe p: has no direction of its own"):
        probe_directions(fit.estimator, "probe p")


def test_pseudo_inverse_is_that_of_scipy():
    """With fewer dimensions W⁺ is the root of the covariance on its own space."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((200, 3)) @ rng.standard_normal((3, 6))
    z = (X[:, :1] + rng.standard_normal((200, 1)) > 0).astype(float)
    cov = np.cov(X.T, bias=True)
    right = pinvh(cov) @ cross_covariance(X, z)
    left = cross_covariance(X, z)
    expected = X - (X - X.mean(0)) @ right @ left.T / (left.T @ right)
    assert np.allclose(leace(fitted(X, z))(X), expected)
