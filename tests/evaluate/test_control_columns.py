"""Every control against an independent calculation with scikit-learn and plain NumPy."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from scipy.stats import rankdata
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from probekit.errors import SpecError
from probekit.evaluate.controls import CONTROLS, control_names
from probekit.evaluate.mdl import block_ends, online_code_bits
from probekit.splits import Column, inner_folds, make_splits
from tests.evaluate.made_up import ask, classes, grid_search, made_up, numbers

NEW = ["length_baseline", "conditional", "mdl_bits", "compression", "random_model"]


@pytest.fixture(scope="module")
def asked():
    states, labels = made_up()
    random, _ = made_up(seed=7)
    n_tokens = np.array([{"ab": 5, "cd": 9, "ef": 9}[label] for label in labels], dtype=np.int32)
    n_tokens += np.random.default_rng(0).integers(0, 3, 300).astype(np.int32)
    target = classes(labels)
    table = ask(states, target, controls=CONTROLS, n_tokens=n_tokens, random=random).table
    (split,) = make_splits(target, ids=np.arange(300).astype(str))
    folds = inner_folds(target.codes[split.train], stratify=True, groups=None, seed=0)
    return states, random, n_tokens, labels, table, split, folds


def searched_score(X, labels, split, folds):
    search = grid_search(X, labels, split, folds)
    return np.mean(search.predict(X[split.test]) == labels[split.test])


def test_length_alone(asked):
    _, _, n_tokens, labels, table, split, folds = asked
    X = np.column_stack([np.log(n_tokens), n_tokens])
    expected = searched_score(X, labels, split, folds)
    assert table["length_baseline"].tolist() == pytest.approx([expected] * 3, abs=1e-12)
    assert expected > table["baseline"][0] + 0.1


def test_conditional_is_both_layers_minus_the_first(asked):
    states, _, _, labels, table, split, folds = asked
    assert np.isnan(table["conditional"][0])
    for layer in (1, 2):
        both = searched_score(np.hstack([states[0], states[layer]]), labels, split, folds)
        assert table["conditional"][layer] == pytest.approx(both - table["score"][0], abs=1e-12)
    assert table["conditional"][2] > 0.2


def test_conditional_is_empty_without_layer_0():
    from probekit.evaluate.config import ProbeConfig, StateSource
    from probekit.evaluate.run import evaluate
    from tests.evaluate.made_up import ORIGIN, Arrays

    states, labels = made_up(n=120)
    source = StateSource("mean", (1, 2), frozenset(), Arrays(states))
    question = ProbeConfig(ids=np.arange(120).astype(str), controls=("conditional",))
    assert evaluate([source], [classes(labels)], question, origin=ORIGIN).table["conditional"].isna().all()


def test_mdl_against_a_loop(asked):
    states, _, _, labels, table, split, _ = asked
    y = labels[split.train]
    ends = [1, 2, 3, 6, 12, 24, 48, 96, 192]  # 192 training rows
    assert len(y) == 192
    for layer in range(3):
        X = states[layer][split.train]
        bits = np.log2(3) + np.log2(8)  # the first row by the uniform code; which of eight C
        for t, end in pairwise(ends):
            seen = sorted(set(y[:t]))
            model = None
            if len(seen) > 1:
                C = table["regularisation"][layer]
                model = make_pipeline(StandardScaler(), LogisticRegression(C=C, max_iter=1000)).fit(X[:t], y[:t])
            for i in range(t, end):
                if model is None:
                    p = 1 / 3
                else:
                    p = model.predict_proba(X[i : i + 1])[0][seen.index(y[i])] if y[i] in seen else 0.0
                bits -= np.log2((t * p + 1) / (t + 3))
        assert table["mdl_bits"][layer] == pytest.approx(bits, rel=1e-5)
        assert table["compression"][layer] == pytest.approx(192 * np.log2(3) / bits, rel=1e-5)
    assert table["mdl_bits"].is_monotonic_decreasing
    assert table["compression"][0] < 1.05
    assert table["compression"][2] > 1.5


def test_the_online_code_is_a_code():
    """The probabilities of all possible continuations add up to one (Kraft's inequality with equality)."""
    from itertools import product

    X = np.arange(5.0)[:, None]
    total = sum(
        2.0 ** -online_code_bits(X, np.array(codes), 3, fit=lambda a, b: LogisticRegression().fit(a, b))
        for codes in product(range(3), repeat=5)
    )
    assert total == pytest.approx(1)
    assert block_ends(5) == [1, 3, 5]


def test_the_random_model_is_probed_alike(asked):
    _, random, _, labels, table, _, _ = asked
    alone = ask(random, classes(labels)).table
    assert table["random_model"].tolist() == alone["score"].tolist()


@pytest.mark.parametrize("grouped", [pytest.param(False, marks=pytest.mark.slow), True])
def test_p_values_against_plain_resampling(grouped):
    states, labels = made_up(n=200, layers=4)
    group = Column("doc", (np.arange(200) // 4).astype(str).astype(object)) if grouped else None
    target = classes(labels)
    table = ask(states, target, groups=group).table
    best = int(np.flatnonzero(table["selected"])[0])
    (split,) = make_splits(target, ids=np.arange(200).astype(str), groups=group)
    folds = inner_folds(
        target.codes[split.train], stratify=True, groups=group.values[split.train] if grouped else None, seed=0
    )
    right = []
    for X in states:
        search = grid_search(X, labels, split, folds)
        right.append(search.predict(X[split.test]) == labels[split.test])
    units = [np.array([i]) for i in range(len(split.test))]
    if grouped:
        of_row = group.values[split.test]
        units = [np.flatnonzero(of_row == name) for name in np.unique(of_row)]
    rng = np.random.default_rng(split.seed)
    drawn = [np.concatenate([units[u] for u in rng.integers(0, len(units), len(units))]) for _ in range(1000)]
    raw = {}
    for layer in range(4):
        if layer != best:
            difference = np.array([right[layer][rows].mean() - right[best][rows].mean() for rows in drawn])
            raw[layer] = min(1.0, 2 * (1 + min((difference <= 0).sum(), (difference >= 0).sum())) / 1001)
    ranks = rankdata(list(raw.values()), method="ordinal")
    for layer, p in raw.items():  # Holm: the largest of all smaller p's, each times how many are left
        corrected = max(
            min(1.0, q * (len(raw) - rank + 1)) for q, rank in zip(raw.values(), ranks, strict=True) if q <= p
        )
        assert table["p_vs_best"][layer] == pytest.approx(corrected), layer
    assert np.isnan(table["p_vs_best"][best])
    assert table["p_vs_best"][0] < 0.01


def test_many_layers_still_get_small_p_values():
    """Trap: with 1,000 draws and 30 comparisons Holm's smallest p-value is 0.06."""
    rng = np.random.default_rng(0)
    y = np.arange(100) % 2
    states = [rng.standard_normal((100, 2)) for _ in range(30)] + [y[:, None] + 0.1 * rng.standard_normal((100, 2))]
    table = ask(states, classes(np.array(["a", "b"], dtype=object)[y])).table
    assert table["selected"][30]
    assert table["p_vs_best"][:30].max() < 0.05


def test_what_was_not_asked_for_or_does_not_apply_is_empty():
    states, labels = made_up(n=120)
    assert ask(states, classes(labels)).table[[*NEW, "control", "selectivity"]].isna().all(axis=None)
    height = ask(states, numbers(np.arange(120.0)), controls=CONTROLS, n_tokens=np.arange(1, 121)).table
    assert height[["mdl_bits", "compression"]].isna().all(axis=None)
    assert height["length_baseline"][0] == pytest.approx(1.0, abs=0.01)
    assert height["control"].notna().all()


def test_names():
    assert control_names(True) == CONTROLS
    assert control_names(False) == ()
    with pytest.raises(SpecError, match="--control mld: one of shuffled, length, conditional, mdl"):
        control_names("length,mld")
