"""The transfer matrix against plain scikit-learn and against the layer table."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from probekit.errors import InputError
from probekit.evaluate.config import ProbeConfig
from probekit.evaluate.transfer import Domain, transfer
from probekit.spec import TRANSFER_COLUMNS
from probekit.splits import Column, make_splits
from tests.evaluate.made_up import ask, classes, made_up, numbers, source_of


def domain(name, seed, n, best=2, **options):
    states, labels = made_up(n=n, seed=seed)
    states[best], states[2] = states[2], states[best]
    ids = np.arange(n).astype(str).astype(object)
    return Domain(name, source_of(states), classes(labels), ProbeConfig(ids=ids, **options)), states, labels


def test_the_matrix():
    a, states_a, labels_a = domain("a", 0, 240)
    b, states_b, labels_b = domain("b", 1, 180, best=1)
    table = transfer([a, b], model="m")
    assert list(table.columns) == list(TRANSFER_COLUMNS)
    assert len(table) == 2 * 2 * 3
    score = table.set_index(["layer", "trained_on", "tested_on"])
    for part, states, labels in ((a, states_a, labels_a), (b, states_b, labels_b)):
        alone = ask(states, classes(labels)).table
        own = table[(table["trained_on"] == part.name) & (table["tested_on"] == part.name)]
        for column in ("score", "ci_low", "ci_high", "selected", "n_train", "n_test"):
            assert own[column].tolist() == alone[column].tolist(), column
        both = table[(table["trained_on"] == part.name) & table["selected"]]
        assert both["layer"].tolist() == ([2, 2] if part is a else [1, 1])  # whatever it is tested on
        assert both["tested_on"].tolist() == ["a", "b"]
    split_a, split_b = (make_splits(d.target, ids=d.config.ids)[0] for d in (a, b))
    C = ask(states_a, classes(labels_a)).table["regularisation"]
    for layer in range(3):
        probe = make_pipeline(StandardScaler(), LogisticRegression(C=C[layer], max_iter=5000, tol=1e-6))
        probe.fit(states_a[layer][split_a.train], labels_a[split_a.train])
        expected = np.mean(probe.predict(states_b[layer][split_b.test]) == labels_b[split_b.test])
        assert score.loc[(layer, "a", "b"), "score"] == pytest.approx(expected, abs=1e-12)


def test_seeds_and_groups():
    group = Column("doc", (np.arange(150) // 5).astype(str).astype(object))
    a, states, labels = domain("a", 0, 150, groups=group, seeds=(0, 1))
    b, _, _ = domain("b", 1, 150, groups=group, seeds=(0, 1))
    table = transfer([a, b], model="m")
    own = table[(table["trained_on"] == "a") & (table["tested_on"] == "a")]
    alone = ask(states, classes(labels), groups=group, seeds=(0, 1)).table
    for column in ("score", "ci_low", "ci_high", "selected"):
        np.testing.assert_allclose(own[column].astype(float), alone[column].astype(float))


def test_targets_must_agree():
    a, states, labels = domain("a", 0, 60)
    other = Domain("b", source_of(states), classes(np.where(labels == "ab", "xy", labels)), a.config)
    with pytest.raises(InputError, match="target 'label' of b: must have the classes of a: ab, cd, ef; got cd, ef, xy"):
        transfer([a, other], model="m")
    height = Domain("c", source_of(states), numbers(np.arange(60.0)), a.config)
    with pytest.raises(InputError, match="target 'height' of c: must be classification as in a; got regression"):
        transfer([a, height], model="m")
