"""The layer table against independent calculations, and the traps of layer-wise probing put back one by one."""

from __future__ import annotations

import gc
import io
import warnings
import weakref
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from rich.console import Console
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, f1_score, log_loss, r2_score, roc_auc_score
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from probekit.errors import InputError, SpecError
from probekit.evaluate.baselines import baseline_places
from probekit.evaluate.config import ProbeConfig, StateSource
from probekit.evaluate.fit import fit_layer
from probekit.evaluate.run import evaluate, plan_fits
from probekit.probes import PROBES
from probekit.probes.logistic import fit_logistic
from probekit.report import table_csv
from probekit.spec import TABLE_COLUMNS
from probekit.splits import Column, inner_folds, make_splits
from tests.evaluate.made_up import ORIGIN, ask, classes, grid_search, made_up, numbers


def test_rows_equal_an_independent_calculation_with_scikit_learn():
    states, labels = made_up()
    target = classes(labels)
    table = ask(states, target).table
    assert list(table.columns) == list(TABLE_COLUMNS)
    assert table["layer"].tolist() == [0, 1, 2]
    assert table["final_norm"].tolist() == [False, False, True]
    (split,) = make_splits(target, ids=np.arange(300).astype(str))
    folds = inner_folds(target.codes[split.train], stratify=True, groups=None, seed=0)
    for layer, row in table.iterrows():
        X = states[layer]
        search = grid_search(X, labels, split, folds)
        assert row["regularisation"] == pytest.approx(search.best_params_["logisticregression__C"])
        predicted, truth = search.predict(X[split.test]), labels[split.test]
        probability = search.predict_proba(X[split.test])
        assert row["score"] == pytest.approx(accuracy_score(truth, predicted), abs=1e-12)
        assert row["macro_f1"] == pytest.approx(f1_score(truth, predicted, average="macro"), abs=1e-12)
        assert row["log_loss"] == pytest.approx(log_loss(truth, probability), abs=2e-3)
        assert row["auroc"] == pytest.approx(roc_auc_score(truth, probability, multi_class="ovr"), abs=2e-3)
        val = accuracy_score(labels[split.val], search.predict(X[split.val]))
        assert row["val_score"] == pytest.approx(val, abs=1e-12)
        assert row["train_score"] == pytest.approx(accuracy_score(labels[split.train], search.predict(X[split.train])))
        commonest = pd.Series(labels[split.train]).mode()[0]
        assert row["baseline"] == pytest.approx(np.mean(truth == commonest))
        assert row["max_abs"] == pytest.approx(np.abs(X).max())
    assert table["delta_layer0"].tolist() == pytest.approx((table["score"] - table["score"][0]).tolist())
    assert table.loc[table["val_score"].idxmax(), "selected"]
    assert table["selected"].sum() == 1


def test_regression_rows_equal_an_independent_calculation():
    rng = np.random.default_rng(1)
    states = [rng.standard_normal((200, 6)), rng.standard_normal((200, 6))]
    y = 1000 + 5 * states[1][:, 0] + rng.standard_normal(200)
    target = numbers(y)
    table = ask(states, target).table
    (split,) = make_splits(target, ids=np.arange(200).astype(str))
    row = table.iloc[1]
    from sklearn.linear_model import Ridge

    model = make_pipeline(StandardScaler(), Ridge(alpha=row["regularisation"])).fit(
        states[1][split.train], y[split.train]
    )
    predicted, truth = model.predict(states[1][split.test]), y[split.test]
    assert row["score"] == row["r2"] == pytest.approx(r2_score(truth, predicted), abs=1e-6)
    assert row["rmse"] == pytest.approx(np.sqrt(np.mean((truth - predicted) ** 2)), rel=1e-6)
    assert row["baseline"] == pytest.approx(r2_score(truth, np.full(len(truth), y[split.train].mean())), abs=1e-9)
    assert pd.isna(row["accuracy"])
    assert pd.isna(row["n_classes"])
    assert table["r2"][0] < 0.2
    assert table["r2"][1] > 0.9


