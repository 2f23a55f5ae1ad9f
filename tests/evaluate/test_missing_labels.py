"""Rows without a label change no number: the table is that of the labelled rows alone."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from probekit.evaluate.config import ProbeConfig, StateSource
from probekit.evaluate.controls import CONTROLS
from probekit.evaluate.few_shot import MTEB, Shots, few_shots
from probekit.evaluate.run import evaluate
from probekit.evaluate.transfer import Domain, transfer
from probekit.splits import Column
from probekit.tasks.read import read_target
from probekit.tasks.tags import read_tags
from tests.evaluate.made_up import ORIGIN, ask, made_up, source_of
from tests.evaluate.test_tagging import Layers, sentences, states_of


def spaced(rows, n, values, nothing):
    """``values`` at ``rows`` of n, ``nothing`` elsewhere."""
    found = np.full((n, *np.shape(values)[1:]), nothing, dtype=np.asarray(values).dtype)
    found[rows] = values
    return found


KINDS = ["classes", "numbers", "labels"]


def case(kind, n=120):
    """States and labels of n rows, and the same with a row without a label before each third one."""
    states, names = made_up(n=n)
    codes = np.unique(names, return_inverse=True)[1]
    labels = {
        "classes": names,
        "numbers": codes + np.random.default_rng(0).standard_normal(n),
        "labels": np.array(
            [json.dumps(["x"] * int(c > 0) + [name]) for c, name in zip(codes, names, strict=True)], object
        ),
    }[kind]
    rows = np.setdiff1d(np.arange(n + n // 2), np.arange(0, n + n // 2, 3))
    n_all = n + n // 2
    noise = np.random.default_rng(1).standard_normal((n_all, 12)).astype(np.float32)
    all_states = []
    for state in states:
        more = noise * 50
        more[rows] = state
        all_states.append(more)
    gap = np.nan if kind == "numbers" else ""
    return states, labels, rows, all_states, spaced(rows, n_all, labels, gap)


def target_of(labels):
    return read_target(labels, "y", ids=np.arange(len(labels)))


@pytest.mark.parametrize("kind", ["classes", *(pytest.param(kind, marks=pytest.mark.slow) for kind in KINDS[1:])])
@pytest.mark.parametrize("grouped", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_the_table_with_every_control(kind, grouped):
    states, labels, rows, all_states, all_labels = case(kind)
    n = len(all_labels)
    ids = np.arange(n).astype(str).astype(object)
    n_tokens = np.random.default_rng(2).integers(3, 30, n)
    texts = np.array([f"text {k % 9} word{i}" for i, k in enumerate(n_tokens)], dtype=object)
    random = [state[:, ::-1] for state in all_states]
    group = np.array([f"g{i // 4}" for i in range(n)], dtype=object)
    group[np.setdiff1d(np.arange(n), rows)] = ""  # (no group is needed where there is no label)
    options = {"controls": CONTROLS, "seeds": (0, 1)}
    whole = ask(
        all_states,
        target_of(all_labels),
        ids=ids,
        texts=texts.tolist(),
        n_tokens=n_tokens,
        random=random,
        groups=Column("g", group) if grouped else None,
        **options,
    )
    alone = ask(
        states,
        target_of(labels),
        ids=ids[rows],
        texts=texts[rows].tolist(),
        n_tokens=n_tokens[rows],
        random=[state[rows] for state in random],
        groups=Column("g", group[rows]) if grouped else None,
        **options,
    )
    drop = ["max_abs"]  # of all rows of the layer
    pd.testing.assert_frame_equal(whole.table.drop(columns=drop), alone.table.drop(columns=drop))
    pd.testing.assert_frame_equal(whole.classes, alone.classes)
    assert f"y: {n - len(rows)} of {n} rows have no label and are left out" in whole.warnings
    assert whole.details["targets"]["y"]["n_missing"] == n - len(rows)
    assert alone.details["targets"]["y"]["n_missing"] == 0
    for a, b in zip(whole.chosen, alone.chosen, strict=True):
        assert a.test.tolist() == rows[b.test].tolist()  # positions in the cache
        assert a.predicted.tolist() == b.predicted.tolist()


@pytest.mark.parametrize(("kind", "shots"), [*((kind, Shots((1, 4), 3)) for kind in KINDS), ("classes", MTEB)])
def test_few_shots(kind, shots):
    states, labels, rows, all_states, all_labels = case(kind)
    ids = np.arange(len(all_labels)).astype(str).astype(object)
    tables = [
        few_shots([source_of(s)], [target_of(y)], ProbeConfig(ids=i), shots=shots, origin=ORIGIN)
        for s, y, i in ((all_states, all_labels, ids), (states, labels, ids[rows]))
    ]
    pd.testing.assert_frame_equal(*tables)


def test_mteb_draws_from_the_validation_part_where_its_rows_have_no_labels():
    _, labels, _, _, _ = case("classes")
    split = np.array(["train", "train", "dev", "test"], dtype=object)[np.arange(120) % 4]
    labels = labels.copy()
    labels[split == "dev"] = ""
    from probekit.evaluate.few_shot import PROTOCOLS

    question = ProbeConfig(ids=np.arange(120).astype(str).astype(object), split=Column("split", split))
    fits = PROTOCOLS["mteb"](target_of(labels), question, Shots((8,), 3, "mteb"))
    drawn = {int(i) for fit in fits for i in fit.train}
    assert {str(split[i]) for i in drawn} == {"train"}
    assert not drawn & set(fits[0].split.test.tolist())


def test_transfer():
    states, labels, rows, all_states, all_labels = case("classes")
    ids = np.arange(len(all_labels)).astype(str).astype(object)
    other, others_labels = made_up(n=90, seed=5)
    second = Domain("b", source_of(other), target_of(others_labels), ProbeConfig(ids=np.arange(90).astype(str)))
    tables = [
        transfer([Domain("a", source_of(s), target_of(y), ProbeConfig(ids=i)), second], model="m")
        for s, y, i in ((all_states, all_labels, ids), (states, labels, ids[rows]))
    ]
    pd.testing.assert_frame_equal(*tables)


@pytest.mark.parametrize("entities", [False, True])
def test_sentences_without_tags(entities):
    words, tags = sentences(90)
    if not entities:
        tags = [[tag[0].replace("B", "N") for tag in row] for row in tags]
    rows = np.setdiff1d(np.arange(135), np.arange(0, 135, 3))
    all_words = [["new", "words", "a"] for _ in range(135)]
    all_tags = [None] * 135
    for row, sentence, of_sentence in zip(rows, words, tags, strict=True):
        all_words[row], all_tags[row] = sentence, of_sentence
    layers = states_of(tags)
    of_word = np.repeat(np.isin(np.arange(135), rows), [len(sentence) for sentence in all_words])
    all_layers = [np.full((len(of_word), layer.shape[1]), 7, dtype=np.float32) for layer in layers]
    for more, layer in zip(all_layers, layers, strict=True):
        more[of_word] = layer
    ids = np.array([f"s{i}" for i in range(135)], dtype=object)
    found = []
    for w, t, x, i in ((all_words, all_tags, all_layers, ids), (words, tags, layers, ids[rows])):
        source = StateSource("mean", (0, 1), frozenset(), Layers(x))
        question = ProbeConfig(ids=i)
        read = read_tags(t, "ner", words=w, ids=i)
        found.append(evaluate([source], [read], question, origin=ORIGIN))
    whole, alone = found
    drop = ["max_abs", "control", "selectivity"]  # (the control task draws a tag for each word type of the data)
    pd.testing.assert_frame_equal(whole.table.drop(columns=drop), alone.table.drop(columns=drop))
    assert "ner: 45 of 135 rows have no label and are left out" in whole.warnings
    assert whole.chosen[0].predicted.tolist() == alone.chosen[0].predicted.tolist()
    assert whole.chosen[0].test.tolist() == rows[alone.chosen[0].test].tolist()
