"""One vector per word out of the states of its tokens."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from probekit.errors import CacheError, SpecError
from probekit.store import SUBWORDS, TokenStates, WordStates, word_matrix
from probekit.store.encoding import from_bfloat16, to_bfloat16

BY_HAND = {"mean": lambda rows: rows.mean(0), "first": lambda rows: rows[0], "last": lambda rows: rows[-1]}


def tokens(word, lengths, stored):
    """Token states whose example i has the ``word`` numbers of list i."""
    flat = np.array([w for row in word for w in row], dtype=np.int32)
    offsets = np.cumsum([0, *map(len, word)])
    return TokenStates(stored, offsets, np.zeros(len(flat), np.int32), np.zeros(len(flat), bool), flat)


@st.composite
def examples(draw):
    """Per example: words, some of them lost, special tokens (-1) around and between; in any order of pieces."""
    lengths = draw(st.lists(st.integers(1, 5), min_size=1, max_size=4))
    word = []
    for n in lengths:
        row = []
        for w in draw(st.permutations(range(n))):
            row += [-1] * draw(st.integers(0, 1)) + [w] * draw(st.integers(0, 3))
        word.append([-1, *row])
    return lengths, word


@given(examples(), st.sampled_from(SUBWORDS), st.sampled_from(["float32", "float16", "bfloat16"]), st.data())
def test_against_a_loop(example, how, dtype, data):
    lengths, word = example
    n_tokens = sum(map(len, word))
    stored = np.random.default_rng(0).standard_normal((n_tokens, 3)).astype(np.float32)
    values = stored
    if dtype == "bfloat16":
        bits = np.empty(stored.size, np.uint16)
        to_bfloat16(stored.reshape(-1), bits)
        stored, values = bits.reshape(-1, 3), from_bfloat16(bits).reshape(-1, 3)
    elif dtype == "float16":
        stored = stored.astype(np.float16)
        values = stored.astype(np.float32)
    matrix = word_matrix(tokens(word, lengths, stored), lengths, how)
    expected, start = [], 0
    for n, row in zip(lengths, word, strict=True):
        for w in range(n):
            at = [start + k for k, found in enumerate(row) if found == w]
            expected.append(BY_HAND[how](values[at]) if at else np.zeros(3))
        start += len(row)
    which = np.array(data.draw(st.permutations(range(sum(lengths)))))
    rows = WordStates(stored, matrix).rows(which)
    assert rows.dtype == np.float32
    np.testing.assert_allclose(rows, np.array(expected)[which], atol=1e-6)
    lost = np.diff(matrix.indptr) == 0
    assert lost.tolist() == [w not in row for n, row in zip(lengths, word, strict=True) for w in range(n)]


def test_only_the_tokens_of_the_words_asked_for_are_read():
    class Counting(np.ndarray):
        read = 0

        def __getitem__(self, at):
            Counting.read += len(at)
            return np.asarray(super().__getitem__(at))

    stored = np.zeros((6, 2), np.float32).view(Counting)
    matrix = word_matrix(tokens([[-1, 0, 0, 1, 2, -1]], [3], stored), [3], "mean")
    WordStates(stored, matrix).rows(np.array([0]))
    assert Counting.read == 2


def test_what_can_not_be():
    with pytest.raises(SpecError, match="--subword middle: one of mean, first, last"):
        word_matrix(tokens([[0]], [1], np.zeros((1, 2))), [1], "middle")
    with pytest.raises(CacheError, match="names a word that its example does not have"):
        word_matrix(tokens([[0, 1], [0]], [1, 1], np.zeros((3, 2))), [1, 1], "mean")
