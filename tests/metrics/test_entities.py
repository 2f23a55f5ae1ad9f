"""The scores are seqeval's, and entities are counted where tags would flatter."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from seqeval import metrics as seqeval
from seqeval.scheme import IOB2

from probekit.errors import InputError
from probekit.metrics.entities import entity_counts, entity_f1, entity_precision, entity_recall, entity_table

TAGS = ["O", "O", "B-X", "I-X", "B-Y", "I-Y", "B-a-b", "I-a-b"]
MODES = {True: {"mode": "strict", "scheme": IOB2}, False: {}}

tag_pairs = st.lists(st.lists(st.tuples(st.sampled_from(TAGS), st.sampled_from(TAGS)), max_size=9), max_size=5)
# Mostly right, so that right entities are not the exception.
near_pairs = st.lists(
    st.lists(
        st.sampled_from(TAGS).flatmap(lambda tag: st.tuples(st.just(tag), st.sampled_from([tag] * 5 + TAGS))),
        max_size=9,
    ),
    max_size=5,
)


def both(pairs):
    return tuple([[pair[side] for pair in sentence] for sentence in pairs] for side in (0, 1))


@pytest.mark.parametrize("strict", [True, False])
@given(tag_pairs | near_pairs)
def test_sums_give_the_scores_of_seqeval(strict, pairs):
    truth, predicted = both(pairs)
    counts = entity_counts(truth, predicted, strict=strict)
    assert counts.shape == (len(pairs), 3)
    assert counts.dtype == np.float64
    sums = counts.sum(axis=0)
    if sums[1] + sums[2] == 0:
        assert np.isnan([entity_precision(sums), entity_recall(sums), entity_f1(sums)]).all()
        return
    for of_sums, theirs in (
        (entity_precision, seqeval.precision_score),
        (entity_recall, seqeval.recall_score),
        (entity_f1, seqeval.f1_score),
    ):
        expected = theirs(truth, predicted, zero_division=0, **MODES[strict])
        assert float(of_sums(sums)) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("strict", [True, False])
@given(tag_pairs | near_pairs)
def test_the_table_is_that_of_seqeval(strict, pairs):
    truth, predicted = both(pairs)
    table = entity_table(truth, predicted, strict=strict)
    if not table:
        assert entity_counts(truth, predicted, strict=strict).sum() == 0
        return
    report = seqeval.classification_report(truth, predicted, output_dict=True, zero_division=0, **MODES[strict])
    expected = {kind: row for kind, row in report.items() if not kind.endswith(" avg")}
    assert [row["class"] for row in table] == sorted(expected)
    for row in table:
        theirs = expected[row["class"]]
        assert row["precision"] == pytest.approx(theirs["precision"])
        assert row["recall"] == pytest.approx(theirs["recall"])
        assert row["f1"] == pytest.approx(theirs["f1-score"])
        assert row["support"] == theirs["support"]
        assert type(row["support"]) is int


def test_scores_of_many_sums_at_once():
    sums = np.array([[[1, 2, 4], [0, 3, 0]], [[0, 0, 5], [0, 0, 0]]], dtype=float)
    np.testing.assert_allclose(entity_precision(sums), [[0.5, 0], [0, np.nan]])
    np.testing.assert_allclose(entity_recall(sums), [[0.25, 0], [0, np.nan]])
    np.testing.assert_allclose(entity_f1(sums), [[1 / 3, 0], [0, np.nan]])


@pytest.mark.parametrize("strict", [True, False])
def test_a_predictor_of_o_has_most_tags_right_and_no_entity(strict):
    truth = [["O"] * 18 + ["B-X", "I-X"]]
    predicted = [["O"] * 20]
    assert np.mean(np.array(truth) == np.array(predicted)) == 0.9
    counts = entity_counts(truth, predicted, strict=strict)
    assert counts.tolist() == [[0, 0, 1]]
    assert entity_f1(counts.sum(axis=0)) == 0


@pytest.mark.parametrize(
    ("truth", "predicted", "strict_counts", "lenient_counts"),
    [
        # I- without its B-: an entity for the lenient reading only.
        ("O B-X I-X O", "O I-X I-X O", (0, 0, 1), (1, 1, 1)),
        ("B-X I-X", "B-X I-Y", (0, 1, 1), (0, 2, 1)),
        # Entities that touch are two, and one if the second's B- is missed.
        ("B-X B-X", "B-X B-X", (2, 2, 2), (2, 2, 2)),
        ("B-X B-X", "B-X I-X", (0, 1, 2), (0, 1, 2)),
        ("B-X B-Y I-Y", "B-X B-Y I-Y", (2, 2, 2), (2, 2, 2)),
        # The type and both ends must be right.
        ("B-X I-X O", "B-Y I-Y O", (0, 1, 1), (0, 1, 1)),
        ("B-X I-X O", "B-X I-X I-X", (0, 1, 1), (0, 1, 1)),
        ("O B-X I-X", "B-X I-X I-X", (0, 1, 1), (0, 1, 1)),
        # The last word of a sentence ends its entity.
        ("O O B-X", "O O B-X", (1, 1, 1), (1, 1, 1)),
        ("O B-X I-X", "O B-X I-X", (1, 1, 1), (1, 1, 1)),
        ("O", "O", (0, 0, 0), (0, 0, 0)),
        ("", "", (0, 0, 0), (0, 0, 0)),
    ],
)
def test_counts_by_hand(truth, predicted, strict_counts, lenient_counts):
    sides = [truth.split()], [predicted.split()]
    assert tuple(entity_counts(*sides, strict=True)[0]) == strict_counts
    assert tuple(entity_counts(*sides, strict=False)[0]) == lenient_counts


def test_an_entity_does_not_go_on_in_the_next_sentence():
    truth = [["B-X"], ["I-X", "O"]]
    assert entity_counts(truth, truth, strict=True).tolist() == [[1, 1, 1], [0, 0, 0]]
    assert entity_counts(truth, truth, strict=False).tolist() == [[1, 1, 1], [1, 1, 1]]


def test_tags_may_be_arrays():
    truth = [np.array(["B-X", "I-X", "O"]), np.array(["O"], dtype=object)]
    for strict in (True, False):
        assert entity_counts(truth, [tags.tolist() for tags in truth], strict=strict).tolist() == [[1, 1, 1], [0, 0, 0]]


def test_no_sentences():
    assert entity_counts([], [], strict=True).shape == (0, 3)
    assert entity_table([], [], strict=True) == []


@pytest.mark.parametrize("function", [entity_counts, entity_table])
@pytest.mark.parametrize("strict", [True, False])
def test_what_is_not_comparable(function, strict):
    with pytest.raises(InputError, match=r"predicted: as many sentences as the truth has, 1; got 2"):
        function([["O"]], [["O"], ["O"]], strict=strict)
    with pytest.raises(InputError, match=r"predicted, sentence 2: one tag for each of 1 words; got 2"):
        function([["O"], ["O"]], [["O"], ["O", "O"]], strict=strict)
    with pytest.raises(InputError, match=r"tags: a tag in IOB2 is .*; got 'E-X'"):
        function([["O", "O"]], [["B-X", "E-X"]], strict=strict)
    with pytest.raises(InputError, match=r"; got 'NOUN'"):
        function([["NOUN"]], [["O"]], strict=strict)
