"""Every column against an independent calculation."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics as sk

from probekit.metrics.classification import classification_metrics
from probekit.metrics.regression import regression_metrics
from probekit.metrics.score import SCORES
from probekit.tasks import TASKS


def simulated_classes(seed: int, n: int = 200, k: int = 4) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, k, n)
    logits = rng.standard_normal((n, k)) + 1.5 * np.eye(k)[truth]
    probability = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return truth, probability.argmax(axis=1), probability


# --- classes


@pytest.mark.parametrize("k", [3, 4, 10])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_many_classes_agree_with_scikit_learn(k, dtype):
    truth, predicted, probability = simulated_classes(k, k=k)
    probability = probability.astype(dtype)
    found = classification_metrics(truth, predicted, probability)
    areas = [sk.roc_auc_score(truth == c, probability[:, c]) for c in range(k)]
    expected = {
        "accuracy": sk.accuracy_score(truth, predicted),
        "balanced_accuracy": sk.balanced_accuracy_score(truth, predicted),
        "macro_f1": sk.f1_score(truth, predicted, average="macro"),
        "mcc": sk.matthews_corrcoef(truth, predicted),
        "log_loss": float(-np.log(probability[np.arange(len(truth)), truth].astype(float)).mean()),
        "auroc": float(np.mean(areas)),
    }
    assert tuple(found) == tuple(expected) == TASKS["classification"].columns
    assert found == pytest.approx(expected, rel=1e-6)
    assert all(isinstance(value, float) for value in found.values())


def test_two_classes_agree_with_scikit_learn_and_hand_formulas():
    truth, predicted, probability = simulated_classes(1, k=2)
    found = classification_metrics(truth, predicted, probability)
    tp, tn = ((predicted == c) & (truth == c) for c in (1, 0))
    fp, fn = ((predicted == c) & (truth != c) for c in (1, 0))
    tp, tn, fp, fn = (float(x.sum()) for x in (tp, tn, fp, fn))
    assert found["auroc"] == pytest.approx(sk.roc_auc_score(truth, probability[:, 1]))
    assert found["log_loss"] == pytest.approx(sk.log_loss(truth, probability))
    assert found["accuracy"] == pytest.approx((tp + tn) / 200)
    assert found["balanced_accuracy"] == pytest.approx((tp / (tp + fn) + tn / (tn + fp)) / 2)
    assert found["macro_f1"] == pytest.approx((2 * tp / (2 * tp + fp + fn) + 2 * tn / (2 * tn + fp + fn)) / 2)
    product = (tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)
    assert found["mcc"] == pytest.approx((tp * tn - fp * fn) / product**0.5)


def test_auroc_counts_a_tie_as_half():
    truth = np.array([1, 1, 0, 0])
    score = np.array([0.8, 0.3, 0.3, 0.1])
    found = classification_metrics(truth, (score > 0.5).astype(int), np.column_stack([1 - score, score]))
    assert found["auroc"] == (1 + 1 + 0.5 + 1) / 4


def test_a_class_that_training_never_saw_makes_the_log_loss_undefined():
    truth = np.array([0, 1, 2, 0])
    probability = np.array([[0.6, 0.4, 0], [0.3, 0.7, 0], [0.5, 0.5, 0], [0.9, 0.1, 0]])
    found = classification_metrics(truth, probability.argmax(axis=1), probability)
    assert np.isnan(found["log_loss"])
    assert found["accuracy"] == 0.75
    assert found["balanced_accuracy"] == pytest.approx(2 / 3)
    # It is no reason for NaN where no row of the test part has that class.
    assert classification_metrics(truth[:2], np.array([0, 1]), probability[:2])["log_loss"] == pytest.approx(
        -np.log([0.6, 0.7]).mean()
    )


def test_a_class_absent_from_the_test_part_is_left_out():
    truth = np.array([0, 1, 1, 0])
    probability = np.array([[0.6, 0.3, 0.1], [0.1, 0.2, 0.7], [0.2, 0.7, 0.1], [0.5, 0.4, 0.1]])
    found = classification_metrics(truth, probability.argmax(axis=1), probability)
    assert found["balanced_accuracy"] == pytest.approx((1 + 0.5) / 2)  # classes of the truth
    assert found["macro_f1"] == pytest.approx((1 + 2 / 3 + 0) / 3)  # and of the predictions
    assert found["auroc"] == pytest.approx((1 + 0.5) / 2)


def test_one_class_in_the_test_part():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = classification_metrics(np.ones(3, dtype=int), np.array([1, 1, 0]), np.full((3, 2), 0.5))
    assert np.isnan(found["auroc"])
    assert found["mcc"] == 0
    assert found["accuracy"] == found["balanced_accuracy"] == pytest.approx(2 / 3)
    assert found["log_loss"] == pytest.approx(np.log(2))


def test_one_row():
    found = classification_metrics(np.array([1]), np.array([1]), np.array([[0.2, 0.8]]))
    assert (found["accuracy"], found["balanced_accuracy"], found["macro_f1"], found["mcc"]) == (1, 1, 1, 0)


def test_a_certain_mistake_costs_much_but_not_infinitely_much():
    truth = np.array([0, 1, 0])
    for dtype in (np.float64, np.float32):
        probability = np.array([[0, 1], [0, 1], [1, 0]], dtype=dtype)
        found = classification_metrics(truth, np.array([1, 1, 0]), probability)
        assert found["log_loss"] == pytest.approx(sk.log_loss(truth, probability), rel=1e-6)


def test_without_probabilities_two_columns_are_undefined():
    found = classification_metrics(np.array([0, 1]), np.array([0, 1]), None)
    assert np.isnan([found["log_loss"], found["auroc"]]).all()
    assert found["mcc"] == 1


# --- numbers


@pytest.mark.parametrize("seed", range(3))
def test_numbers_agree_with_scikit_learn_and_scipy(seed):
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 20, 150).astype(float)  # with ties
    predicted = np.round(0.5 * truth + 3 + rng.standard_normal(150), 1)
    found = regression_metrics(truth, predicted)
    expected = {
        "r2": sk.r2_score(truth, predicted),
        "rmse": sk.root_mean_squared_error(truth, predicted),
        "mae": sk.mean_absolute_error(truth, predicted),
        "pearson": stats.pearsonr(truth, predicted).statistic,
        "spearman": stats.spearmanr(truth, predicted).statistic,
    }
    assert tuple(found) == tuple(expected) == TASKS["regression"].columns
    assert found == pytest.approx(expected, rel=1e-10)


def test_r2_is_not_the_squared_correlation():
    truth = np.arange(10.0)
    found = regression_metrics(truth, 100 - 3 * truth)
    assert found["pearson"] == pytest.approx(-1)
    assert found["r2"] < -100


@pytest.mark.parametrize("value", [0.1, 0.0, 1e6 + 0.1])
def test_constant_sides_are_undefined_and_not_minus_infinity(value):
    constant, varied = np.full(7, value), np.arange(7.0)
    found = regression_metrics(constant, varied)
    assert np.isnan([found["r2"], found["pearson"], found["spearman"]]).all()
    assert found["mae"] == pytest.approx(np.abs(varied - value).mean())
    found = regression_metrics(varied, constant)
    assert np.isnan([found["pearson"], found["spearman"]]).all()
    assert found["r2"] == pytest.approx(sk.r2_score(varied, constant))
    assert np.isnan(SCORES["r2"](constant, varied))


@pytest.mark.parametrize("offset", [0.0, 1e6])
def test_a_large_offset_costs_no_digits(offset):
    rng = np.random.default_rng(0)
    truth = offset + rng.standard_normal(100)
    predicted = truth + 0.5 * rng.standard_normal(100)
    found = regression_metrics(truth, predicted)
    assert found["pearson"] == pytest.approx(stats.pearsonr(truth - offset, predicted - offset).statistic, rel=1e-8)
    assert SCORES["r2"](truth, predicted) == pytest.approx(found["r2"], rel=1e-8)


# --- the two scores that choose


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=30))
def test_scores_are_the_columns_of_the_same_name(pairs):
    truth, predicted = np.array(pairs).T
    assert SCORES["accuracy"](truth, predicted) == pytest.approx(sk.accuracy_score(truth, predicted))
    numbers = regression_metrics(truth.astype(float), predicted.astype(float))
    assert SCORES["r2"](truth.astype(float), predicted.astype(float)) == pytest.approx(numbers["r2"], nan_ok=True)
