"""Heads as estimators: their answers against loops in NumPy, what they can learn, and that they leave no trace."""

from __future__ import annotations

import io

import numpy as np
import pytest
import skops.io
import torch
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.preprocessing import StandardScaler

from probekit.errors import SpecError
from probekit.heads.estimators import HeadClassifier, HeadRegressor, held_out
from probekit.heads.modules import HEADS
from probekit.ragged import RaggedArray, ragged
from probekit.saved import TRUSTED
from probekit.spec import HEAD_KINDS

QUICK = {"epochs": 8, "lr": 0.02}


def texts(n=120, d=6, seed=0):
    """Of one to five tokens, whose mean tells the class."""
    rng = np.random.default_rng(seed)
    rows = [rng.standard_normal((int(rng.integers(1, 6)), d)).astype(np.float32) for _ in range(n)]
    return ragged(rows), np.array([row[:, 0].mean() > 0 for row in rows])


def vectors(n=120, d=6, seed=0):
    X = np.random.default_rng(seed).standard_normal((n, d)).astype(np.float32)
    return X, X[:, 0] + X[:, 1] > 0


def data(kind, **options):
    return texts(**options) if kind == "attention" else vectors(**options)


@pytest.fixture(params=["mlp", "attention"])
def kind(request):
    return request.param


def attention_in_loops(weights, row):
    """Logits of one text, token by token."""
    seen = []
    for token in row.astype(float):
        normed = (token - token.mean()) / np.sqrt(token.var() + 1e-5)
        seen.append((normed - weights["standardise.mean"]) / weights["standardise.scale"])
    raised = [np.exp(token @ weights["query"] / np.sqrt(len(token))) for token in seen]
    pooled = sum(share * token for share, token in zip(raised, seen, strict=True)) / sum(raised)
    return weights["output.weight"] @ pooled + weights["output.bias"]


def mlp_in_loops(weights, row):
    seen = (row - weights["standardise.mean"]) / weights["standardise.scale"]
    hidden = [max(0.0, w @ seen + b) for w, b in zip(weights["hidden.weight"], weights["hidden.bias"], strict=True)]
    return weights["output.weight"] @ hidden + weights["output.bias"]


def rows_of(X):
    return [X.values[a:b] for a, b in zip(X.offsets[:-1], X.offsets[1:], strict=True)] if hasattr(X, "values") else X


@pytest.mark.parametrize("n_classes", [2, 3])
def test_answers_are_those_of_loops(kind, n_classes):
    X, _ = data(kind)
    y = np.arange(120) % n_classes
    head = HeadClassifier(kind, **QUICK, width=7).fit(X, y)
    loops = attention_in_loops if kind == "attention" else mlp_in_loops
    logits = np.array([loops({k: v.astype(float) for k, v in head.weights_.items()}, row) for row in rows_of(X)])
    logits = np.hstack([np.zeros((120, 1)), logits]) if n_classes == 2 else logits
    p = np.exp(logits - logits.max(1, keepdims=True))
    np.testing.assert_allclose(head.predict_proba(X), p / p.sum(1, keepdims=True), atol=1e-5)
    assert head.predict(X).tolist() == head.classes_[logits.argmax(1)].tolist()


def test_the_kinds_known_without_torch_are_those_there_are():
    assert tuple(HEADS) == HEAD_KINDS


def test_a_head_of_numbers_answers_in_their_own_units(kind):
    X, _ = data(kind)
    y = 100 + 20 * np.array([row.mean() for row in rows_of(X)])
    head = HeadRegressor(kind, **QUICK).fit(X, y)
    weights = {name: value.astype(float) for name, value in head.weights_.items()}
    loops = attention_in_loops if kind == "attention" else mlp_in_loops
    by_hand = [loops(weights, row)[0] * head.scale_[0] + head.mean_[0] for row in rows_of(X)]
    np.testing.assert_allclose(head.predict(X), by_hand, rtol=1e-5)
    rows = np.setdiff1d(np.arange(120), held_out(np.zeros(120), 0))
    assert head.mean_[0] == pytest.approx(y[rows].mean())


def test_what_a_line_divides_is_learnt(kind):
    X, y = data(kind, n=600, d=30)  # (of fewer dimensions the norm of a token takes much away)
    assert HeadClassifier(kind, epochs=30, lr=0.02, penalty=1e-2).fit(X[:400], y[:400]).score(X[400:], y[400:]) > 0.8