def test_labels_of_test_rows_decide_nothing_but_the_score():
    """Trap: hyper-parameter or layer chosen on test."""
    states, labels = made_up(seed=3)
    target = classes(labels)
    (split,) = make_splits(target, ids=np.arange(300).astype(str))
    column = Column("part", np.full(300, "train", dtype=object))
    column.values[split.val], column.values[split.test] = "val", "test"
    before = ask(states, target, split=column).table
    spoiled = labels.copy()
    spoiled[split.test] = np.roll(labels[split.test], 7)
    after = ask(states, classes(spoiled), split=column).table
    kept = ["regularisation", "val_score", "selected", "train_score", "grid_edge", "converged"]
    pd.testing.assert_frame_equal(before[kept], after[kept])
    assert (before["score"] != after["score"]).any()


def test_states_of_test_and_validation_rows_do_not_move_the_fit():
    """Trap: scaler fitted on all data. Held-out rows moved far away must leave the training score as it was."""
    states, labels = made_up(seed=4)
    target = classes(labels)
    (split,) = make_splits(target, ids=np.arange(300).astype(str))
    before = ask(states, target).table
    moved = [state.copy() for state in states]
    for state in moved:
        state[split.test] += 1e4
        state[split.val] -= 1e4
    after = ask(moved, target).table
    pd.testing.assert_frame_equal(before[["train_score", "regularisation"]], after[["train_score", "regularisation"]])


@pytest.mark.parametrize("n_runs", [20, pytest.param(50, marks=pytest.mark.slow)])
def test_the_layer_is_not_picked_on_test(n_runs):
    """Noise over 24 layers: the interval of the layer chosen on validation covers chance in 90% of the runs or more."""
    covered, best_on_test = 0, []
    for seed in range(n_runs):
        rng = np.random.default_rng(seed)
        states = [rng.standard_normal((200, 5)) for _ in range(24)]
        target = classes(np.array(["x", "y"], dtype=object)[rng.permutation(200) % 2])
        table = ask(states, target, probes=("mass-mean",), refit=False).table  # (the quickest)
        row = table[table["selected"]].iloc[0]
        covered += row["ci_low"] <= 0.5 <= row["ci_high"]
        best_on_test.append(table["score"].max())
    assert covered >= 0.9 * n_runs
    assert np.mean(best_on_test) > 0.57  # what a table that picks on test would print


def test_more_seeds_give_the_mean_and_record_each():
    states, labels = made_up(n=150)
    single = [ask(states, classes(labels), seeds=(seed,)).table["score"].to_numpy() for seed in (0, 1, 2)]
    several = ask(states, classes(labels), seeds=(0, 1, 2))
    np.testing.assert_allclose(several.table["score"], np.mean(single, axis=0))
    assert several.table["seeds"].tolist() == [3, 3, 3]
    (chosen,) = several.details["selected"]
    assert len(chosen["layer_by_seed"]) == 3
    assert len(several.details["splits"]) == 3


def test_groups_stay_together_and_widen_the_interval():
    rng = np.random.default_rng(0)
    group = np.repeat(np.arange(40), 10)
    effect = rng.standard_normal(40)[group]
    states = [np.column_stack([rng.standard_normal(400), effect + 0.1 * rng.standard_normal(400)])]
    y = effect + 0.7 * rng.standard_normal(40)[group]
    column = Column("doc", group.astype(str).astype(object))
    grouped, plain = ask(states, numbers(y), groups=column), ask(states, numbers(y))
    g, p = grouped.table.iloc[0], plain.table.iloc[0]
    assert g["group"] == "doc"
    assert g["n_groups_test"] == pytest.approx(8, abs=3)
    assert pd.isna(p["group"])
    assert g["ci_high"] - g["ci_low"] > 1.5 * (p["ci_high"] - p["ci_low"])


def test_a_split_that_leaks_says_so_in_the_table_the_terminal_and_the_picture():
    from probekit.report import layer_tables
    from probekit.report.facts import layer_facts

    states, labels = made_up(n=150)
    group = Column("doc", np.array([f"d{i % 10}" for i in range(150)], dtype=object))
    own = Column("split", np.array(["train", "train", "dev", "test"], dtype=object)[np.arange(150) % 4])
    leaking = ask(states, classes(labels), groups=group, split=own).table
    clean = ask(states, classes(labels), groups=group).table
    assert set(leaking["n_groups_crossing"]) == {10}
    assert set(clean["n_groups_crossing"]) == {0}
    shown = {}
    for name, table in (("leaking", leaking), ("clean", clean)):
        console = Console(file=io.StringIO(), width=120)
        for part in layer_tables(table):
            console.print(part)
        shown[name] = console.file.getvalue()
    assert "LEAK: 10 groups of doc are in more than one part" in shown["leaking"]
    assert "2 groups of doc in the test, none elsewhere" in shown["clean"]
    assert layer_facts(leaking)[0].parts["group"] == "doc leaking"
    assert layer_facts(clean)[0].parts["group"] == "new doc"


