"""The further probes: each against an independent calculation, and its own trap."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.covariance import ledoit_wolf
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.model_selection import StratifiedKFold
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler

from probekit.probes import as_probe


@pytest.fixture
def rows():
    """Two classes apart along one direction, features of very different scale."""
    rng = np.random.default_rng(0)
    y = np.array(["no", "yes"])[rng.integers(0, 2, 240)]
    X = rng.standard_normal((240, 12))
    X[:, 2] += 3 * (y == "yes")
    return (X * np.logspace(0.5, -0.5, 12)).astype(np.float32), y


def folds_of(y):
    return list(StratifiedKFold(4, shuffle=True, random_state=0).split(y, y))


def test_mass_mean_is_the_nearest_mean(rows):
    X, y = rows
    means = {label: X[y == label].mean(0) for label in ("no", "yes")}
    expected = [min(means, key=lambda label: np.linalg.norm(row - means[label])) for row in X]
    assert as_probe("mass-mean").fit(X, y, folds=[], seed=0).estimator.predict(X).tolist() == expected


def test_mass_mean_iid_has_its_border_half_way_between_the_means(rows):
    X, y = rows
    keep = np.flatnonzero((y == "yes") | (np.arange(240) % 3 == 0))  # unequal classes, which must not move it
    X, y = X[keep], y[keep]
    fitted = as_probe("mass-mean-iid").fit(X, y, folds=[], seed=0).estimator
    border = (X[y == "no"].mean(0) + X[y == "yes"].mean(0)) / 2
    assert float(fitted.decision_function(border[None])[0]) == pytest.approx(0, abs=1e-3)
    reference = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto", priors=[0.5, 0.5]).fit(X, y)
    np.testing.assert_allclose(fitted.coef_, reference.coef_)


def test_lda_has_the_shrunken_covariance_of_standardised_features(rows):
    """Ledoit and Wolf's, of each class in its own units, and the mean over classes by how common they are."""
    X, y = rows
    Z = (X - X.mean(0)) / X.std(0)
    within = np.zeros((12, 12))
    for label in ("no", "yes"):
        of_class = Z[y == label]
        unit = of_class.std(0)
        within += np.mean(y == label) * np.outer(unit, unit) * ledoit_wolf((of_class - of_class.mean(0)) / unit)[0]
    direction = np.linalg.solve(within, Z[y == "yes"].mean(0) - Z[y == "no"].mean(0))
    fitted = as_probe("lda").fit(X, y, folds=[], seed=0).estimator
    np.testing.assert_allclose(fitted[-1].coef_[0], direction, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(fitted[0].transform(X), Z, atol=1e-4)


def test_knn_chooses_k_on_the_folds(rows):
    X, y = rows
    found = as_probe("knn").fit(X, y, folds=folds_of(y), seed=0)
    expected = {}
    for k in (1, 3, 5, 10, 20, 50):
        scores = []
        for train, held in folds_of(y):
            scaler = StandardScaler().fit(X[train])
            model = KNeighborsClassifier(k).fit(scaler.transform(X[train]), y[train])
            scores.append(model.score(scaler.transform(X[held]), y[held]))
        expected[k] = np.mean(scores)
    assert found.regularisation == max(expected, key=expected.get)
    np.testing.assert_allclose(found.cv_scores, list(expected.values()))


def test_sparse_logistic_ranks_on_training_rows_alone(rows):
    """Trap: features ranked on all rows. Ranked inside the folds, noise can't beat a coin."""
    rng = np.random.default_rng(5)
    X, y = rng.standard_normal((60, 3000)).astype(np.float32), np.arange(60) % 2
    honest = as_probe("sparse-logistic").fit(X, y, folds=folds_of(y), seed=0)
    assert max(honest.cv_scores) < -0.6  # log(1/2) is -0.69
    leaked = np.argsort(-np.abs(np.corrcoef(X.T, y)[-1, :-1]))[:16]
    cheating = as_probe("sparse-logistic").fit(X[:, leaked], y, folds=folds_of(y), seed=0)
    assert max(cheating.cv_scores) > -0.45
    X, y = rows
    found = as_probe("sparse-logistic").fit(X, y, folds=folds_of(y), seed=0)
    assert found.estimator[2].get_support()[2]


def test_knn_asks_no_more_neighbours_than_a_fold_has_rows():
    X, y = np.arange(12.0)[:, None], np.array(["a", "b"] * 6)
    folds = [(np.arange(6), np.arange(6, 12)), (np.arange(6, 12), np.arange(6))]
    assert as_probe("knn").fit(X, y, folds=folds, seed=0).grid == (1.0, 3.0, 5.0)
