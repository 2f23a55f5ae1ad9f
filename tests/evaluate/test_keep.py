"""The kept probe is fitted on train and validation; the table's scores are of the fit on train alone."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from probekit.splits import make_splits
from tests.evaluate.made_up import ask, classes, made_up, numbers
from tests.evaluate.test_multilabel import lists, target_of
from tests.evaluate.test_multilabel import made_up as made_up_labels
from tests.evaluate.test_tagging import ask as ask_tags
from tests.evaluate.test_tagging import plan, sentences, states_of


def test_scores_are_of_the_honest_fit_and_the_probe_of_more_rows():
    states, labels = made_up()
    kept, honest = ask(states, classes(labels)), ask(states, classes(labels), refit=False)
    pd.testing.assert_frame_equal(kept.table, honest.table)
    (a,), (b,) = kept.chosen, honest.chosen
    (split,) = make_splits(classes(labels), ids=np.arange(300).astype(str))
    assert (a.fitted_on, a.n_fitted) == ("train + validation", len(split.train) + len(split.val))
    assert (b.fitted_on, b.n_fitted) == ("train", len(split.train))
    pd.testing.assert_series_equal(pd.Series(a.row), pd.Series(b.row))
    X, rows = states[a.layer], np.concatenate([split.train, split.val])
    model = make_pipeline(StandardScaler(), LogisticRegression(C=a.row["regularisation"], max_iter=5000, tol=1e-7))
    for chosen, learnt in ((a, rows), (b, split.train)):
        model.fit(X[learnt], labels[learnt])
        expected = model.predict_proba(X[split.test])
        np.testing.assert_allclose(chosen.estimator.predict_proba(X[split.test]), expected, atol=2e-3)
        assert chosen.predicted.tolist() == chosen.estimator.predict(X[chosen.test]).tolist()
    assert not np.allclose(a.estimator.predict_proba(X), b.estimator.predict_proba(X), atol=1e-3)


@pytest.mark.parametrize("probe", ["ridge", "knn", pytest.param("mlp", marks=pytest.mark.slow)])
def test_numbers_and_test_rows_are_not_learnt(probe):
    states, _ = made_up(n=80)
    y = states[2][:, 0] + np.random.default_rng(0).standard_normal(80)
    (split,) = make_splits(numbers(y), ids=np.arange(80).astype(str))
    spoiled = y.copy()
    spoiled[split.test] += 1000
    a, b = (ask(states[2:], numbers(values), probes=(probe,)).chosen[0] for values in (y, spoiled))
    np.testing.assert_array_equal(a.predicted, b.predicted)
    assert a.n_fitted == len(split.train) + len(split.val)


def test_several_labels():
    states, Y = made_up_labels()
    kept = ask(states, target_of(Y)).chosen[0]
    (split,) = make_splits(target_of(Y), ids=np.arange(len(Y)).astype(str))
    assert kept.n_fitted == len(split.train) + len(split.val)
    X = states[kept.layer]
    again = kept.estimator.predict(X[kept.test])
    assert [json.dumps(row) for row in kept.predicted] == lists(again).tolist()
    rows = np.concatenate([split.train, split.val])
    assert kept.estimator.estimators_[0][0].mean_[0] == pytest.approx(X[rows, 0].mean(dtype=float), rel=1e-4)


@pytest.mark.parametrize("max_words", [100_000, 150])
def test_tags_keep_the_words_of_training_and_validation_within_the_most(max_words):
    words, tags = sentences()
    layers = states_of(tags)
    kept, honest = (ask_tags(words, tags, layers, max_words=max_words, refit=refit) for refit in (True, False))
    pd.testing.assert_frame_equal(kept.table, honest.table)
    (fit,) = plan(words, tags, max_words=max_words)
    split, learnt = fit.split, fit.keep
    assert set(learnt) <= {*split.train, *split.val}
    assert set(learnt) & set(split.val)
    n_words = sum(len(words[i]) for i in learnt)
    if max_words == 150:
        assert 130 < n_words <= 150
    else:
        assert len(learnt) == len(split.train) + len(split.val)
    (chosen,) = kept.chosen
    assert (chosen.fitted_on, chosen.n_fitted) == ("train + validation", len(learnt))
    X = layers[chosen.layer][fit.target.rows_of(learnt)]
    assert chosen.estimator[0].mean_[0] == pytest.approx(X[:, 0].mean(dtype=float), rel=1e-4)
    test = layers[chosen.layer][fit.target.rows_of(split.test)]
    assert chosen.predicted.tolist() == chosen.estimator.predict(test).tolist()


def test_processes_keep_the_same_probe():
    from joblib.externals.loky import ProcessPoolExecutor

    states, labels = made_up(n=120)
    here = ask(states, classes(labels)).chosen[0]
    with warnings.catch_warnings(), ProcessPoolExecutor(2) as executor:
        there = ask(states, classes(labels), executor=executor).chosen[0]
    np.testing.assert_array_equal(here.estimator[-1].coef_, there.estimator[-1].coef_)


def test_every_seeds_scores_of_every_layer_and_ties_are_in_the_details():
    states, labels = made_up(n=150, layers=3)
    states = [*states, states[2]]  # the last two layers say the same
    found = ask(states, classes(labels), seeds=(0, 1), probes=("logistic", "knn"))
    for choice in found.details["selected"]:
        curve = found.table[found.table["probe"] == choice["probe"]].set_index("layer")
        assert set(choice["val_scores"]) == set(choice["test_scores"]) == {"0", "1", "2", "3"}
        for layer in range(4):
            assert len(choice["val_scores"][str(layer)]) == 2
            assert np.mean(choice["val_scores"][str(layer)]) == pytest.approx(curve["val_score"][layer])
            assert np.mean(choice["test_scores"][str(layer)]) == pytest.approx(curve["score"][layer])
        assert choice["test_scores_by_seed"] == choice["test_scores"][str(choice["layer"])]
        tied = [k for k in range(4) if k != choice["layer"] and curve["val_score"][k] == curve["val_score"].max()]
        assert choice["tied_layers"] == tied
        assert 3 in tied
    json.dumps(found.details, allow_nan=False)


def test_what_the_heading_needs_of_whole_numbers():
    from probekit.tasks.read import read_target
    from tests.evaluate.made_up import numbers as decimals

    rng = np.random.default_rng(0)
    states = [rng.standard_normal((60, 4))]
    priority = read_target(rng.integers(1, 6, 60), "priority", ids=range(60))
    details = ask(states, priority).details["targets"]["priority"]
    assert (details["task"], details["how"]) == ("classification", "guessed from 5 different whole numbers")
    assert (details["otherwise"], len(details["classes"])) == ("regression", 5)
    assert ask(states, decimals(rng.random(60), "height")).details["targets"]["height"]["otherwise"] == ""
