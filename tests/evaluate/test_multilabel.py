"""Several labels per row: against scikit-learn, one label at a time."""

from __future__ import annotations

import json

import numpy as np
import pytest
from sklearn.metrics import f1_score, precision_recall_fscore_support, roc_auc_score

from probekit.errors import InputError
from probekit.splits import inner_folds, make_splits
from probekit.tasks.labels import label_probability
from probekit.tasks.read import read_target
from tests.evaluate.made_up import ask, grid_search

NAMES = ["calm", "fear", "joy"]


def lists(matrix):
    return np.array([json.dumps([NAMES[k] for k in np.flatnonzero(row)]) for row in matrix], dtype=object)


def made_up(n=240, seed=0):
    rng = np.random.default_rng(seed)
    Y = (rng.random((n, 3)) < [0.6, 0.3, 0.1]).astype(int)
    states = [
        (rng.standard_normal((n, 8)) + layer * np.pad(Y, ((0, 0), (0, 5)))).astype(np.float32) for layer in (0, 1.5)
    ]
    return states, Y


def target_of(Y, **options):
    return read_target(lists(Y), "mood", ids=range(len(Y)), **options)


def test_rows_equal_one_grid_search_per_label():
    states, Y = made_up()
    target = target_of(Y)
    assert target.task.name == "multilabel"
    assert target.classes.tolist() == NAMES
    found = ask(states, target, refit=False)
    (split,) = make_splits(target, ids=np.arange(len(Y)).astype(str))
    folds = inner_folds(target.y[split.train], stratify=False, groups=None, seed=0)
    for layer, row in found.table.iterrows():
        searches = [grid_search(states[layer].astype(float), y, split, folds) for y in Y.T]
        X, truth = states[layer][split.test], Y[split.test]
        predicted = np.column_stack([search.predict(X) for search in searches])
        probability = np.column_stack([search.predict_proba(X)[:, 1] for search in searches])
        assert row["metric"] == "micro_f1"
        assert row["score"] == row["micro_f1"] == pytest.approx(f1_score(truth, predicted, average="micro"))
        assert row["macro_f1"] == pytest.approx(f1_score(truth, predicted, average="macro"))
        assert row["accuracy"] == pytest.approx(np.mean((truth == predicted).all(axis=1)))
        assert row["auroc"] == pytest.approx(roc_auc_score(truth, probability, average="macro"), abs=2e-3)
        chosen = [search.best_params_["logisticregression__C"] for search in searches]
        assert row["regularisation"] == pytest.approx(np.exp(np.mean(np.log(chosen))))
        always = np.tile((Y[split.train].mean(axis=0) > 0.5).astype(int), (len(truth), 1))
        assert row["baseline"] == pytest.approx(f1_score(truth, always, average="micro"))
        assert row["ci_low"] < row["score"] < row["ci_high"]
        assert row["n_classes"] == 3
    assert found.table["selected"].tolist() == [False, True]
    of_classes = precision_recall_fscore_support(truth, predicted, zero_division=0.0)
    for name, column in zip(("precision", "recall", "f1", "support"), of_classes, strict=True):
        np.testing.assert_allclose(found.classes[name].astype(float), column)
    answers = found.chosen[0].predicted
    assert [sorted(NAMES[k] for k in np.flatnonzero(row)) for row in predicted] == answers.tolist()


def test_the_words_alone_and_the_controls():
    states, Y = made_up()
    texts = [" ".join(["the", *(NAMES[k] for k in np.flatnonzero(row)), f"row{i}"]) for i, row in enumerate(Y)]
    n_tokens = Y.sum(axis=1) + 2
    row = ask(
        states, target_of(Y), texts=texts, n_tokens=n_tokens, controls=("shuffled", "length", "conditional")
    ).table
    assert (row["text_baseline"] > 0.95).all()
    assert (row["control"] < 0.75).all()
    assert row["length_baseline"].notna().all()
    assert row["conditional"][1] > 0.1


def test_a_label_that_training_never_saw_is_never_answered():
    states, Y = made_up()
    (split,) = make_splits(target_of(Y), ids=np.arange(len(Y)).astype(str))
    Y[:, 2] = 0
    Y[split.test[:5], 2] = 1
    found = ask(states, target_of(Y))
    assert found.classes.set_index("class").loc["joy", "recall"] == 0
    probability = label_probability(found.chosen[0].estimator, states[1])
    assert (probability[:, 2] == 0).all()
    assert (probability[:, :2] > 0).all()
    assert (found.table["score"] > 0.5).any()


@pytest.mark.parametrize("probe", ["mass-mean", "lda", "knn"])
def test_other_probes(probe):
    states, Y = made_up()
    row = ask(states, target_of(Y), probes=(probe,)).table
    assert row["score"][1] > row["score"][0]
    assert row["auroc"][1] > 0.7


def test_what_is_no_set_of_labels():
    def read(*cells, task="auto"):
        return read_target(np.array(cells, dtype=object), "mood", ids=["r1", "r2"], task=task)

    with pytest.raises(InputError, match=r"example r2, column 'mood': every label once, none empty; got \['a', 'a'\]"):
        read('["a"]', '["a","a"]')
    with pytest.raises(InputError, match=r"at least two labels to tell apart; got a"):
        read('["a"]', "[]")
    with pytest.raises(InputError, match=r"several labels per row are JSON lists, as .*; got"):
        read("a", "b", task="multilabel")
    assert read("[a", "b]").task.name == "classification"
    with pytest.raises(InputError, match=r"several labels per row are JSON lists, as .*; got .*'food'"):
        read("['food', 'sport']", "['food']")
    assert read('["a"]', '["b"]', task="classification").task.name == "classification"
    assert read("[3]", "[4, 5]").classes.tolist() == ["3", "4", "5"]
