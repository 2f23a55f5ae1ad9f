"""The health of the features against independent NumPy, and the warning about attention sinks."""

from __future__ import annotations

import numpy as np
import pytest

from probekit.evaluate.config import StateSource
from probekit.evaluate.diagnostics import feature_health
from probekit.evaluate.geometry import effective_rank, linear_cka, mean_pair_cosine
from probekit.spec import HEALTH_COLUMNS
from tests.evaluate.made_up import Arrays, ask, classes, made_up, source_of


def independent(X, previous):
    """Each number another way: singular values of the centred rows, kernels instead of covariances."""
    X = X.astype(np.float64)
    centred = X - X.mean(axis=0)
    shares = np.linalg.svd(centred, compute_uv=False) ** 2
    shares = shares[shares > 1e-12 * shares.max()] / shares.sum()
    cka = np.nan
    if previous is not None:
        n = len(X)
        centring = np.eye(n) - 1 / n
        K = centring @ (X @ X.T) @ centring
        L = centring @ (previous.astype(np.float64) @ previous.astype(np.float64).T) @ centring
        cka = np.trace(K @ L) / np.sqrt(np.trace(K @ K) * np.trace(L @ L))
    return {
        "max_abs": np.abs(X).max(),
        "top_dimension": (X.var(axis=0) / X.var(axis=0).sum()).max(),
        "effective_rank": np.prod(shares**-shares),
        "cka_previous": cka,
    }


@pytest.mark.parametrize("n", [60, 300])
def test_numbers(n):
    rng = np.random.default_rng(0)
    base = rng.standard_normal((n, 100)) * np.linspace(0.1, 30, 100)
    states = [base.astype(np.float32), (base + 20 * rng.standard_normal((n, 100)) + 3).astype(np.float16)]
    table = feature_health([source_of(states)])
    assert list(table.columns) == list(HEALTH_COLUMNS)
    for k, row in enumerate(table.to_dict("records")):
        for name, value in independent(states[k], states[k - 1] if k else None).items():
            np.testing.assert_allclose(row[name], value, rtol=1e-6, err_msg=name)
        unit = states[k].astype(np.float64)
        unit /= np.linalg.norm(unit, axis=1, keepdims=True)
        every_pair = (unit @ unit.T)[~np.eye(n, dtype=bool)]
        assert row["cosine"] == pytest.approx(every_pair.mean(), abs=4 * every_pair.std() / np.sqrt(2000))
        assert row["n_nonfinite"] == 0


def test_known_shapes():
    rng = np.random.default_rng(0)
    q, _ = np.linalg.qr(rng.standard_normal((50, 20)))
    q -= q.mean(axis=0)
    assert effective_rank(rng.standard_normal((50, 1)) * np.ones((1, 7))) == pytest.approx(1)
    assert effective_rank(np.vstack([np.eye(9), -np.eye(9)])) == pytest.approx(9)
    turned = 5 * q @ np.linalg.qr(rng.standard_normal((20, 20)))[0]
    assert linear_cka(q, turned) == pytest.approx(1)
    assert np.isnan(linear_cka(q, np.zeros((50, 3))))
    assert np.isnan(effective_rank(np.zeros((5, 3))))
    assert mean_pair_cosine(np.ones((5, 3)), n_pairs=9, seed=0) == pytest.approx(1)
    assert mean_pair_cosine(np.array([[1.0, 0], [0, 1.0]]), n_pairs=9, seed=0) == 0  # never a row with itself
    assert np.isnan(mean_pair_cosine(np.ones((1, 3)), n_pairs=9, seed=0))


def test_what_is_not_finite_is_counted_and_left_out():
    rng = np.random.default_rng(0)
    states = [rng.standard_normal((80, 6)) for _ in range(2)]
    clean = feature_health([source_of([s[5:] for s in states])])
    for row in range(5):
        states[row % 2][row, :2] = [np.inf, np.nan]
    table = feature_health([source_of(states)])
    assert table["n_nonfinite"].tolist() == [6, 4]
    assert table["cka_previous"][1] == pytest.approx(clean["cka_previous"][1])
    assert np.isfinite(table.drop(columns=["pooling", "cka_previous"]).to_numpy(dtype=float)).all()


def test_only_a_sample_is_taken_but_extremes_are_of_all_rows():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((9000, 3)).astype(np.float32)
    X[8999, 1] = 1000.0
    row = feature_health([source_of([X])]).iloc[0]
    assert row["max_abs"] == 1000
    drawn = np.random.default_rng(0).permutation(9000)[:4096]
    assert row["effective_rank"] == pytest.approx(independent(X[drawn], None)["effective_rank"], rel=1e-6)


def test_layers_are_read_once_and_let_go():
    class Watched(Arrays):
        def __call__(self, layer):
            read.append(layer)
            return super().__call__(layer)

    read: list[int] = []
    states, _ = made_up(n=50)
    feature_health([StateSource("mean", (0, 1, 2), frozenset(), Watched(states))])
    assert read == [0, 1, 2]


def test_an_attention_sink_is_warned_about():
    states, labels = made_up(n=120)
    sink = np.zeros(12)
    sink[3] = 1e5
    text = "mean pooling at 2 layers: unrelated texts have a cosine of 1.000: an attention sink dominates the mean"
    drowned = [state + sink for state in states]
    assert any(text in warning for warning in ask(drowned, classes(labels)).warnings)
    assert not any("sink" in warning for warning in ask(states, classes(labels)).warnings)
    only_embeddings = [drowned[0], *states[1:]]
    assert not any("sink" in warning for warning in ask(only_embeddings, classes(labels)).warnings)
