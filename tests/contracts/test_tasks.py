"""What every task promises, each number against scikit-learn, seqeval or a plain loop."""

from __future__ import annotations

import pickle
from dataclasses import replace
from itertools import pairwise, product

import numpy as np
import pytest

from probekit.metrics.score import SCORES
from probekit.tasks import TASKS, Words
from probekit.tasks.tags import read_tags
from tests.contracts.tasks import (
    EXAMPLES,
    Asked,
    Known,
    Numbered,
    as_labels,
    example,
    mostly_right,
    probabilities,
    with_other_labels,
)

every_task = pytest.mark.parametrize("name", TASKS)
of_words = pytest.mark.parametrize("name", [name for name, task in TASKS.items() if task.of_words])
of_texts = pytest.mark.parametrize("name", [name for name, task in TASKS.items() if not task.of_words])


def answered(target, units, *, probability=None, seed=1, viterbi=False):
    """What ``Task.predict`` makes of an estimator that is mostly right."""
    estimator = Known(target, as_labels(target, mostly_right(target, seed)), probability)
    return target.task.predict(target, Numbered(target), estimator, units, viterbi)


def asked_of(name, seed=0):
    target, train, test = example(name, seed)
    given = probabilities(target) if len(target.classes) else None
    estimator = Known(target, as_labels(target, mostly_right(target)), given)
    probability = target.task.probability(target, Numbered(target), estimator, test)
    return Asked(target, train, test, answered(target, test), probability)


def everything(asked):
    """All numbers that a task gives."""
    target, task = asked.target, asked.target.task
    return {
        "score": task.score(target, asked.test, asked.answers),
        "terms": task.terms(target, asked.test, asked.answers),
        "metrics": task.metrics(target, asked.train, asked.test, asked.answers, asked.probability),
        "dummy": task.dummy(target, asked.train, asked.test),
        "class_rows": task.class_rows(target, [asked.test], [asked.answers]),
    }


@every_task
def test_it_is_in_the_suite_and_its_words_fit(name):
    task = TASKS[name]
    assert name == task.name
    assert set(EXAMPLES) == set(TASKS)
    assert task.metric in SCORES
    assert task.metric in task.columns
    assert len(set(task.columns)) == len(task.columns)
    assert example(name)[0].task is task


@every_task
@pytest.mark.parametrize("seed", range(3))
def test_every_column_by_hand(name, seed):
    asked = asked_of(name, seed)
    task = asked.target.task
    found = task.metrics(asked.target, asked.train, asked.test, asked.answers, asked.probability)
    assert set(found) == set(task.columns)
    assert found == pytest.approx(EXAMPLES[name].columns(asked), nan_ok=True, rel=1e-9)
    assert all(type(value) is float for value in found.values())
    assert task.score(asked.target, asked.test, asked.answers) == pytest.approx(found[task.metric], rel=1e-9)


@every_task
def test_without_probabilities_only_their_columns_are_empty(name):
    asked = replace(asked_of(name), probability=None)
    task = asked.target.task
    found = task.metrics(asked.target, asked.train, asked.test, asked.answers, None)
    assert found == pytest.approx(EXAMPLES[name].columns(asked), nan_ok=True)
    alone = Known(asked.target, mostly_right(asked.target))
    assert task.probability(asked.target, Numbered(asked.target), alone, asked.test) is None


@every_task
def test_all_right_is_the_best_there_is(name):
    target, train, test = example(name)
    truth = target.truth[target.rows_of(test)]
    assert target.task.score(target, test, truth) == 1
    assert target.task.score(target, test, answered(target, test)) < 1
    assert target.task.metrics(target, train, test, truth, None)[target.task.metric] == 1


@every_task
def test_terms_are_sums_over_units(name):
    """Resampling units is resampling rows of terms. (Of numbers these are about the mean of all that are asked for.)"""
    asked = asked_of(name)
    target, task, test = asked.target, asked.target.task, asked.test
    by_unit = [np.atleast_1d(answered(target, test[k : k + 1])) for k in range(len(test))]
    np.testing.assert_array_equal(np.concatenate(by_unit), asked.answers)
    terms = task.terms(target, test, asked.answers)
    assert terms.shape[0] == len(test)
    assert terms.dtype == np.float64
    rng = np.random.default_rng(0)
    for _ in range(5):
        drawn = rng.integers(0, len(test), len(test))
        again = task.score(target, test[drawn], np.concatenate([by_unit[k] for k in drawn]))
        assert float(task.value(terms[drawn].sum(axis=0))) == pytest.approx(again, rel=1e-9)
    half = len(test) // 2
    parts = [test[:half], test[half:]]
    apart = [task.terms(target, part, answered(target, part)) for part in parts]
    if task.metric != "r2":
        np.testing.assert_array_equal(np.vstack(apart), terms)
    sums = np.stack([terms[:half].sum(axis=0), terms[half:].sum(axis=0)])
    expected = [task.score(target, part, answered(target, part)) for part in parts]
    np.testing.assert_allclose(task.value(sums), expected, rtol=1e-9)


