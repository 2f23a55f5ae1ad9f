"""Baselines learn from training rows only; shuffled labels mean nothing but look the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.feature_extraction.text import TfidfVectorizer

from probekit.errors import InputError
from probekit.evaluate.controls import (
    shuffled_labels,
    word_counts,
)
from probekit.probes.text import MAX_WORDS, text_pipeline
from probekit.tasks import Target
from probekit.tasks.classes import CLASSES, majority_class
from probekit.tasks.numbers import NUMBERS, mean_value


def test_majority_and_mean():
    assert majority_class(coded([1, 1, 0, 2, 1]), np.arange(5), np.arange(4)).tolist() == [1, 1, 1, 1]
    assert majority_class(coded([3, 1, 3, 1, 0, 2]), np.arange(4), np.arange(2)).tolist() == [1, 1]  # the lowest
    assert majority_class(coded([5, 0]), np.arange(1), np.arange(2)).dtype == np.int64
    measured = Target("t", NUMBERS, np.array([1.0, 2.0, 6.0, 9.0]), np.empty(0), np.empty(0, dtype=np.int64))
    assert mean_value(measured, np.arange(3), np.arange(2)).tolist() == [3, 3]


def coded(codes):
    return Target("t", CLASSES, np.array(codes), np.arange(6), np.array(codes))


TEXTS = ["the cat sat", "the dog sat down", "a bird sang", "zebra zebra zebra", "the zebra sat"]
TRAIN = np.array([0, 1, 2])


def of_texts(texts, fit_on):
    counts = word_counts(texts)
    return text_pipeline("passthrough").fit(counts[fit_on]).transform(counts)


def test_words_of_test_rows_are_unknown():
    """The trap: fitted on all texts, "zebra" would have a column."""
    features = of_texts(TEXTS, TRAIN)
    assert features[3].nnz == 0
    # Neither does a test row move any weight: other test texts, the same features of the training rows.
    others = of_texts([*TEXTS[:3], "cat", "the the sat a bird sang"], TRAIN)
    np.testing.assert_array_equal(features[:3].toarray(), others[:3].toarray())
    assert features.shape[1] == others.shape[1]
    words = {"the", "cat", "sat", "dog", "down", "a", "bird", "sang"}
    pairs = {"the cat", "cat sat", "the dog", "dog sat", "sat down", "a bird", "bird sang"}
    assert features.shape == (5, len(words | pairs))


def test_features_are_those_of_scikit_learn_fitted_on_train():
    vectorizer = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"\w+|[^\w\s]")
    vectorizer.fit([TEXTS[i] for i in TRAIN])
    features = of_texts(TEXTS, TRAIN)
    np.testing.assert_allclose(features.toarray(), vectorizer.transform(TEXTS).toarray(), rtol=1e-6)
    assert features.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(features.toarray()[:3], axis=1), 1, rtol=1e-6)


def test_real_texts_have_the_features_of_a_vectorizer_that_reads_them(real_texts):
    """More words than the vocabulary takes in, and many equally common ones at its end."""
    fit_on = np.random.default_rng(0).permutation(len(real_texts))[: len(real_texts) // 2]
    options = {"ngram_range": (1, 2), "sublinear_tf": True, "max_features": MAX_WORDS, "dtype": np.float32}
    vectorizer = TfidfVectorizer(token_pattern=r"(?u)\w+|[^\w\s]", **options).fit([real_texts[i] for i in fit_on])
    assert (of_texts(real_texts, fit_on) != vectorizer.transform(real_texts)).nnz == 0
    assert len(vectorizer.vocabulary_) == MAX_WORDS


@pytest.fixture
def real_texts():
    path = Path(__file__).parents[3] / "shared" / "data" / "sst2" / "train.tsv"
    if not path.exists():
        pytest.skip("no SST-2 beside the checkout")
    return [line.split("\t")[0] for line in path.read_text(encoding="utf-8").split("\n")[1:] if line]


def test_one_letter_words_and_signs_count():
    features = of_texts(["a ! ?", "b !", "日本 は"], np.array([0, 1, 2]))
    assert features.shape[1] == len({"a", "b", "!", "?", "日本", "は", "a !", "! ?", "b !", "日本 は"})


def test_the_vocabulary_has_an_end():
    texts = [" ".join(f"w{i}" for i in range(start, start + 700)) for start in range(0, 14_000, 700)]
    assert of_texts(texts, np.arange(20)).shape == (20, MAX_WORDS)


def test_texts_without_a_word():
    with pytest.raises(InputError, match="words to count"):
        of_texts([" ", "\n", "word"], np.array([0, 1]))


@settings(max_examples=50, deadline=None)
@given(y=st.lists(st.integers(0, 3), min_size=6, max_size=60), seed=st.integers(0, 5))
def test_each_part_keeps_its_labels(y, seed):
    y = np.array(y)
    order = np.random.default_rng(0).permutation(len(y))
    parts = [order[:3], order[3:5]]  # the rest is in no part
    before = y.copy()
    shuffled = shuffled_labels(y, parts, seed=seed)
    np.testing.assert_array_equal(y, before)
    for rows in parts:
        assert sorted(shuffled[rows]) == sorted(y[rows])
    np.testing.assert_array_equal(shuffled[order[5:]], y[order[5:]])
    np.testing.assert_array_equal(shuffled, shuffled_labels(y, parts, seed=seed))


def test_shuffled_labels_have_nothing_to_do_with_the_real_ones():
    y = np.repeat([0, 1], 5000)
    parts = [np.arange(0, 10_000, 2), np.arange(1, 10_000, 2)]
    shuffled = shuffled_labels(y, parts, seed=0)
    assert abs((shuffled == y).mean() - 0.5) < 0.03
    assert abs((shuffled == shuffled_labels(y, parts, seed=1)).mean() - 0.5) < 0.03


def test_numbers_and_text_labels_are_shuffled_too():
    rows = [np.arange(4)]
    assert sorted(shuffled_labels(np.array([0.1, 0.2, 0.3, 0.4]), rows, seed=0)) == [0.1, 0.2, 0.3, 0.4]
    assert sorted(shuffled_labels(np.array(["b", "a", "d", "c"]), rows, seed=0)) == ["a", "b", "c", "d"]


def test_equal_texts_get_equal_labels_where_asked():
    rng = np.random.default_rng(0)
    texts = [f"text {i}" for i in rng.integers(0, 60, 300)]
    y = rng.integers(0, 3, 300)
    parts = [np.arange(200), np.arange(200, 250), np.arange(250, 300)]
    labels: dict[str, set[int]] = {}
    for text, label in zip(texts, shuffled_labels(y, parts, seed=0, texts=texts), strict=True):
        labels.setdefault(text, set()).add(int(label))
    assert all(len(found) == 1 for found in labels.values())
    assert len(set().union(*labels.values())) == 3
    # Not asked: they differ somewhere.
    plain = shuffled_labels(y, parts, seed=0)
    assert any(len({int(plain[i]) for i in range(300) if texts[i] == text}) > 1 for text in set(texts))
    # Where no text comes twice, asking changes nothing.
    unique = [f"text {i}" for i in range(300)]
    np.testing.assert_array_equal(shuffled_labels(y, parts, seed=0, texts=unique), plain)


def test_punctuation_is_no_part_of_a_word():
    """Trap: "film." as another word than "film" makes the baseline weak, and the probe look good."""
    X = of_texts(['"Film."', "film", "a film!"], np.arange(3)).toarray()
    shared = X @ X.T
    assert (shared > 0.01).all(), shared
