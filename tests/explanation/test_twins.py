"""Torch twins compute what scikit-learn does, for every kind of probe that has one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import expit, logit
from sklearn.decomposition import PCA
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.multioutput import MultiOutputClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from probekit.errors import SpecError
from probekit.explanation.twins import CERTAIN, ClassOdds, has_twin, torch_twin
from probekit.heads.estimators import HeadClassifier, HeadRegressor
from probekit.heads.modules import Ragged
from probekit.probes import PROBES
from probekit.probes.multilabel import fit_columns
from probekit.ragged import RaggedArray

N, D = 120, 12
FOLDS = [(np.arange(0, 80), np.arange(80, N)), (np.arange(40, N), np.arange(0, 40))]
NO_TWIN = {"knn"}
OF_CLASSES = [name for name, probe in PROBES.items() if "classification" in probe.tasks and not probe.of_tokens]
OF_NUMBERS = [name for name, probe in PROBES.items() if "regression" in probe.tasks and not probe.of_tokens]


def states(seed=0):
    return (np.random.default_rng(seed).normal(size=(N, D)) * 3 + 1).astype(np.float32)


def labels(X, n_classes, seed=1):
    noise = np.random.default_rng(seed).normal(size=(N, n_classes))
    return np.array(list("dcba"))[np.argmax(X[:, :n_classes] + noise, axis=1)]


def fitted(name, y, X=None):
    return PROBES[name].fit(states() if X is None else X, y, folds=FOLDS, seed=0).estimator


@pytest.mark.parametrize("n_classes", [2, 4])
@pytest.mark.parametrize("name", sorted(set(OF_CLASSES) - NO_TWIN))
def test_log_odds_of_classes_are_those_of_scikit_learns_probabilities(name, n_classes):
    X = states()
    estimator = fitted(name, labels(X, n_classes))
    new = states(seed=5)
    got = torch_twin(estimator, name)(torch.from_numpy(new))
    assert got.dtype == torch.float64
    p = estimator.predict_proba(new)
    np.testing.assert_allclose(expit(got.numpy()), p, atol=1e-5)
    clear = (p > 1e-3) & (p < 1 - 1e-3)  # (scikit-learn computes in float32)
    np.testing.assert_allclose(got.numpy()[clear], logit(p[clear]), atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("name", sorted(set(OF_NUMBERS) - NO_TWIN))
def test_numbers_are_those_that_scikit_learn_predicts(name):
    X = states()
    y = 100 + 7 * X @ np.random.default_rng(3).normal(size=D)
    estimator = fitted(name, y)
    new = states(seed=5)
    got = torch_twin(estimator, name)(torch.from_numpy(new)).numpy()[:, 0]
    np.testing.assert_allclose(got, estimator.predict(new), atol=1e-5 * np.abs(y).max())


@pytest.mark.parametrize("whiten", [False, True])
def test_a_users_pca_has_a_twin(whiten):
    X = states()
    mine = make_pipeline(StandardScaler(), PCA(4, whiten=whiten), LogisticRegression())
    mine.fit(X, labels(X, 3))
    got = torch_twin(mine, "mine")(torch.from_numpy(X)).numpy()
    np.testing.assert_allclose(expit(got), mine.predict_proba(X), atol=1e-5)


@pytest.mark.parametrize("name", ["logistic", "lda"])
def test_labels_have_log_odds_of_their_own_the_constant_ones_too(name):
    X = states()
    rng = np.random.default_rng(4)
    Y = (X[:, :3] + rng.normal(size=(N, 3)) > 1).astype(int)
    Y = np.column_stack([Y, np.ones(N, int), np.zeros(N, int)])
    estimator = fit_columns(PROBES[name].fit, X, Y, folds=FOLDS, seed=0).estimator
    assert isinstance(estimator, MultiOutputClassifier)
    got = torch_twin(estimator, name)(torch.from_numpy(X)).numpy()
    for k in range(3):
        np.testing.assert_allclose(expit(got[:, k]), estimator.estimators_[k].predict_proba(X)[:, 1], atol=1e-5)
    np.testing.assert_array_equal(got[:, 3:], np.tile([CERTAIN, -CERTAIN], (N, 1)))


def test_attention_over_tokens_has_a_twin():
    rng = np.random.default_rng(0)
    lengths = rng.integers(2, 6, size=40)
    values = rng.normal(size=(int(lengths.sum()), D)).astype(np.float32)
    X = RaggedArray(values, np.concatenate([[0], np.cumsum(lengths)]))
    y = rng.integers(0, 2, size=40)
    for estimator in (HeadClassifier("attention", epochs=3).fit(X, y), HeadRegressor("attention", epochs=3).fit(X, y)):
        read = Ragged(torch.from_numpy(values), torch.from_numpy(lengths))
        got = torch_twin(estimator, "attention")(read).numpy()
        if hasattr(estimator, "predict_proba"):
            np.testing.assert_allclose(expit(got), estimator.predict_proba(X), atol=1e-6)
        else:
            np.testing.assert_allclose(got[:, 0], estimator.predict(X), atol=1e-6)


def test_log_odds_have_gradients_where_probabilities_have_none():
    x = torch.tensor([[0.0, 60.0]], dtype=torch.float64, requires_grad=True)
    p = torch.softmax(x, 1)[0, 1]
    (of_probability,) = torch.autograd.grad(p, x)
    (of_odds,) = torch.autograd.grad(ClassOdds()(x)[0, 1], x)
    assert of_probability.abs().max() < 1e-20
    assert of_odds.tolist() == [[-1.0, 1.0]]


def test_a_kind_without_a_twin_is_named():
    X = states()
    knn = fitted("knn", labels(X, 2))
    assert not has_twin(knn)
    with pytest.raises(SpecError, match=r"probe knn: has a gradient for .*; got KNeighborsClassifier"):
        torch_twin(knn, "probe knn")


def test_a_probe_of_rows_that_are_all_alike_answers_always_the_same():
    estimator = DummyClassifier().fit(states(), np.array(["a"] * 90 + ["b"] * 30))
    x = torch.from_numpy(states()).requires_grad_(True)
    got = torch_twin(estimator, "dummy")(x)
    np.testing.assert_allclose(expit(got.detach().numpy()), np.tile([0.75, 0.25], (N, 1)), atol=1e-9)
    (slope,) = torch.autograd.grad(got.sum(), x)
    assert not slope.any()