def test_the_attention_of_single_tokens_is_a_logistic_regression():
    """Trained for long, with one token in each text, it is scikit-learn's of the layer-normed token."""
    X, y = vectors(n=200)
    head = HeadClassifier("attention", dropout=0.0, penalty=0.05, lr=0.05, epochs=500, batch_size=200, stop=500)
    head.fit(RaggedArray(X, np.arange(201)), y)
    normed = (X - X.mean(1, keepdims=True)) / np.sqrt(X.var(1, keepdims=True) + 1e-5)
    Z = StandardScaler().fit_transform(normed)
    by_hand = LogisticRegression(C=1 / (0.05 * 200), tol=1e-8).fit(Z, y)
    np.testing.assert_allclose(head.predict_proba(RaggedArray(X, np.arange(201))), by_hand.predict_proba(Z), atol=1e-3)
    numbers = X[:, 0] * 5 + 3
    head = HeadRegressor("attention", dropout=0.0, penalty=0.05, lr=0.05, epochs=500, batch_size=200, stop=500)
    head.fit(RaggedArray(X, np.arange(201)), numbers)
    ridge = Ridge(alpha=0.05 * 200).fit(Z, (numbers - numbers.mean()) / numbers.std())
    found = (head.predict(RaggedArray(X, np.arange(201))) - numbers.mean()) / numbers.std()
    np.testing.assert_allclose(found, ridge.predict(Z), atol=1e-3)


def planted(n, d=16, seed=0):
    """Twenty tokens of noise, and one that is marked and says the class; noise says as much of it elsewhere."""
    rng = np.random.default_rng(seed)
    rows, y = [], rng.integers(0, 2, n)
    for label in y:
        tokens = rng.standard_normal((20, d)).astype(np.float32)
        tokens[:, 1] *= 3
        at = rng.integers(20)
        tokens[at, 0], tokens[at, 1] = 6, 4 * (2 * label - 1)
        rows.append(tokens)
    return ragged(rows), y


def test_one_token_among_noise_is_read_by_attention_and_not_by_the_mean():
    (X, y), (X_new, y_new) = planted(500), planted(400, seed=1)
    head = HeadClassifier("attention", lr=0.03, epochs=25, penalty=1e-3).fit(X, y)
    means, means_new = (np.array([row.mean(0) for row in rows_of(part)]) for part in (X, X_new))
    of_mean = HeadClassifier("mlp", epochs=25, penalty=1e-2).fit(means, y)
    assert head.score(X_new, y_new) > 0.93
    assert of_mean.score(means_new, y_new) < 0.75


def bytes_of(head):
    return b"".join(value.tobytes() for value in head.weights_.values())


def test_the_same_seed_gives_the_same_bytes_whatever_was_trained_before(kind):
    X, y = data(kind)
    first = HeadClassifier(kind, **QUICK).fit(X, y)
    HeadRegressor(kind, **QUICK, random_state=5).fit(X, y.astype(float))
    torch.manual_seed(77)
    np.random.seed(77)  # noqa: NPY002  (the caller's)
    assert bytes_of(HeadClassifier(kind, **QUICK).fit(X, y)) == bytes_of(first)
    assert bytes_of(HeadClassifier(kind, **QUICK, random_state=1).fit(X, y)) != bytes_of(first)


@pytest.mark.parametrize("fails", [False, True])
def test_generators_threads_and_modes_are_left_as_they_were(kind, fails):
    X, y = data(kind)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    torch.manual_seed(3)
    state, of_numpy = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    try:
        with torch.no_grad():
            head = HeadClassifier(kind, **QUICK).fit(X, y)
            head.predict(X)
            assert not torch.is_grad_enabled()
        if fails:
            head.weights_ = {}
            with pytest.raises(RuntimeError):
                head.predict(X)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert torch.equal(torch.get_rng_state(), state)
    np.testing.assert_array_equal(np.random.get_state()[1], of_numpy)  # noqa: NPY002


def test_dropout_is_off_in_answers_and_on_in_training(kind):
    X, y = data(kind)
    head = HeadClassifier(kind, **QUICK, dropout=0.7).fit(X, y)
    np.testing.assert_array_equal(head.predict_proba(X), head.predict_proba(X))
    assert bytes_of(head) != bytes_of(HeadClassifier(kind, **QUICK, dropout=0.0).fit(X, y))


def test_rows_alone_and_together_are_answered_alike(kind):
    X, y = data(kind, n=300)
    head = HeadClassifier(kind, **QUICK).fit(X, y)
    alone = np.concatenate([head.predict_proba(X[[i]]) for i in range(20)])
    np.testing.assert_allclose(alone, head.predict_proba(X)[:20], atol=1e-6)


@pytest.mark.parametrize("labels", [["b", "a"], [7, -3], [True, False], ["x", None]], ids=str)
def test_labels_of_any_kind_and_two_rows_of_each(kind, labels):
    X, _ = data(kind, n=4)
    y = np.array([str(name) if None in labels else name for name in labels * 2])
    head = HeadClassifier(kind, **QUICK).fit(X, y)
    assert head.classes_.tolist() == sorted(set(y.tolist()))
    assert head.predict(X).dtype == y.dtype
    assert head.predict_proba(X).shape == (4, 2)
    assert head.n_epochs_ == 8  # nothing could be held out


