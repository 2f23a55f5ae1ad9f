"""Few-shot curves and MTEB's protocol against independent implementations."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import r2_score
from sklearn.preprocessing import StandardScaler

from probekit.errors import InputError, SpecError
from probekit.evaluate.config import ProbeConfig
from probekit.evaluate.few_shot import MTEB, PROTOCOLS, Shots, few_shots
from probekit.spec import SHOT_COLUMNS
from probekit.splits import Column, make_splits
from tests.evaluate.made_up import ORIGIN, classes, made_up, numbers, source_of


def question_for(n, **options):
    return ProbeConfig(ids=np.arange(n).astype(str).astype(object), **options)


def test_the_curve_against_a_loop():
    states, labels = made_up()
    target, question = classes(labels), question_for(300)
    table = few_shots([source_of(states)], [target], question, shots=Shots((1, 4, 16), 5), origin=ORIGIN)
    assert list(table.columns) == list(SHOT_COLUMNS)
    (split,) = make_splits(target, ids=question.ids)
    rows = iter(table.to_dict("records"))
    for layer in range(3):
        for k in (1, 4, 16):
            scores = []
            for draw in range(5):
                order = np.random.default_rng([0, draw]).permutation(split.train)
                chosen = [i for name in ("ab", "cd", "ef") for i in [j for j in order if labels[j] == name][:k]]
                scaler = StandardScaler().fit(states[layer][chosen])
                model = LogisticRegression(max_iter=1000)
                model.fit(scaler.transform(states[layer][chosen]), labels[chosen])
                predicted = model.predict(scaler.transform(states[layer][split.test]))
                scores.append(np.mean(predicted == labels[split.test]))
            row = next(rows)
            assert (row["layer"], row["shots"], row["draws"]) == (layer, k, 5)
            expected = [np.mean(scores), np.std(scores, ddof=1), *np.percentile(scores, [2.5, 97.5])]
            np.testing.assert_allclose([row["mean"], row["sd"], row["low"], row["high"]], expected, atol=1e-12)
    assert table["mean"].iloc[-1] > table["mean"].iloc[-3]


def test_draws_are_nested_balanced_and_from_the_training_rows():
    _, labels = made_up()
    target, question = classes(labels), question_for(300, seeds=(0, 1))
    fits = PROTOCOLS["probekit"](target, question, Shots((2, 8), 3))
    splits = make_splits(target, ids=question.ids, seeds=(0, 1))
    for split in splits:
        of_split = [fit for fit in fits if fit.split.seed == split.seed]
        assert all(fit.split.test.tolist() == split.test.tolist() for fit in of_split)
        few, more = ([fit.train for fit in of_split if fit.role == k] for k in ("2", "8"))
        assert len(few) == len(more) == 3
        for a, b in zip(few, more, strict=True):
            assert set(a) < set(b) < set(split.train)
            assert np.bincount(target.codes[b]).tolist() == [8, 8, 8]
        assert len({tuple(sorted(rows)) for rows in few}) == 3


def test_numbers():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((100, 5))
    y = X[:, 0] * 3
    target, question = numbers(y), question_for(100)
    table = few_shots([source_of([X])], [target], question, shots=Shots((40,), 2), origin=ORIGIN)
    (split,) = make_splits(target, ids=question.ids)
    scores = []
    for draw in range(2):
        rows = np.random.default_rng([0, draw]).permutation(split.train)[:40]
        scaler = StandardScaler().fit(X[rows])
        model = Ridge(alpha=5).fit(scaler.transform(X[rows]), y[rows])
        scores.append(r2_score(y[split.test], model.predict(scaler.transform(X[split.test]))))
    assert table["mean"][0] == pytest.approx(np.mean(scores))
    assert (table["probe"][0], table["metric"][0]) == ("ridge", "r2")


def mteb_score(X, y, train, test):
    """What mteb does: embeddings of the train and test split, ten experiments of eight samples per label."""
    X = X / np.sqrt((X**2).sum(axis=1, keepdims=True))
    X_train, y_train = X[train], [y[i] for i in train]
    indices, scores = list(range(len(train))), []
    for _ in range(10):
        np.random.RandomState(42).shuffle(indices)
        counter, sampled = defaultdict(int), []
        for i in indices:
            if counter[y_train[i]] < 8:
                sampled.append(i)
                counter[y_train[i]] += 1
        model = LogisticRegression(random_state=42, max_iter=100).fit(X_train[sampled], [y_train[i] for i in sampled])
        scores.append(np.mean(model.predict(X[test]) == y[test]))
    return np.mean(scores)


@pytest.mark.parametrize("parts", [("train", "test"), ("train", "dev", "test")])
def test_mteb_protocol_against_a_reimplementation(parts):
    rng = np.random.default_rng(0)
    y = np.array([f"c{i}" for i in rng.integers(0, 5, 500)], dtype=object)
    X = rng.standard_normal((500, 8)) + 1.0
    X[np.arange(500), [int(name[1]) for name in y]] += 1.5
    X = (X * rng.uniform(0.5, 20, (500, 1))).astype(np.float32)  # lengths that mean nothing
    column = np.array(parts, dtype=object)[rng.integers(0, len(parts), 500)]
    question = question_for(500, split=Column("split", column))
    table = few_shots([source_of([X])], [classes(y)], question, shots=MTEB, origin=ORIGIN)
    expected = mteb_score(X, y, np.flatnonzero(column == "train"), np.flatnonzero(column == "test"))
    assert table["mean"][0] == pytest.approx(expected, abs=1e-12)
    assert 0.4 < expected < 0.95
    assert table[["protocol", "shots", "draws"]].values.tolist() == [["mteb", 8, 10]]


def test_what_can_not_be_drawn_says_so():
    states, labels = made_up(n=60)
    ask = [source_of(states)], [classes(labels)], question_for(60)
    with pytest.raises(InputError, match=r"--shots 32: class ab has \d+ training rows"):
        few_shots(*ask, shots=Shots((1, 32)), origin=ORIGIN)
    with pytest.raises(SpecError, match="--shots, --draws: numbers from 1"):
        few_shots(*ask, shots=Shots((0,)), origin=ORIGIN)
    with pytest.raises(SpecError, match="--protocol mteb: is for classes; column 'height' holds numbers"):
        few_shots(ask[0], [numbers(np.arange(60.0))], ask[2], shots=MTEB, origin=ORIGIN)
