"""Few-shot draws of several labels per row, and test texts that a transferred probe had seen."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from probekit.errors import InputError, SpecError
from probekit.evaluate.config import ProbeConfig
from probekit.evaluate.few_shot import MTEB, PROTOCOLS, Shots, few_shots
from probekit.evaluate.transfer import Domain, transfer, transfer_warnings
from probekit.splits import make_splits
from tests.evaluate.made_up import ORIGIN, classes, source_of
from tests.evaluate.made_up import made_up as made_up_classes
from tests.evaluate.test_multilabel import made_up, target_of


def question_for(n, **options):
    return ProbeConfig(ids=np.arange(n).astype(str).astype(object), **options)


def test_each_label_has_its_rows_and_draws_are_nested():
    _, Y = made_up()
    fits = PROTOCOLS["probekit"](target_of(Y), question_for(240), Shots((1, 4), 3))
    few, more = ([fit.train for fit in fits if fit.role == k] for k in ("1", "4"))
    (split,) = make_splits(target_of(Y), ids=np.arange(240).astype(str))
    for one, four in zip(few, more, strict=True):
        assert set(one) < set(four) < set(split.train)
        assert (Y[one].sum(axis=0) >= 1).all()
        assert (Y[four].sum(axis=0) >= 4).all()
        assert len(four) <= 12


def test_the_curve_against_a_loop():
    states, Y = made_up()
    target, question = target_of(Y), question_for(240)
    table = few_shots([source_of(states)], [target], question, shots=Shots((6,), 4), origin=ORIGIN)
    assert set(table["metric"]) == {"micro_f1"}
    assert set(table["probe"]) == {"logistic"}
    (split,) = make_splits(target, ids=question.ids)
    for layer, row in table.iterrows():
        scores = []
        for draw in range(4):
            order = np.random.default_rng([0, draw]).permutation(split.train)
            rows = [i for i in order if any(i in [j for j in order if Y[j, k]][:6] for k in range(3))]
            answers = []
            for k in range(3):
                if len(set(Y[rows, k])) == 1:
                    answers.append(np.full(len(split.test), Y[rows[0], k]))
                    continue
                model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
                answers.append(model.fit(states[layer][rows], Y[rows, k]).predict(states[layer][split.test]))
            scores.append(f1_score(Y[split.test], np.column_stack(answers), average="micro"))
        assert row["mean"] == pytest.approx(np.mean(scores), abs=1e-9)


def test_what_can_not_be_drawn():
    states, Y = made_up()
    ask = [source_of(states)], [target_of(Y)], question_for(240)
    with pytest.raises(InputError, match=r"--shots 90: label calm has \d+ training rows"):
        few_shots(*ask, shots=Shots((90,)), origin=ORIGIN)
    with pytest.raises(SpecError, match="is for classes; column 'mood' holds several labels per text"):
        few_shots(*ask, shots=MTEB, origin=ORIGIN)


def domain(name, texts, seed=0, **options):
    states, labels = made_up_classes(n=len(texts), seed=seed)
    ids = np.array([f"{name}{i}" for i in range(len(texts))], dtype=object)
    return Domain(name, source_of(states), classes(labels), ProbeConfig(ids=ids, texts=texts, **options))


@pytest.mark.parametrize("seeds", [(0,), (0, 1)])
def test_texts_of_the_other_data_set_are_counted_and_said(seeds):
    a = domain("a", [f"text {i}" for i in range(120)], seeds=seeds)
    b = domain("b", [f"text {i}" for i in range(60, 160)], seed=1, seeds=seeds)
    table = transfer([a, b], model="m")
    splits = {d.name: make_splits(d.target, ids=d.config.ids, seeds=seeds) for d in (a, b)}
    texts = {d.name: d.config.texts for d in (a, b)}
    for (trained, tested), rows in table.groupby(["trained_on", "tested_on"]):
        expected = max(
            sum(texts[tested][i] in {texts[trained][j] for j in (*s.train, *s.val)} for i in t.test)
            for s, t in zip(splits[trained], splits[tested], strict=True)
        )
        assert set(rows["n_duplicate"]) == {expected}
        assert (expected > 0) == (trained != tested)
    said = transfer_warnings(table)
    n = table[(table["trained_on"] == "a") & (table["tested_on"] == "b")].iloc[0]
    assert len(said) == 2
    assert said[0].startswith(
        f"label: {n['n_duplicate']} of {n['n_test']} test texts of b are in the training or validation rows of a"
    )


def test_other_texts_and_texts_that_were_not_kept():
    a = domain("a", [f"text {i}" for i in range(60)])
    other = domain("b", [f"other {i}" for i in range(60)], seed=1)
    table = transfer([a, other], model="m")
    assert set(table["n_duplicate"]) == {0}
    assert transfer_warnings(table) == ()
    bare = Domain("b", other.source, other.target, question_for(60))
    table = transfer([a, bare], model="m")
    crossing = table["trained_on"] != table["tested_on"]
    assert pd.isna(table["n_duplicate"][crossing]).all()
    assert transfer_warnings(table) == ()