@every_task
def test_the_order_of_units_says_nothing(name):
    asked = asked_of(name)
    target, task = asked.target, asked.target.task
    order = np.random.default_rng(5).permutation(len(asked.test))
    moved = asked.test[order]
    answers = answered(target, moved)
    place = {row: k for k, row in enumerate(target.rows_of(asked.test).tolist())}
    rows = [place[row] for row in target.rows_of(moved).tolist()]
    np.testing.assert_array_equal(answers, asked.answers[rows])
    probability = None if asked.probability is None else asked.probability[order]
    found = everything(replace(asked, test=moved, answers=answers, probability=probability, train=asked.train[::-1]))
    before = everything(asked)
    np.testing.assert_allclose(found["terms"], before["terms"][order])
    assert found["metrics"] == pytest.approx(before["metrics"], nan_ok=True)
    assert found["score"] == pytest.approx(before["score"])
    assert found["class_rows"] == before["class_rows"]
    np.testing.assert_allclose(found["dummy"], before["dummy"][rows])
    assert task.score(target, moved, answers) == pytest.approx(before["score"])


@every_task
@pytest.mark.parametrize("seed", range(3))
def test_the_dummy_is_scikit_learns_and_never_looks_at_the_test(name, seed):
    target, train, test = example(name, seed)
    found = target.task.dummy(target, train, test)
    np.testing.assert_allclose(found, EXAMPLES[name].dummy(target, train, len(target.rows_of(test))))
    other = with_other_labels(target, test)
    assert not np.array_equal(other.truth[other.rows_of(test)], target.truth[target.rows_of(test)])
    np.testing.assert_array_equal(target.task.dummy(other, train, test), found)
    assert target.task.score(target, test, found) < 1


@every_task
def test_rows_of_classes_by_hand(name):
    asked = asked_of(name)
    target, task = asked.target, asked.target.task
    found = task.class_rows(target, [asked.test], [asked.answers])
    by_hand = EXAMPLES[name].class_rows(asked)
    assert [str(row["class"]) for row in found] == list(by_hand)
    for row in found:
        numbers = [row[column] for column in ("precision", "recall", "f1", "support")]
        assert numbers == pytest.approx(list(by_hand[str(row["class"])]))
        assert type(row["support"]) is int
    half = len(asked.test) // 2
    tests = [asked.test[:half], asked.test[half:]]
    assert task.class_rows(target, tests, [answered(target, part) for part in tests]) == found


@every_task
def test_answers_are_labels_again(name):
    target, _, test = example(name)
    codes = answered(target, test)
    rows = target.rows_of(test)
    expected = mostly_right(target)[rows]
    if target.task.several:
        expected = [[str(c) for c, there in zip(target.classes, row, strict=True) if there] for row in expected]
    elif len(target.classes):
        expected = [str(target.classes[c]) for c in expected]
        if target.words is not None:
            lost = target.words.unread[rows]
            instead = "O" if target.task.entities else ""
            expected = [instead if gone else tag for gone, tag in zip(lost, expected, strict=True)]
    assert list(target.labels(codes)) == list(expected)


@every_task
def test_units_without_a_label_are_never_read(name):
    asked = asked_of(name)
    unlabelled = np.setdiff1d(np.arange(len(asked.target)), asked.target.units)
    assert len(unlabelled) == asked.target.n_missing > 0
    poisoned = with_other_labels(asked.target, unlabelled)
    before, after = everything(asked), everything(replace(asked, target=poisoned))
    np.testing.assert_equal(after, before)
    for a, b in zip(poisoned.members(poisoned.units), asked.target.members(asked.target.units), strict=True):
        np.testing.assert_array_equal(a, b)


@every_task
def test_units_and_rows(name):
    target, train, test = example(name)
    assert np.array_equal(target.units, np.sort(np.concatenate([train, test])))
    rows = target.rows_of(test)
    if target.words is None:
        assert rows.tolist() == target.readable(test).tolist() == test.tolist()
        assert len(target) == len(target.y)
    else:
        of_unit = np.repeat(np.arange(len(target)), target.words.lengths)
        assert rows.tolist() == [row for unit in test for row in np.flatnonzero(of_unit == unit)]
        assert target.readable(test).tolist() == [row for row in rows if not target.words.unread[row]]
        assert len(target) == len(target.words.lengths) < len(target.y)
    everything_ = np.concatenate([target.rows_of(train), rows])
    assert len(np.unique(everything_)) == len(everything_)
    assert target.rows_of(test[:0]).tolist() == target.readable(test[:0]).tolist() == []
    assert target.strata.shape == (len(target),)
    if len(target.codes):
        np.testing.assert_array_equal(target.classes[target.codes[rows]], target.y[rows])
        np.testing.assert_array_equal(target.coded(target.y[rows]), target.codes[rows])