def test_a_tenth_is_held_out_in_proportion_and_never_learnt_from(kind):
    y = np.repeat(["a", "b", "c"], [60, 25, 4])
    held = held_out(y, 3)
    assert [np.count_nonzero(y[held] == name) for name in "abc"] == [6, 3, 0]
    assert held.tolist() != held_out(y, 4).tolist()
    X, _ = data(kind, n=89)
    first = HeadClassifier(kind, **QUICK, random_state=3).fit(X, y)
    moved = RaggedArray(X.values.copy(), X.offsets) if kind == "attention" else X.copy()
    values = getattr(moved, "values", moved)
    values[moved.offsets[held[0]] if kind == "attention" else held[0]] += 1e3
    again = HeadClassifier(kind, **QUICK, random_state=3).fit(moved, y)
    np.testing.assert_array_equal(again.weights_["standardise.mean"], first.weights_["standardise.mean"])


def test_training_ends_early_and_keeps_the_best_epoch():
    X, _ = vectors(n=60, d=50)
    y = np.random.default_rng(0).permutation(np.arange(60) % 2)  # nothing to learn
    head = HeadClassifier(epochs=60, lr=0.02, patience=2, penalty=0.0).fit(X, y)
    assert head.n_epochs_ < 20
    whole = clone(head).set_params(stop=7).fit(X, y)
    assert whole.n_epochs_ == 7
    curve = clone(head).scores_by_epoch(X, y, np.arange(40), np.arange(40, 60))
    assert len(curve) == 61
    assert curve[60] < curve.max() < 0


def test_scores_by_epoch_are_those_of_the_head_after_it(kind):
    X, y = data(kind)
    rows, held = np.arange(80), np.arange(80, 120)
    head = HeadClassifier(kind, **QUICK)
    curve = head.scores_by_epoch(X, y, rows, held)
    best = clone(head).set_params(stop=int(curve[1:].argmax()) + 1).fit(X[rows], y[rows])
    p = best.predict_proba(X[held])[np.arange(40), y[held].astype(int)]
    assert curve[1:].max() == pytest.approx(np.log(p).mean(), abs=1e-5)
    numbers = HeadRegressor(kind, **QUICK)
    z = np.array([row.mean() for row in rows_of(X)]) + 3
    curve = numbers.scores_by_epoch(X, z, rows, held)
    best = clone(numbers).set_params(stop=int(curve[1:].argmax()) + 1).fit(X[rows], z[rows])
    assert curve[1:].max() == pytest.approx(best.score(X[held], z[held]), abs=1e-5)


def test_scores_leave_out_what_can_not_be_scored():
    X, _ = vectors(n=9)
    y = np.array(["a", "b", "a", "b", "c", "c", "a", "c", "b"])
    head = HeadClassifier(**QUICK)
    some = head.scores_by_epoch(X, y, np.arange(4), np.arange(4, 9))
    np.testing.assert_array_equal(some, head.scores_by_epoch(X, y, np.arange(4), np.array([6, 8])))
    assert np.isnan(head.scores_by_epoch(X, y, np.arange(4), np.array([4, 5]))).all()
    assert np.isnan(HeadRegressor(**QUICK).scores_by_epoch(X, np.arange(9.0), np.arange(4), np.array([5]))).all()


def test_kept_by_skops_it_answers_the_same(kind):
    X, y = data(kind)
    for head in (HeadClassifier(kind, **QUICK).fit(X, y), HeadRegressor(kind, **QUICK).fit(X, y + 0.5)):
        again = skops.io.load(io.BytesIO(skops.io.dumps(head)), trusted=list(TRUSTED))
        assert again.get_params() == head.get_params()
        np.testing.assert_array_equal(again.predict(X), head.predict(X))


@pytest.mark.parametrize(
    ("head", "X", "message"),
    [
        (HeadClassifier("attention"), vectors()[0], r"X: must be the tokens of texts"),
        (HeadClassifier("mlp"), texts()[0], r"X: must be an array \(n, d\)"),
        (HeadClassifier("linear"), vectors()[0], "kind 'linear': one of mlp, attention"),
    ],
    ids=["pooled for attention", "tokens for mlp", "kind"],
)
def test_what_can_not_be_read_is_refused(head, X, message):
    with pytest.raises(SpecError, match=message):
        head.fit(X, np.arange(120) % 2)


def test_another_number_of_features_is_refused(kind):
    X, y = data(kind)
    head = HeadClassifier(kind, **QUICK).fit(X, y)
    with pytest.raises(SpecError, match="X: must have 6 features; got 5"):
        head.predict(data(kind, d=5)[0])


def test_ragged_rows():
    X, _ = texts(n=10)
    parts = rows_of(X)
    for which in (np.array([3, 0, 3]), np.arange(10) > 6, slice(2, 5), np.arange(0)):
        found = X[which]
        expected = [parts[i] for i in np.arange(10)[which]]
        assert found.shape == (len(expected), 6)
        assert found.lengths.tolist() == [len(part) for part in expected]
        np.testing.assert_array_equal(found.values, np.concatenate([np.empty((0, 6)), *expected]))
