"""Texts taken apart into words and tokens, and put together again without some of them."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from probekit.explanation.words import Bound, bind
from probekit.models.tokens import Encoded


def encoded(text, tokens, special=()):
    """``tokens``: (first character, the one after the last)."""
    n = len(tokens)
    return Encoded(
        ids=[np.arange(10, 10 + n, dtype=np.int32)],
        special=[np.isin(np.arange(n), special)],
        word=[np.zeros(n, dtype=np.int32)],
        offsets=[np.array(tokens, dtype=np.int32).reshape(-1, 2)],
        cuts=[()],
        truncated=np.zeros(1, dtype=bool),
        text_range=np.array([[0, n]]),
    )


def bound(text, tokens, special=(), over=None):
    return bind(encoded(text, tokens, special), [text], over=over, ids=["1"])[0]


def words(one):
    return [one.text[a:b] for a, b in one.words]


def test_subwords_are_of_their_word_and_special_tokens_of_none():
    one = bound("a superb film.", [(0, 0), (0, 1), (2, 5), (5, 8), (9, 13), (13, 14), (0, 0)], special=(0, 6))
    assert words(one) == ["a", "superb", "film", "."]
    assert one.unit.tolist() == [-1, 0, 1, 1, 2, 3, -1]
    assert one.read.tolist() == [0, 1, 2, 3]


def test_words_that_share_a_token_are_one():
    one = bound("so good!!! yes", [(0, 2), (2, 7), (7, 10), (10, 14)])
    assert words(one) == ["so", "good", "!!!", "yes"]
    assert one.unit.tolist() == [0, 1, 2, 3]


def test_what_stands_around_the_text_is_of_no_word():
    one = bound("good", [(-7, -3), (0, 4), (5, 9)])
    assert one.unit.tolist() == [-1, 0, -1]


def test_a_word_that_was_cut_off_has_no_token():
    one = bound("good film", [(0, 4)])
    assert words(one) == ["good", "film"]
    assert one.read.tolist() == [0]


def test_scripts_without_blanks_have_characters_for_words():
    one = bound("\u6771\u4eac is \u0e14\u0e35", [(0, 1), (1, 2), (3, 5), (6, 8)])
    assert words(one) == ["\u6771", "\u4eac", "is", "\u0e14\u0e35"]
    shared = bound("\u6771\u4eac\u90fd", [(0, 2), (2, 3)])
    assert words(shared) == ["\u6771\u4eac", "\u90fd"]
    emoji = bound("ok \U0001f600", [(0, 2), (3, 4), (3, 4), (3, 4)])
    assert emoji.unit.tolist() == [0, 1, 1, 1]


def test_a_text_without_some_tokens_is_shorter_or_masked():
    one = bound("a b c", [(0, 1), (2, 3), (4, 5)], over=np.array([[1, 3]]))
    gone = one.without(one.tokens_of([0]), 99)
    assert (gone.ids.tolist(), gone.over, gone.unit.tolist()) == ([11, 12], (0, 2), [1, 2])
    gone = one.without(one.tokens_of([1]), 99)
    assert (gone.ids.tolist(), gone.over) == ([10, 12], (1, 2))
    none = one.without(one.tokens_of([1, 2]), 99)  # nothing would be left to pool over
    assert (none.ids.tolist(), none.over) == ([10, 99, 99], (1, 3))
    assert one.blanked(one.tokens_of([2]), 99).ids.tolist() == [10, 11, 99]
    alone = bound("a", [(0, 1)])
    assert alone.without(alone.tokens_of([0]), 99).ids.tolist() == [99]


@given(st.text(alphabet="ab .!\u6771\u0e35", min_size=1, max_size=20), st.data())
def test_every_token_is_of_one_word_that_it_touches(text, data):
    cuts = sorted({0, len(text), *data.draw(st.lists(st.integers(0, len(text)), max_size=8))})
    tokens = [(a, b) for a, b in itertools.pairwise(cuts) if text[a:b].strip()]
    if not tokens:
        return
    one = bound(text, tokens)
    assert "".join(words(one)) == "".join(text.split()) or all(w.strip() for w in words(one))
    flat = [i for a, b in one.words for i in range(a, b)]
    assert flat == sorted(set(flat))
    for (a, b), unit in zip(tokens, one.unit.tolist(), strict=True):
        start, end = one.words[unit]
        touched = [i for i in range(a, b) if not text[i].isspace()]
        assert unit >= 0
        assert all(start <= i < end for i in touched)


def test_a_bound_text_knows_its_tokens():
    one = Bound(
        "1", "a b", np.array([1, 2], dtype=np.int32), np.array([0, 1], dtype=np.int32), ((0, 1), (2, 3)), None, 2
    )
    assert one.tokens_of([1]).tolist() == [False, True]
    with pytest.raises(ValueError, match="shape"):
        one.blanked(np.array([True, False, True]), 0)