def test_seeds_that_change_nothing_and_the_worst_of_several_splits():
    states, labels = made_up(n=150)
    own = Column("split", np.array(["train", "train", "train", "dev", "test"], dtype=object)[np.arange(150) % 5])
    warned = ask(states, classes(labels), split=own, seeds=(0, 1)).warnings
    assert warned == ("the 2 seeds divide the rows alike: the data's own split leaves nothing to chance",)
    texts = [f"text {i % 75}" for i in range(150)]
    several = ask(states, classes(labels), texts=texts, seeds=(0, 1, 2))
    (text,) = [text for text in several.warnings if "also occur in train" in text]
    most = max(split["n_duplicate"] for split in several.details["splits"])
    assert text.startswith(f"{most} of 30 test texts")
    assert text.endswith("(the worst of 3 splits)")


def test_the_control_task_shows_what_a_probe_can_memorise():
    states, labels = made_up()
    table = ask(states, classes(labels), controls=("shuffled",)).table
    np.testing.assert_allclose(table["selectivity"], table["score"] - table["control"])
    assert table["control"].max() < 0.5
    assert table["selectivity"].iloc[2] > 0.25
    assert ask(states, classes(labels)).table["control"].isna().all()


def test_the_text_baseline_knows_only_training_words():
    rng = np.random.default_rng(0)
    labels = np.array(["neg", "pos"], dtype=object)[np.arange(200) % 2]
    telling = [f"word{i} {'good' if label == 'pos' else 'bad'}" for i, label in enumerate(labels)]
    unique = [f"word{i}" for i in range(200)]
    states = [rng.standard_normal((200, 3))]
    assert ask(states, classes(labels), texts=telling).table["text_baseline"][0] == 1.0
    assert ask(states, classes(labels), texts=unique).table["text_baseline"][0] == pytest.approx(0.5, abs=0.01)
    height = rng.standard_normal(200)  # words seen once each: nothing to learn, and no confident nonsense either
    assert ask(states, numbers(height), texts=unique).table["text_baseline"][0] == pytest.approx(0.0, abs=0.1)


def test_order_of_rows_changes_nothing():
    states, labels = made_up()
    ids = np.array([f"id{i}" for i in range(300)], dtype=object)
    before = ask(states, classes(labels), ids=ids).table
    order = np.random.default_rng(9).permutation(300)
    after = ask([s[order] for s in states], classes(labels[order]), ids=ids[order]).table
    pd.testing.assert_frame_equal(before, after, rtol=1e-4)


def test_scale_changes_nothing():
    states, labels = made_up()
    before = ask(states, classes(labels)).table.drop(columns="max_abs")
    after = ask([state * 100 for state in states], classes(labels)).table.drop(columns="max_abs")
    pd.testing.assert_frame_equal(before, after, rtol=1e-3)


def test_processes_give_the_same_bytes_as_none():
    from joblib.externals.loky import ProcessPoolExecutor

    states, labels = made_up(n=120)
    texts = [f"{label} {i}" for i, label in enumerate(labels)]
    here = ask(states, classes(labels), texts=texts)
    with warnings.catch_warnings(), ProcessPoolExecutor(2) as executor:
        there = ask(states, classes(labels), texts=texts, executor=executor)
    assert table_csv(here.table) == table_csv(there.table)


def test_duplicates_are_counted_and_warned_about():
    states, labels = made_up(n=150)
    texts = [f"text {i % 75}" for i in range(150)]
    evaluation = ask(states, classes(labels), texts=texts)
    (split,) = make_splits(classes(labels), ids=np.arange(150).astype(str), texts=texts)
    elsewhere = {texts[i] for i in (*split.train, *split.val)}
    expected = sum(texts[i] in elsewhere for i in split.test)
    assert expected > 0
    assert set(evaluation.table["n_duplicate"]) == {expected}
    assert any("test texts also occur in train" in text for text in evaluation.warnings)


