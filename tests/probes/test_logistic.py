"""The fast logistic path against scikit-learn's own grid search."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from probekit.errors import InputError, SpecError
from probekit.probes.logistic import C_GRID, _fit_fast, fit_logistic, fit_logistic_plain


def rows(n: int, d: int, classes: int, seed: int = 0, signal: float = 2.0, shift: float = 0.0):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, d)) * np.arange(1, d + 1) ** -0.5
    X = X @ np.linalg.qr(rng.standard_normal((d, d)))[0]
    X[:, 0] = 40 * X[:, 0] + 300
    Z = (X - X.mean(0)) / X.std(0)
    s = Z @ rng.standard_normal((d, classes))
    s *= signal / s.std(0)
    s[:, 0] += shift
    y = np.argmax(s + rng.gumbel(size=s.shape), axis=1)
    return X.astype(np.float32), y


def cv(X, y, k=5, seed=0):
    return list(StratifiedKFold(k, shuffle=True, random_state=seed).split(X, y))


def baseline(X, y, folds):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return GridSearchCV(
            make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)),
            {"logisticregression__C": list(C_GRID)},
            scoring="neg_log_loss",
            cv=folds,
        ).fit(X, y)


def is_fast(X, y, folds):
    codes = np.unique(y, return_inverse=True)[1]
    return _fit_fast(X, np.asarray(y), codes, folds=folds, grid=C_GRID, max_iter=1000, full_grid=False) is not None


CASES = {
    "binary": (600, 40, 2, 2.0, 0.0),
    "multi": (800, 40, 5, 2.0, 0.0),
    "binary n<d": (150, 300, 2, 2.0, 0.0),
    "multi n<d": (200, 300, 4, 2.0, 0.0),
    "imbalanced": (1500, 30, 2, 1.0, 5.0),
    "imbalanced multi": (1500, 30, 4, 1.0, 4.0),
    "noise": (400, 50, 2, 1e-6, 0.0),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("full", [True, False])
def test_equal_to_grid_search(case: str, full: bool) -> None:
    n, d, k, signal, shift = CASES[case]
    X, y = rows(2 * n, d, k, signal=signal, shift=shift)
    X, y, X_test, y_test = X[:n], y[:n], X[n:], y[n:]
    folds = cv(X, y)
    base = baseline(X, y, folds)
    fitted = fit_logistic(X, y, folds=folds, seed=0, full_grid=full)
    assert is_fast(X, y, folds)
    assert fitted.regularisation == pytest.approx(base.best_params_["logisticregression__C"])
    assert fitted.cv_score == pytest.approx(base.best_score_, abs=0.002)
    assert fitted.converged
    assert abs(fitted.estimator.score(X_test, y_test) - base.best_estimator_.score(X_test, y_test)) <= max(
        0.002, 1.5 / n
    )
    assert log_loss(y_test, fitted.estimator.predict_proba(X_test), labels=np.arange(k)) == pytest.approx(
        log_loss(y_test, base.predict_proba(X_test), labels=np.arange(k)), abs=0.002
    )
    regression = fitted.estimator[-1]
    assert regression.n_iter_.max() <= 1
    regression.fit(fitted.estimator[0].transform(X), y)
    assert regression.n_iter_.max() <= 1


def test_early_stop_chooses_as_full_grid() -> None:
    X, y = rows(800, 60, 3)
    a = fit_logistic(X, y, folds=cv(X, y), seed=0)
    b = fit_logistic(X, y, folds=cv(X, y), seed=0, full_grid=True)
    assert a.regularisation == b.regularisation
    assert np.isnan(a.cv_scores).any()
    assert not np.isnan(b.cv_scores).any()


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_dtypes(dtype: Any) -> None:
    X, y = rows(500, 30, 3)
    X = X.astype(dtype)
    folds = cv(X, y)
    fitted, plain = fit_logistic(X, y, folds=folds, seed=0), fit_logistic_plain(X, y, folds=folds, seed=0)
    assert fitted.regularisation == plain.regularisation
    assert fitted.cv_score == pytest.approx(plain.cv_score, abs=0.002)


def test_constant_column() -> None:
    X, y = rows(400, 20, 2)
    X[:, 3], X[:, 5] = 0.1, 0
    X[7, 5] = 1  # constant in the fold that holds row 7 out
    folds = cv(X, y)
    fitted, base = fit_logistic(X, y, folds=folds, seed=0), baseline(X, y, folds)
    assert fitted.cv_score == pytest.approx(base.best_score_, abs=0.002)
    assert fitted.regularisation == pytest.approx(base.best_params_["logisticregression__C"])


@pytest.mark.parametrize("classes", [2, 4])
def test_scale(classes: int) -> None:
    X, y = rows(500, 30, classes)
    a = fit_logistic(X, y, folds=cv(X, y), seed=0)
    b = fit_logistic(100 * X, y, folds=cv(X, y), seed=0)
    assert a.regularisation == b.regularisation
    assert (a.estimator.predict(X) == b.estimator.predict(100 * X)).all()
    np.testing.assert_allclose(a.estimator.predict_proba(X), b.estimator.predict_proba(100 * X), atol=1e-3)


def test_permutation() -> None:
    X, y = rows(500, 30, 3)
    folds = cv(X, y)
    order = np.random.default_rng(1).permutation(len(y))
    where = np.argsort(order)
    moved = [(where[a], where[b]) for a, b in folds]
    a = fit_logistic(X, y, folds=folds, seed=0)
    b = fit_logistic(X[order], y[order], folds=moved, seed=0)
    assert a.regularisation == b.regularisation
    assert a.cv_score == pytest.approx(b.cv_score, abs=1e-4)
    np.testing.assert_allclose(a.estimator.predict_proba(X), b.estimator.predict_proba(X), atol=1e-3)


def test_memmap_and_repeatable(tmp_path: Any) -> None:
    X, y = rows(300, 20, 2)
    np.save(tmp_path / "x.npy", X)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    a, b = fit_logistic(mapped, y, folds=cv(X, y), seed=0), fit_logistic(X, y, folds=cv(X, y), seed=1)
    assert (a.estimator[-1].coef_ == b.estimator[-1].coef_).all()
    assert (np.asarray(mapped) == X).all()


@pytest.mark.parametrize("classes", [3, 4])
def test_class_missing_from_a_fold(classes: int) -> None:
    X, y = rows(300, 20, classes)
    keep = np.flatnonzero((y != classes - 1) | (np.cumsum(y == classes - 1) <= 4))
    X, y = X[keep], y[keep]
    rare = np.flatnonzero(y == classes - 1)
    rest = np.flatnonzero(y != classes - 1)
    parts = np.array_split(np.random.default_rng(0).permutation(rest), 3)
    parts[0] = np.concatenate([parts[0], rare])
    folds = [(np.setdiff1d(np.arange(len(y)), p), p) for p in parts]
    fitted, plain = fit_logistic(X, y, folds=folds, seed=0), fit_logistic_plain(X, y, folds=folds, seed=0)
    assert is_fast(X, y, folds) == (classes > 3)
    assert fitted.regularisation == plain.regularisation
    assert fitted.cv_score == pytest.approx(plain.cv_score, abs=0.002)


@pytest.mark.parametrize("classes", [2, 3])
def test_separable(classes: int) -> None:
    X, y = rows(200, 20, classes)
    X = X + 1000 * np.eye(20, dtype=np.float32)[y]
    folds = cv(X, y)
    fitted, plain = fit_logistic(X, y, folds=folds, seed=0, full_grid=True), baseline(X, y, folds)
    assert fitted.estimator.score(X, y) == 1
    assert fitted.grid_edge
    assert fitted.regularisation == pytest.approx(plain.best_params_["logisticregression__C"])
    assert fitted.cv_score == pytest.approx(plain.best_score_, abs=0.002)
    assert fitted.estimator[-1].n_iter_.max() <= 1


def test_max_iter_one() -> None:
    X, y = rows(300, 20, 3)
    assert not fit_logistic(X, y, folds=cv(X, y), seed=0, max_iter=1).converged


def test_scaler_is_fitted_inside_each_fold() -> None:
    X, y = rows(60, 10, 2)
    X[np.arange(60) < 12, 0] += 1e4  # held out together: a scaler that saw them would squash the column
    held = np.arange(12)
    folds = [(np.arange(12, 60), held), (np.arange(0, 48), np.arange(48, 60))]
    fitted, plain = (
        fit_logistic(X, y, folds=folds, seed=0, full_grid=True),
        fit_logistic_plain(X, y, folds=folds, seed=0),
    )
    np.testing.assert_allclose(fitted.cv_scores[:6], plain.cv_scores[:6], atol=0.01)


def test_errors() -> None:
    X, y = rows(50, 5, 2)
    with pytest.raises(SpecError):
        fit_logistic(X, y, folds=[], seed=0)
    with pytest.raises(InputError):
        fit_logistic(X, np.zeros(50), folds=cv(X, y), seed=0)
