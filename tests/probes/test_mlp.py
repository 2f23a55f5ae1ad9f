"""The multi-layer perceptron against GridSearchCV over the same grid and folds, on a few hundred rows."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.compose import TransformedTargetRegressor
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import RidgeCV
from sklearn.model_selection import GridSearchCV, KFold, StratifiedKFold
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from probekit.probes import as_probe, mlp
from probekit.probes.mlp import DECAY_GRID, MOST_FOLDS, WIDTH_GRID

N = 300


@pytest.fixture(scope="module")
def planted():
    """A part that is linear and one that is not, features of very different scale, numbers far from zero."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((N + 2000, 12))
    signal = X[:, 0] + 1.5 * X[:, 1] * X[:, 2]
    y = 5 * (signal + 0.4 * rng.standard_normal(len(X))) + 1000
    return (X * np.logspace(1, -2, 12)).astype(np.float32), y


@pytest.mark.slow
def test_numbers(planted):
    X, y = planted
    folds = list(KFold(5, shuffle=True, random_state=0).split(X[:N]))
    found = as_probe("mlp").fit(X[:N], y[:N], folds=folds, seed=0)
    network = MLPRegressor(max_iter=1000, random_state=0)
    search = GridSearchCV(
        make_pipeline(StandardScaler(), TransformedTargetRegressor(network, transformer=StandardScaler())),
        {
            "transformedtargetregressor__regressor__alpha": DECAY_GRID,
            "transformedtargetregressor__regressor__hidden_layer_sizes": [(width,) for width in WIDTH_GRID],
        },
        cv=folds[:MOST_FOLDS],
    ).fit(X[:N], y[:N])
    chosen, score = search.best_params_, found.estimator.score(X[N:], y[N:])
    assert found.regularisation == chosen["transformedtargetregressor__regressor__alpha"]
    assert score == pytest.approx(search.score(X[N:], y[N:]), abs=0.03)
    assert score > RidgeCV(np.logspace(-2, 4, 7)).fit(X[:N], y[:N]).score(X[N:], y[N:]) + 0.2
    assert found.converged
    np.testing.assert_allclose(found.cv_scores, search.cv_results_["mean_test_score"], atol=1e-6)


@pytest.mark.slow
def test_classes(planted):
    X, numbers = planted
    y = np.array(["high", "low"])[(numbers < np.median(numbers)).astype(int)]
    folds = list(StratifiedKFold(5, shuffle=True, random_state=0).split(X[:N], y[:N]))
    found = as_probe("mlp").fit(X[:N], y[:N], folds=folds, seed=0)
    search = GridSearchCV(
        make_pipeline(StandardScaler(), MLPClassifier(max_iter=1000, random_state=0)),
        {"mlpclassifier__alpha": DECAY_GRID, "mlpclassifier__hidden_layer_sizes": [(width,) for width in WIDTH_GRID]},
        cv=folds[:MOST_FOLDS],
    ).fit(X[:N], y[:N])
    score = found.estimator.score(X[N:], y[N:])
    assert score == pytest.approx(search.score(X[N:], y[N:]), abs=0.03)
    assert score > 0.75


def test_the_edge_of_the_grid_is_one_of_decays_and_not_of_pairs():
    from probekit.probes.result import at_edge

    grid = [decay for decay in DECAY_GRID for _ in WIDTH_GRID]
    assert [at_edge(k, grid) for k in range(len(grid))] == [k < 2 or k >= len(grid) - 2 for k in range(len(grid))]
    assert not at_edge(0, (1.0, 1.0))


def test_a_fit_that_is_cut_short_says_so_and_is_quiet(planted, monkeypatch, recwarn):
    X, y = planted
    monkeypatch.setattr(mlp, "MAX_EPOCHS", 3)
    folds = list(KFold(5).split(X[:N]))
    assert not as_probe("mlp").fit(X[:N], y[:N], folds=folds, seed=0).converged
    assert not [warning for warning in recwarn if issubclass(warning.category, ConvergenceWarning)]


def test_many_rows_stop_early(planted, monkeypatch):
    X, y = planted
    monkeypatch.setattr(mlp, "EARLY_STOPPING_ROWS", N)
    fitted = [
        mlp.fit_mlp(X[:n], y[:n], folds=list(KFold(2).split(X[:n])), seed=0, grid=(1.0,)).estimator for n in (N, N - 1)
    ]
    stopped, whole = fitted
    assert stopped[-1].regressor_.early_stopping
    assert not whole[-1].regressor_.early_stopping