@of_texts
def test_members_are_those_that_have_the_class(name):
    target, _, test = example(name)
    found = target.members(test)
    assert len(found) == max(1, len(target.classes))
    for k, members in enumerate(found):
        for unit, there in zip(test, members, strict=True):
            (label,) = target.labels(target.truth[[unit]])
            name_ = target.classes[k] if len(target.classes) else None
            assert there == (True if name_ is None else name_ in label if target.task.several else name_ == label)


@every_task
def test_pickled_it_gives_the_same_numbers(name):
    asked = asked_of(name)
    again = pickle.loads(pickle.dumps(asked))
    assert again.target.task.name == name
    np.testing.assert_equal(everything(again), everything(asked))
    assert pickle.loads(pickle.dumps(TASKS[name])) == TASKS[name]


@of_words
@pytest.mark.parametrize("viterbi", [False, True])
def test_words_that_were_not_read(name, viterbi):
    """They count as wrong; where tags are of entities, as outside of them, which can be right."""
    target, _, test = example(name)
    if viterbi and not target.task.entities:
        pytest.skip("tags that do not go on")
    rows = target.rows_of(test)
    lost = target.words.unread[rows]
    assert lost.any()
    codes = answered(target, test, probability=probabilities(target), viterbi=viterbi)
    right = codes[lost] == target.codes[rows][lost]
    if target.task.entities:
        assert set(target.labels(codes)[lost]) == {"O"}
        assert right.any()
    else:
        assert (codes[lost] == -1).all()
        assert not right.any()
    whole = replace(target, words=replace(target.words, unread=np.zeros_like(target.words.unread)))
    assert len(target.readable(test)) < len(whole.readable(test)) == len(rows)


def test_entities_that_leave_no_word_outside():
    """No O in the data: what is not read is outside all the same."""
    words = [["ann", "bell"], ["rome", "x"], ["york", "city"]]
    tags = [["B-per", "I-per"], ["B-loc", "B-loc"], ["B-loc", "I-loc"]]
    unread = np.array([False, False, False, True, False, False])
    target = read_tags(tags, "ner", words=words, ids=["0", "1", "2"], unread=unread)
    units = np.arange(3)
    codes = target.task.predict(target, Numbered(target), Known(target, target.y), units, False)
    assert list(target.labels(codes)) == ["B-per", "I-per", "B-loc", "O", "B-loc", "I-loc"]
    found = target.task.metrics(target, units, units, codes, None)
    assert found["entity_recall"] == 3 / 4
    assert found["accuracy"] == 5 / 6


@of_texts
def test_a_class_that_training_never_saw_has_probability_zero(name):
    target, _, test = example(name)
    if not target.task.stratified:
        pytest.skip("has no classes of which each row has one")
    estimator = Known(target, target.y, probabilities(target)[:, 1:])
    estimator.classes_ = target.classes[1:]
    found = target.task.probability(target, Numbered(target), estimator, test)
    assert (found[:, 0] == 0).all()
    np.testing.assert_array_equal(found[:, 1:], probabilities(target)[test, 1:])


@of_words
def test_decoded_sentences_are_the_likeliest_of_those_that_are_allowed(name):
    """Against all sequences of tags, one by one."""
    if not TASKS[name].entities:
        pytest.skip("tags that do not go on")
    target, _, test = example(name)
    short = test[target.words.lengths[test] <= 4]
    p = probabilities(target)
    p = np.where(target.words.unread[:, None], np.eye(len(target.classes))[target.unread_code], p)
    found = answered(target, short, probability=p, viterbi=True)
    rest = iter(found.tolist())
    for unit in short:
        rows = target.rows_of(np.array([unit]))
        names = target.classes.tolist()

        def allowed(codes, names=names):
            tags = ["O", *(names[c] for c in codes)]
            return all(b[0] != "I" or a[1:] == b[1:] for a, b in pairwise(tags))

        possible = [codes for codes in product(range(len(names)), repeat=len(rows)) if allowed(codes)]
        likeliest = max(possible, key=lambda codes: np.prod(p[rows, list(codes)]))
        assert [next(rest) for _ in rows] == list(likeliest)
    assert isinstance(target.words, Words)