def test_no_convergence_is_a_column_and_a_warning(monkeypatch):
    stopped = replace(PROBES["logistic"], fit_function=lambda *a, **k: replace(fit_logistic(*a, **k), converged=False))
    monkeypatch.setitem(PROBES, "logistic", stopped)
    states, labels = made_up(n=120)
    evaluation = ask(states, classes(labels))
    assert not evaluation.table["converged"].any()
    assert any("did not converge at 3 layers (0, 1, 2)" in text for text in evaluation.warnings)


def test_what_can_not_be_evaluated_says_so():
    states, labels = made_up(n=60)
    with pytest.raises(SpecError, match="--probe nope: one of logistic, ridge"):
        ask(states, classes(labels), probes=("nope",))
    with pytest.raises(
        SpecError, match=r"--probe ridge: target 'label' is classification, for which there are logistic"
    ):
        ask(states, classes(labels), probes=("ridge",))
    states[1][7, 3] = np.nan
    with pytest.raises(InputError, match="layer 1: probes need finite hidden states"):
        ask(states, classes(labels))


def test_inner_folds_keep_groups_together():
    """Trap: C chosen with rows of one document on both sides."""
    _, labels = made_up(n=120)
    groups = Column("document", np.repeat(np.arange(30), 4))
    fits = plan_fits(classes(labels), ProbeConfig(ids=np.arange(120).astype(str).astype(object), groups=groups))
    for fit in fits:
        of_rows = groups.values[fit.split.train]
        assert len(fit.folds) > 1
        assert all(not set(of_rows[learnt]) & set(of_rows[held]) for learnt, held in fit.folds)


def test_the_text_baseline_is_that_of_scikit_learns_grid_search():
    """Trap: words of the held-out rows known while C is chosen."""
    rng = np.random.default_rng(8)
    labels = np.array(["a", "b"], dtype=object)[rng.integers(0, 2, 150)]
    words = [f"w{int(k)}" for k in rng.zipf(1.3, 2000) % 400]
    texts = [" ".join(rng.choice(words, 6)) + (" yes" if y == "a" and rng.random() < 0.4 else "") for y in labels]
    config = ProbeConfig(ids=np.arange(150).astype(str).astype(object), texts=texts)
    (fit,) = plan_fits(classes(labels), config)
    tfidf = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"(?u)\w+|[^\w\s]")
    search = GridSearchCV(
        make_pipeline(tfidf, LogisticRegression(max_iter=1000)),
        {"logisticregression__C": [0.1, 1.0, 10.0, 100.0, 1000.0]},
        scoring="neg_log_loss",
        cv=fit.folds,
    ).fit([texts[i] for i in fit.split.train], labels[fit.split.train])
    test = fit.split.test
    found = fit_layer(baseline_places([fit], config), (0, 0)).outcomes[0].score
    assert found == pytest.approx(np.mean(search.predict([texts[i] for i in test]) == labels[test]))


def test_one_layer_is_in_memory_at_a_time():
    """However many there are; with controls too."""
    states, labels = made_up(layers=6)
    alive = []

    def read(layer):
        gc.collect()
        assert sum(array() is not None for array in alive) <= 1  # layer 0, beside the one it is compared with
        array = np.array(states[layer])
        alive.append(weakref.ref(array))
        return array

    source = StateSource("mean", tuple(range(6)), frozenset(), read)
    question = ProbeConfig(ids=np.arange(300).astype(str).astype(object), controls=("shuffled", "conditional", "mdl"))
    evaluate([source], [classes(labels)], question, origin=ORIGIN)
    assert len(alive) == 6 + 5 + 1  # and the selected one, whose probe is refitted


def test_a_handful_of_test_rows_is_warned_about():
    states, labels = made_up(n=40)
    assert any("only 8 test rows" in text for text in ask(states, classes(labels)).warnings)
    states, labels = made_up(n=300)
    assert not any("say little" in text for text in ask(states, classes(labels)).warnings)
    groups = Column("document", np.repeat(np.arange(20), 15))
    assert any("only 4 test groups of document" in t for t in ask(states, classes(labels), groups=groups).warnings)
