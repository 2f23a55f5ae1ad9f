"""Tags of words against scikit-learn and seqeval on predictions made independently, and the traps put back."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from seqeval.metrics import f1_score as entity_f1
from seqeval.metrics import precision_score, recall_score
from seqeval.scheme import IOB2
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, f1_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from probekit.errors import InputError, SpecError
from probekit.evaluate.config import ProbeConfig, StateSource
from probekit.evaluate.run import evaluate, plan_fits
from probekit.metrics.viterbi import best_tags
from probekit.splits import Column, inner_folds
from probekit.tasks.lookup import LookUp, control_codes
from probekit.tasks.tags import read_tags
from tests.evaluate.made_up import ORIGIN, grid_search

NAMES = {"person": ["anna", "ben", "carl"], "place": ["oslo", "rome", "york"]}
PLAIN = ["the", "a", "sees", "in", "goes", "to", "big", "red"]


def sentences(n=120, seed=0):
    """Words and IOB2 tags; a name of several words now and then, and words that occur once only."""
    rng = np.random.default_rng(seed)
    words, tags = [], []
    for _ in range(n):
        row, of_row = [], []
        for _ in range(int(rng.integers(3, 9))):
            if rng.random() < 0.3:
                kind = str(rng.choice(list(NAMES)))
                length = int(rng.integers(1, 3))
                row += (
                    [*rng.choice(NAMES[kind], length)] if rng.random() < 0.7 else [f"x{rng.integers(10**6)}"] * length
                )
                of_row += [f"B-{kind}", *[f"I-{kind}"] * (length - 1)]
            else:
                row.append(str(rng.choice(PLAIN)))
                of_row.append("O")
        words.append([str(word) for word in row])
        tags.append(of_row)
    return words, tags


class Vectors:
    """States in memory, by word; picklable."""

    def __init__(self, X):
        self.X = X

    def rows(self, which):
        assert len(np.unique(which)) == len(which)
        return self.X[which]


class Layers:
    def __init__(self, layers):
        self.layers = layers

    def __call__(self, layer):
        return Vectors(self.layers[layer])


def source_of(layers):
    return StateSource("mean", tuple(range(len(layers))), frozenset(), Layers(layers))


def states_of(tags, d=10, layers=2, seed=1):
    """Layers that know the tag better the deeper they are."""
    rng = np.random.default_rng(seed)
    flat = [tag for row in tags for tag in row]
    names, code = np.unique(flat, return_inverse=True)
    signal = np.eye(len(names), d)[code]
    return [(rng.standard_normal((len(flat), d)) + 1.5 * layer * signal).astype(np.float32) for layer in range(layers)]


def ask(words, tags, layers, *, lost=None, name="ner", executor=None, **options):
    ids = options.pop("ids", [str(i) for i in range(len(words))])
    config = ProbeConfig(ids=np.array(ids, dtype=object), **options)
    read = read_tags(tags, name, words=words, ids=ids, unread=lost)
    return evaluate([source_of(layers)], [read], config, origin=ORIGIN, executor=executor)


def plan(words, tags, *, lost=None, **options):
    ids = [str(i) for i in range(len(words))]
    read = read_tags(tags, "ner", words=words, ids=ids, unread=lost)
    return plan_fits(read, ProbeConfig(ids=np.array(ids, dtype=object), **options))


def by_hand(words, tags, X, split, *, lost=None, regularisation=None):
    """Everything of one layer with scikit-learn, seqeval and plain loops."""
    starts = np.cumsum([0, *map(len, words)])
    lost = np.zeros(starts[-1], dtype=bool) if lost is None else lost
    flat = np.array([tag for row in tags for tag in row])

    def positions(rows):
        return [k for i in rows for k in range(starts[i], starts[i + 1])]

    train = [k for k in positions(split.train) if not lost[k]]
    sentence = np.repeat(np.arange(len(words)), [*map(len, words)])
    rank = np.argsort(split.train)[np.searchsorted(np.sort(split.train), sentence[train])]
    folds = inner_folds(flat[train], stratify=False, groups=rank, seed=split.seed)
    if regularisation is None:
        part = replace(split, train=np.array(train))
        fitted = grid_search(X.astype(float), flat, part, folds)
        regularisation = fitted.best_params_["logisticregression__C"]
    model = make_pipeline(StandardScaler(), LogisticRegression(C=regularisation, max_iter=5000)).fit(
        X[train], flat[train]
    )
    answers = np.where(lost, "O", model.predict(X))
    parts = {part: getattr(split, part) for part in ("train", "val", "test")}
    predicted = {part: [answers[starts[i] : starts[i + 1]].tolist() for i in at] for part, at in parts.items()}
    return regularisation, predicted, model


def test_rows_equal_an_independent_calculation():
    words, tags = sentences()
    layers = states_of(tags)
    found = ask(words, tags, layers)
    (fit,) = plan(words, tags)
    split = fit.split
    truth = [tags[i] for i in split.test]
    flat_truth = [tag for row in truth for tag in row]
    in_training = Counter((word, tag) for i in split.train for word, tag in zip(words[i], tags[i], strict=True))
    known = {word for word, _ in in_training}
    commonest = Counter(tag for i in split.train for tag in tags[i]).most_common(1)[0][0]
    test_words = [word for i in split.test for word in words[i]]
    looked_up = [
        [
            max(sorted({t for w, t in in_training if w == word}), key=lambda t, w=word: in_training[w, t])
            if word in known
            else commonest
            for word in words[i]
        ]
        for i in split.test
    ]
    for layer, row in found.table.iterrows():
        regularisation, answers, _ = by_hand(words, tags, layers[layer], split)
        predicted = answers["test"]
        flat = [tag for of_row in predicted for tag in of_row]
        assert row["regularisation"] == pytest.approx(regularisation)
        strict = {"mode": "strict", "scheme": IOB2, "zero_division": 0}
        assert row["score"] == row["entity_f1"] == pytest.approx(entity_f1(truth, predicted, **strict))
        assert row["entity_precision"] == pytest.approx(precision_score(truth, predicted, **strict))
        assert row["entity_recall"] == pytest.approx(recall_score(truth, predicted, **strict))
        for part in ("train", "val"):
            of_part = [tags[i] for i in getattr(split, part)]
            assert row[f"{part}_score"] == pytest.approx(entity_f1(of_part, answers[part], **strict))
        assert row["entity_f1_lenient"] == pytest.approx(entity_f1(truth, predicted))
        assert row["accuracy"] == pytest.approx(accuracy_score(flat_truth, flat))
        assert row["commonest_accuracy"] == pytest.approx(np.mean([tag == commonest for tag in flat_truth]))
        new = [a == b for a, b, word in zip(flat_truth, flat, test_words, strict=True) if word not in known]
        assert row["oov_accuracy"] == pytest.approx(np.mean(new))
        assert row["text_baseline"] == pytest.approx(entity_f1(truth, looked_up, **strict))
        assert (row["n_words"], row["n_words_lost"]) == (len(flat), 0)
        assert row["ci_low"] <= row["score"] <= row["ci_high"]
        assert np.isnan(row["viterbi_gain"])
    assert row["score"] > 0.3
    assert found.table["selected"].tolist() == [False, True]
    of_type = found.classes.set_index("class")
    assert of_type["support"].sum() == sum(tag.startswith("B-") for tag in flat_truth)


def test_always_outside_is_often_right_and_finds_nothing():
    """Trap: token accuracy of an O-only predictor."""
    words, tags = sentences()
    tags = [[tag if i % 3 == 0 else "O" for tag in row] for i, row in enumerate(tags)]
    noise = [np.random.default_rng(0).standard_normal((sum(map(len, words)), 4)).astype(np.float32)]
    row = ask(words, tags, noise).table.iloc[0]
    assert row["accuracy"] > 0.85
    assert row["score"] == row["baseline"] == 0.0


def test_a_lost_word_counts_as_outside_and_none_is_left_out():
    """Trap: truncated words dropped from the score."""
    words, tags = sentences()
    layers = states_of(tags)
    lost = np.random.default_rng(3).random(len(layers[0])) < 0.2
    found = ask(words, tags, layers, lost=lost)
    (fit,) = plan(words, tags, lost=lost)
    split = fit.split
    row = found.table.iloc[1]
    regularisation, answers, _ = by_hand(words, tags, layers[1], split, lost=lost)
    predicted = answers["test"]
    truth = [tags[i] for i in split.test]
    assert row["regularisation"] == pytest.approx(regularisation)
    assert row["score"] == pytest.approx(entity_f1(truth, predicted, mode="strict", scheme=IOB2))
    assert row["n_words"] == sum(map(len, truth))
    n_lost = int(lost[fit.target.rows_of(split.test)].sum())
    assert row["n_words_lost"] == n_lost > 10
    assert any(f"{n_lost} of {row['n_words']:.0f} test words have no token" in text for text in found.warnings)
    assert row["score"] < ask(words, tags, layers).table.iloc[1]["score"]


def test_the_control_task():
    words, tags = sentences()
    layers = states_of(tags)
    row = ask(words, tags, layers).table.iloc[1]
    (fit,) = plan(words, tags)
    split, classes = fit.split, fit.target.classes
    flat_words = [word for sentence in words for word in sentence]
    of_type = {}
    for word, code in zip(flat_words, fit.control, strict=True):
        assert of_type.setdefault(word, code) == code  # one tag per word type, everywhere
    train, test = fit.target.rows_of(split.train), fit.target.rows_of(split.test)
    model = make_pipeline(StandardScaler(), LogisticRegression(C=row["regularisation"], max_iter=5000))
    model.fit(layers[1][train], classes[fit.control[train]])
    control = np.mean(model.predict(layers[1][test]) == classes[fit.control[test]])
    assert row["control"] == pytest.approx(control, abs=0.005)
    assert row["selectivity"] == pytest.approx(row["accuracy"] - row["control"])


def test_control_tags_are_drawn_as_training_has_them():
    types = np.array([f"w{i}" for i in range(20_000)], dtype=object)
    codes = np.array([0, 0, 0, 1] * 5000)
    drawn = control_codes(types, codes, np.arange(100), seed=0)
    assert np.mean(drawn) == pytest.approx(0.25, abs=0.01)
    assert (drawn == control_codes(types, codes, np.arange(100), seed=0)).all()
    assert (drawn != control_codes(types, codes, np.arange(100), seed=1)).any()


def test_lookup():
    types = np.array(["a", "a", "a", "b", "c", "a"], dtype=object)
    codes = np.array([1, 2, 2, 0, 0, 1])
    found = LookUp().fit(types[:4], codes[:4])
    assert found.predict(types[[5, 4, 3]]).tolist() == [2, 2, 0]


def test_sentences_are_never_divided():
    words, tags = sentences()
    documents = Column("document", np.repeat(np.arange(30), 4))
    for groups in (None, documents):
        (fit,) = plan(words, tags, groups=groups)
        unit = np.arange(120) if groups is None else documents.values
        parts = [set(unit[at]) for at in (fit.split.train, fit.split.val, fit.split.test)]
        assert len(parts[0] | parts[1] | parts[2]) == sum(map(len, parts))
        sentence = np.repeat(np.arange(120), fit.target.words.lengths)[fit.target.readable(fit.train)]
        assert len(fit.folds) == 5
        assert all(not set(unit[sentence[a]]) & set(unit[sentence[b]]) for a, b in fit.folds)


def test_many_words_are_sampled_by_sentence_and_it_is_said():
    words, tags = sentences()
    layers = states_of(tags)
    (fit,) = plan(words, tags, max_words=100)
    assert 80 < len(fit.target.readable(fit.train)) <= 100
    assert fit.train.tolist() == fit.split.train[: len(fit.train)].tolist()
    found = ask(words, tags, layers, max_words=100)
    assert any(
        f"fitted on {len(fit.target.readable(fit.train))} of " in text and "--max-words takes more" in text
        for text in found.warnings
    )
    assert len(plan(*sentences(3000))[0].folds) == 1


def test_decoding_sentences():
    words, tags = sentences()
    layers = states_of(tags)
    plain, decoded = ask(words, tags, layers).table.iloc[1], ask(words, tags, layers, viterbi=True).table.iloc[1]
    assert decoded["viterbi_gain"] == pytest.approx(decoded["score"] - plain["score"])
    (fit,) = plan(words, tags)
    split = fit.split
    _, _, model = by_hand(words, tags, layers[1], split, regularisation=plain["regularisation"])
    at = fit.target.rows_of(split.test)
    lengths = fit.target.words.lengths[split.test]
    codes = best_tags(np.log(model.predict_proba(layers[1][at])), model.classes_.tolist(), lengths)
    ends = np.cumsum(lengths)
    predicted = [model.classes_[codes[e - n : e]].tolist() for e, n in zip(ends, lengths, strict=True)]
    truth = [tags[i] for i in split.test]
    assert decoded["score"] == pytest.approx(entity_f1(truth, predicted, mode="strict", scheme=IOB2), abs=0.01)
    assert decoded["entity_f1"] == decoded["entity_f1_lenient"]  # nothing is left to read leniently


def test_decoding_with_lost_words_and_a_tag_that_training_never_saw():
    words, tags = sentences()
    (fit,) = plan(words, tags)
    new = next(i for i in fit.split.test if "B-place" in tags[i])
    tags[new] = [tag.replace("place", "act") for tag in tags[new]]
    layers = states_of(tags)
    lost = np.random.default_rng(3).random(len(layers[0])) < 0.2
    for viterbi in (False, True):
        found = ask(words, tags, layers, lost=lost, viterbi=viterbi)
        test = fit.target.rows_of(fit.split.test)
        predicted = found.chosen[0].predicted
        assert (predicted[lost[test]] == "O").all()
        truth = np.array([tag for row in tags for tag in row])[test]
        assert np.mean(predicted[~lost[test]] == truth[~lost[test]]) > 0.6
        assert not set(predicted) & {"B-act", "I-act"}


def test_parts_of_speech():
    words, tags = sentences()
    names = {"O": "DET", "B": "PROPN", "I": "NOUN"}
    tags = [[names[tag[0]] for tag in row] for row in tags]
    layers = states_of(tags)
    lost = np.zeros(len(layers[0]), dtype=bool)
    lost[::9] = True
    found = ask(words, tags, layers, lost=lost, name="upos", refit=False)
    row = found.table.iloc[1]
    (fit,) = plan(words, tags, lost=lost)
    test = fit.target.rows_of(fit.split.test)
    predicted = found.chosen[0].predicted
    truth = np.array([tag for sentence in tags for tag in sentence])[test]
    assert (predicted[lost[test]] == "").all()
    assert row["metric"] == "accuracy"
    assert row["score"] == row["accuracy"] == pytest.approx(np.mean(truth == predicted))
    assert row["macro_f1"] == pytest.approx(f1_score(truth, predicted, labels=np.unique(truth), average="macro"))
    assert np.isnan(row["entity_f1"])
    assert found.classes["class"].tolist() == ["DET", "NOUN", "PROPN"]
    with pytest.raises(SpecError, match="--viterbi: needs entity tags"):
        ask(words, tags, layers, viterbi=True)


def test_order_of_sentences_and_processes_change_nothing():
    words, tags = sentences()
    layers = states_of(tags)
    starts = np.cumsum([0, *map(len, words)])
    order = np.random.default_rng(5).permutation(len(words))
    at = np.concatenate([np.arange(starts[i], starts[i + 1]) for i in order])
    moved = ask(
        [words[i] for i in order], [tags[i] for i in order], [X[at] for X in layers], ids=[str(i) for i in order]
    )
    plain = ask(words, tags, layers)
    for column in ("score", "val_score", "accuracy", "regularisation", "text_baseline", "control"):
        np.testing.assert_allclose(moved.table[column].astype(float), plain.table[column].astype(float), atol=1e-9)


@pytest.mark.parametrize("scheme", ["IOB1", "BIOES"])
def test_other_schemes_give_the_same_table(scheme):
    words, tags = sentences()
    written = []
    for row in tags:
        out = []
        for k, tag in enumerate(row):
            inside, after = tag[2:], row[k + 1] if k + 1 < len(row) else "O"
            goes_on = after == f"I-{inside}"
            if tag == "O":
                out.append(tag)
            elif scheme == "BIOES":
                out.append(
                    {(True, True): "B-", (True, False): "S-", (False, True): "I-", (False, False): "E-"}[
                        tag[0] == "B", goes_on
                    ]
                    + inside
                )
            else:
                touches = tag[0] == "B" and k > 0 and row[k - 1][2:] == inside
                out.append(("B-" if touches else "I-") + inside)
        written.append(out)
    layers = states_of(tags)
    a, b = ask(words, tags, layers), ask(words, written, layers)
    np.testing.assert_array_equal(a.table["score"], b.table["score"])
    assert a.warnings == b.warnings
    assert scheme in read_tags(written, "ner", words=words, ids=range(120)).how


def test_broken_gold_tags_are_repaired_and_counted():
    words, tags = sentences()
    tags[0] = ["I-person", *["O"] * (len(tags[0]) - 1)]
    found = ask(words, tags, states_of(tags))
    assert any("1 tags began an entity with I-" in text for text in found.warnings)


def test_what_can_not_be_tagged_says_so():
    words, tags = [["a", "b"], ["c"]], [["X", "Y"], ["X"]]
    with pytest.raises(InputError, match=r"example q, column 'ner': a tag for each of its 1 words; got 2"):
        read_tags([["X", "Y"], ["X", "Y"]], "ner", words=words, ids=["p", "q"])
    with pytest.raises(InputError, match=r"example p, column 'ner': no tag may be empty"):
        read_tags([["X", ""], ["X"]], "ner", words=words, ids=["p", "q"])
    with pytest.raises(InputError, match="at least two tags to tell apart; got only 'X'"):
        read_tags([["X", "X"], ["X"]], "ner", words=words, ids=["p", "q"])
    with pytest.raises(InputError, match="at most 500 different tags; got 501"):
        read_tags([[str(i)] for i in range(501)], "lemma", words=[["a"]] * 501, ids=range(501))
    words, tags = sentences()
    with pytest.raises(SpecError, match="--probe ridge: target 'ner' is entities, for which there are logistic, mlp"):
        ask(words, tags, states_of(tags), probes=("ridge",))
    together = Column("document", np.array(["one"] * 100 + ["two", "three", "four"] * 6 + ["five"] * 2))
    with pytest.raises(SpecError, match=r"--max-words: must take in words .* from two sentences .or groups. at least"):
        ask(words, tags, states_of(tags), groups=together, max_words=5)
    bad = states_of(tags)
    bad[1][5] = np.nan
    with pytest.raises(InputError, match="layer 1: probes need finite hidden states"):
        ask(words, tags, bad)
