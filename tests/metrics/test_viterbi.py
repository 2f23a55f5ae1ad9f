"""The best of all valid sequences, found without looking at all of them."""

from __future__ import annotations

from itertools import pairwise, product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from probekit.errors import InputError
from probekit.metrics.viterbi import best_tags

TAGS = ["B-X", "B-Y", "I-X", "I-Y", "O"]
# In another order, and types of which training saw only one kind of tag.
TAG_SETS = [TAGS, ["I-Y", "O", "I-X", "B-Y", "B-X"], ["O", "B-X", "I-X", "I-Y"], ["B-X", "B-Y", "I-Y"], ["O"]]


def is_valid(tags):
    return all(tag[0] != "I" or before in ("B" + tag[1:], tag) for before, tag in pairwise(["O", *tags]))


def brute_force(log_p, tags):
    """The largest sum over all valid sequences."""
    valid = [path for path in product(range(len(tags)), repeat=len(log_p)) if is_valid([tags[k] for k in path])]
    return max(log_p[np.arange(len(log_p)), list(path)].sum() for path in valid)


def sentences_of(values, lengths):
    return np.split(values, np.cumsum(lengths)[:-1])


@st.composite
def problems(draw):
    tags = draw(st.sampled_from(TAG_SETS))
    lengths = np.array(draw(st.lists(st.integers(0, 4), min_size=1, max_size=4)))
    # Whole numbers are added without rounding, and tie often.
    numbers = hnp.arrays(np.float64, (int(lengths.sum()), len(tags)), elements=st.integers(-9, 0).map(float))
    return draw(numbers), tags, lengths


@given(problems())
def test_the_best_of_all_valid_sequences(problem):
    log_p, tags, lengths = problem
    best = best_tags(log_p, tags, lengths)
    assert best.shape == (len(log_p),)
    for of_sentence, path in zip(sentences_of(log_p, lengths), sentences_of(best, lengths), strict=True):
        assert is_valid([tags[k] for k in path])
        assert of_sentence[np.arange(len(path)), path].sum() == brute_force(of_sentence, tags)


@given(problems())
def test_a_valid_argmax_is_kept(problem):
    log_p, tags, lengths = problem
    best = best_tags(log_p, tags, lengths)
    argmax = log_p.argmax(axis=1)
    for single, path in zip(sentences_of(argmax, lengths), sentences_of(best, lengths), strict=True):
        if is_valid([tags[k] for k in single]):
            np.testing.assert_array_equal(path, single)


def test_a_valid_argmax_is_kept_where_tags_tie():
    log_p = np.log([[0.9, 0.1, 1e-9], [0.4, 0.2, 0.4], [1e-9, 0.1, 0.9]])
    assert best_tags(log_p, ["B-X", "O", "I-X"], np.array([3])).tolist() == log_p.argmax(axis=1).tolist() == [0, 0, 2]


def test_a_sentence_does_not_depend_on_those_beside_it():
    rng = np.random.default_rng(0)
    lengths = rng.integers(0, 30, 50)
    log_p = np.log(rng.dirichlet(np.ones(len(TAGS)), lengths.sum()))
    alone = [best_tags(part, TAGS, np.array([len(part)])) for part in sentences_of(log_p, lengths)]
    best = best_tags(log_p, TAGS, lengths)
    np.testing.assert_array_equal(best, np.concatenate(alone))
    assert (best != log_p.argmax(axis=1)).any()
    np.testing.assert_array_equal(best_tags(log_p.astype(np.float32), TAGS, lengths), best)


def test_one_word():
    log_p = np.log([[0.1, 0.2, 0.4, 0.25, 0.05]])
    assert [TAGS[k] for k in best_tags(log_p, TAGS, np.array([1]))] == ["B-Y"]  # I-X may not begin a sentence
    # Nor does it go on with the entity of the sentence before.
    two = np.vstack([np.log([[0.9, 0.02, 0.02, 0.03, 0.03]]), log_p])
    assert [TAGS[k] for k in best_tags(two, TAGS, np.array([1, 1]))] == ["B-X", "B-Y"]
    assert [TAGS[k] for k in best_tags(two, TAGS, np.array([2]))] == ["B-X", "I-X"]


def test_one_possible_path_among_impossible_tags():
    path = ["O", "B-Y", "I-Y", "I-Y", "B-X"]
    log_p = np.full((5, len(TAGS)), -np.inf)
    log_p[np.arange(5), [TAGS.index(tag) for tag in path]] = -3
    assert [TAGS[k] for k in best_tags(log_p, TAGS, np.array([5]))] == path
    log_p[2, TAGS.index("O")] = -1  # better by itself, but the next word can then only be an I- without its B-
    assert [TAGS[k] for k in best_tags(log_p, TAGS, np.array([5]))] == path


@pytest.mark.parametrize("tags", TAG_SETS)
def test_where_nothing_is_possible_the_tags_are_valid_all_the_same(tags):
    best = best_tags(np.full((4, len(tags)), -np.inf), tags, np.array([4]))
    assert is_valid([tags[k] for k in best])
    only_inside = np.full((4, len(TAGS)), -np.inf)
    only_inside[:, TAGS.index("I-X")] = 0
    assert [TAGS[k] for k in best_tags(only_inside, TAGS, np.array([4]))] == ["B-X", "I-X", "I-X", "I-X"]


def test_no_words():
    assert best_tags(np.zeros((0, 5)), TAGS, np.zeros(0, dtype=np.int64)).shape == (0,)
    assert best_tags(np.zeros((0, 5)), TAGS, np.array([0, 0])).shape == (0,)


def test_bad_input():
    with pytest.raises(InputError, match=r"log_probability: 3 words x 5 tags; got 2 x 5"):
        best_tags(np.zeros((2, 5)), TAGS, np.array([1, 2]))
    with pytest.raises(InputError, match=r"log_probability: 2 words x 5 tags; got 2 x 4"):
        best_tags(np.zeros((2, 4)), TAGS, np.array([2]))
    with pytest.raises(InputError, match=r"log_probability: no NaN"):
        best_tags(np.full((2, 5), np.nan), TAGS, np.array([2]))
    with pytest.raises(InputError, match=r"tags: at least one tag that may begin a sentence.*; got I-X"):
        best_tags(np.zeros((1, 1)), ["I-X"], np.array([1]))
    with pytest.raises(InputError, match=r"a tag in IOB2 is .*; got 'S-X'"):
        best_tags(np.zeros((1, 2)), ["O", "S-X"], np.array([1]))
