"""Every kind of probe can be fitted once more on other rows, with all that was chosen for it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import KFold, StratifiedKFold

from probekit.probes import PROBES, as_probe
from probekit.probes.grid_search import fit_once
from probekit.probes.multilabel import fit_columns
from tests.contracts.probes import quick_mlp, tokens_of

CHOSEN = {
    "logistic": lambda estimator: estimator[-1].C,
    "ridge": lambda estimator: estimator[-1].alpha,
    "knn": lambda estimator: estimator[-1].n_neighbors,
    "sparse-logistic": lambda estimator: estimator[2].k,
    "lda": lambda estimator: estimator[-1].shrinkage,
    "mlp-torch": lambda estimator: estimator.get_params(),
    "attention": lambda estimator: estimator.get_params(),
    "mass-mean": lambda estimator: estimator.metric,
    "mass-mean-iid": lambda estimator: estimator.priors.tolist(),
}


def network(estimator):
    """The settings of an MLP for classes or for numbers."""
    last = getattr(estimator[-1], "regressor", estimator[-1])
    return last.alpha, last.hidden_layer_sizes, last.random_state, last.early_stopping


def rows():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((200, 20)).astype(np.float32)
    return X, X[:, 0] + 0.5 * rng.standard_normal(200)


@pytest.fixture(autouse=True)
def quick():
    with quick_mlp():
        yield


@pytest.mark.parametrize(("probe", "task"), [(name, task) for name, kind in PROBES.items() for task in kind.tasks])
def test_all_that_was_chosen_is_kept(probe, task):
    X, numbers = rows()
    X = tokens_of(X) if as_probe(probe).of_tokens else X
    y = numbers if task == "regression" else np.where(numbers > 0, "b", "a")
    folds = list(KFold(4).split(X[:150]) if task == "regression" else StratifiedKFold(4).split(X[:150], y[:150]))
    first = as_probe(probe).fit(X[:150], y[:150], folds=folds, seed=3).estimator
    again = as_probe(probe).refit(first, X, y, seed=3).estimator
    chosen = CHOSEN.get(probe, network)
    assert chosen(again) == chosen(first)
    whole = np.std(getattr(X, "values", X)[:, 4], dtype=float)
    if hasattr(again, "steps") and hasattr(again[0], "scale_"):
        assert again[0].scale_[4] == pytest.approx(whole, rel=1e-5)  # the scaler saw all rows
        assert first[0].scale_[4] != pytest.approx(whole, rel=1e-5)
    np.testing.assert_array_equal(again.predict(X), as_probe(probe).refit(first, X, y, seed=3).estimator.predict(X))


def test_each_label_keeps_its_own():
    X, _ = rows()
    rng = np.random.default_rng(1)
    noisy = [X[:, k] + noise * rng.standard_normal(200) > 0 for k, noise in enumerate((0.1, 1.0, 5.0))]
    Y = np.column_stack([*noisy, np.zeros(200), np.arange(200) >= 150]).astype(int)
    folds = list(KFold(4).split(X[:150]))
    first = as_probe("logistic").fit_labels(X[:150], Y[:150], folds=folds, seed=0).estimator
    again = as_probe("logistic").refit(first, X, Y, seed=0).estimator
    C = [estimator[-1].C for estimator in first.estimators_[:3]]
    assert len(set(C)) > 1
    assert [estimator[-1].C for estimator in again.estimators_[:3]] == C
    assert all(isinstance(estimator, DummyClassifier) for estimator in again.estimators_[3:])
    assert (again.predict(X)[:, 3:] == 0).all()  # nothing was chosen for a label that the first fit never saw
    assert again.estimators_[0][0].mean_[2] == pytest.approx(X[:, 2].mean(dtype=float), rel=1e-4)


def test_labels_that_are_all_constant_have_no_probe():
    X, Y = np.random.default_rng(0).standard_normal((20, 3)), np.tile([1, 0], (20, 1))
    fitted = as_probe("logistic").fit_labels(X, Y, folds=list(KFold(4).split(X)), seed=0)
    assert np.isnan(fitted.regularisation)
    assert fitted.estimator.predict(X).tolist() == Y.tolist()


@pytest.mark.parametrize("n_bad", [0, 1, 2])
def test_what_is_wrong_with_one_label_is_said_of_all(n_bad):
    X, Y = np.eye(4), np.array([[0, 1], [0, 1], [1, 0], [1, 0]])

    def fit(X, y, **_):
        bad = n_bad == 2 or (n_bad == 1 and y[0] == 1)
        return replace(fit_once(LogisticRegression(), X, y), grid_edge=bad, converged=not bad)

    found = fit_columns(fit, X, Y, folds=(), seed=0)
    assert (found.grid_edge, found.converged) == (n_bad > 0, n_bad == 0)
