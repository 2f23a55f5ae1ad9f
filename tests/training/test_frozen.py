"""Heads on cached states against scikit-learn, fitted here anew on the same rows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.special import expit, softmax
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from probekit.heads.losses import CLASSES, LABELS, NUMBERS
from probekit.heads.modules import Shape, make_head
from probekit.training.frozen import cached_reader, head_loss, new_head, train_frozen
from probekit.training.start import start_at_probe
from probekit.training.truth import answers, read_truth
from tests.training.trained import parts_of, planned, table, trained

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
CONVERGED = {"solver": "lbfgs", "init": "random"}


def states_of(given, layer=1):
    """Standardised by the training rows."""
    states = np.asarray(given.cache.layer(layer, "mean"), dtype=np.float64)
    return StandardScaler().fit(states[parts_of(given.cache)["train"]]).transform(states)


def logits_of(given, training, layer=1):
    with torch.no_grad():
        return training.heads.modules[0](torch.from_numpy(np.array(given.cache.layer(layer, "mean")))).double().numpy()


def logistic(C):
    return LogisticRegression(C=C, tol=1e-10, max_iter=20_000)


@pytest.mark.parametrize("target", ["label", "kind"])
@pytest.mark.parametrize("C", [None, 0.05, 3.0])
def test_a_linear_head_trained_to_convergence_is_logistic_regression(given, target, C):
    rows, y = parts_of(given.cache)["train"], np.array(given.cache.column(target).tolist())
    _, (chosen,) = planned(given, [target], layer=1)
    asked = None if C is None else 1 / (C * len(rows))
    C = C or chosen.probes[0].estimator[-1].C
    X = states_of(given)
    expected = logistic(C).fit(X[rows], y[rows]).predict_proba(X)
    logits = logits_of(given, trained(given, [target], layer=1, penalty=asked, **CONVERGED))
    found = np.column_stack([expit(-logits), expit(logits)]) if logits.shape[1] == 1 else softmax(logits, axis=1)
    np.testing.assert_allclose(found, expected, atol=1e-3)


@pytest.mark.parametrize("alpha", [None, 0.3, 100.0])
def test_a_linear_head_trained_to_convergence_is_ridge(given, alpha):
    rows, y = parts_of(given.cache)["train"], np.array(given.cache.column("score").tolist())
    _, (chosen,) = planned(given, ["score"], layer=1)
    asked = None if alpha is None else alpha / len(rows)
    alpha = alpha or chosen.probes[0].estimator[-1].alpha
    X = states_of(given)
    expected = Ridge(alpha=alpha).fit(X[rows], y[rows]).predict(X)
    training = trained(given, ["score"], layer=1, penalty=asked, **CONVERGED)
    found = training.heads.estimator(0).predict(logits_of(given, training).astype(np.float32))
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_several_labels_are_a_logistic_regression_each(given):
    rows, lists = parts_of(given.cache)["train"], table()["topics"]
    names = ["actor", "film", "plot"]
    X, C = states_of(given), 0.5
    training = trained(given, ["topics"], layer=1, penalty=1 / (C * len(rows) * 3), **CONVERGED)
    found = expit(logits_of(given, training))
    for k, name in enumerate(names):
        y = np.array([name in of for of in lists])
        np.testing.assert_allclose(found[:, k], logistic(C).fit(X[rows], y[rows]).predict_proba(X)[:, 1], atol=1e-3)


def test_steps_lead_towards_what_lbfgs_finds_and_never_below(given):
    exact = trained(given, ["label"], layer=1, penalty=0.05, **CONVERGED)
    plan, (chosen,) = planned(given, ["label"], layer=1, penalty=0.05, init="random", epochs=150, patience=150)
    problem, _ = train_frozen(given.cache, chosen, 0, plan.options, state=None, on_step=lambda *_: None)
    start = make_head(Shape("linear", 16, 1), seed=0)
    start.load_state_dict(problem.head.state_dict())
    problem.head.output.load_state_dict(exact.heads.modules[0].output.state_dict())
    rows = problem.train_rows
    with torch.no_grad():
        least = float(problem.loss(rows, rows, [True]))
        problem.head = start
        found = float(problem.loss(rows, rows, [True]))
    assert least - 1e-7 <= found < np.log(2)


@pytest.mark.parametrize("target", ["label", "kind", "score", "topics", "tag"])
def test_before_any_step_a_head_answers_as_its_probe(given, tagged, target):
    given = tagged if target == "tag" else given
    name = given.cache.columns[0] if target == "tag" else target
    plan, (chosen,) = planned(given, [name], layer=1)
    fit, probe = chosen.fits[0], chosen.probes[0].estimator
    truth, read = read_truth(fit.target, fit.split), cached_reader(given.cache, chosen, fit)
    head = new_head(chosen, 0, truth, plan.options, read, given.cache.d_model)
    rows = fit.target.readable(np.concatenate([fit.split.train, fit.split.val, fit.split.test]))
    with torch.no_grad():
        logits = head(read(rows)).numpy()
    states = read(rows).numpy()
    mine = answers(truth.link, fit.target.classes, truth.mean, truth.scale)
    expected, found = probe.predict(states), mine.predict(logits)
    if target == "score":
        np.testing.assert_allclose(found, expected, rtol=1e-5)
        return
    np.testing.assert_array_equal(found, expected)
    p, q = probe.predict_proba(states), mine.predict_proba(logits)
    np.testing.assert_allclose(q, p, atol=1e-5)


@pytest.mark.parametrize("seen", [("a", "c"), ("a", "b", "d")])
def test_a_class_that_the_probe_never_saw_is_never_its_heads_answer(given, seen):
    """As where a joint division leaves none in the training part."""
    _, (chosen,) = planned(given, ["kind"], layer=1)
    classes = np.array(["a", "b", "c", "d"], dtype=object)
    rng = np.random.default_rng(0)
    y = rng.choice(np.array(seen, dtype=object), size=len(given.cache.ids))
    target = replace(chosen.target, y=y, classes=classes, codes=np.searchsorted(classes, y).astype(np.int64))
    truth = read_truth(target, chosen.fits[0].split)
    X = np.asarray(given.cache.layer(1, "mean"), dtype=np.float64)
    probe = make_pipeline(StandardScaler(), logistic(100.0)).fit(X, y)
    head = make_head(Shape("linear", 16, 4), seed=0)
    start_at_probe(head, probe, truth)
    with torch.no_grad():
        p = torch.softmax(head(torch.from_numpy(X).float()), 1).numpy()
    np.testing.assert_allclose(p[:, np.searchsorted(classes, probe.classes_)], probe.predict_proba(X), atol=1e-4)


@pytest.mark.parametrize("head", ["mlp", "attention", "mix", "linear"])
def test_the_scaler_is_measured_on_training_rows_alone(given, head):
    where = {} if head == "mix" else {"layer": 1}
    plan, (chosen,) = planned(given, ["label"], head=head, init="random", **where)
    fit = chosen.fits[0]
    truth, read = read_truth(fit.target, fit.split), cached_reader(given.cache, chosen, fit)
    scaler = new_head(chosen, 0, truth, plan.options, read, 16).standardise
    rows = parts_of(given.cache)["train"]
    if head == "attention":
        states = np.concatenate([np.asarray(given.cache.tokens(1)[int(i)], dtype=np.float64) for i in rows])
        states = (states - states.mean(1, keepdims=True)) / np.sqrt(states.var(1, keepdims=True) + 1e-5)
    elif head == "mix":
        states = np.stack([np.asarray(given.cache.layer(k, "mean"), dtype=np.float64)[rows] for k in (0, 1, 2)], 1)
    else:
        states = np.asarray(given.cache.layer(1, "mean"), dtype=np.float64)[rows]
    np.testing.assert_allclose(scaler.mean.numpy(), states.mean(0), atol=1e-5)
    np.testing.assert_allclose(scaler.scale.numpy(), states.std(0), rtol=1e-4)


@pytest.mark.parametrize(("link", "n_answers"), [(CLASSES, 1), (CLASSES, 3), (LABELS, 3), (NUMBERS, 1)])
def test_the_penalty_counts_once_however_the_rows_of_a_step_are_divided(link, n_answers):
    rng = np.random.default_rng(0)
    head = make_head(Shape("linear", 5, n_answers), seed=0).double()
    with torch.no_grad():
        head.output.weight.copy_(torch.from_numpy(rng.standard_normal((n_answers, 5))))
    X = torch.from_numpy(rng.standard_normal((12, 5)))
    y = {CLASSES: rng.integers(0, max(2, n_answers), 12), LABELS: rng.integers(0, 2, (12, 3))}.get(
        link, rng.standard_normal(12)
    )
    truth = type("Truth", (), {"link": link, "y": torch.from_numpy(y)})()
    W = head.output.weight.detach().numpy()
    Z = X.numpy() @ W.T + head.output.bias.detach().numpy()
    if link is NUMBERS:
        wrong, half = ((Z[:, 0] - y) ** 2).mean(), 1.0
    elif link is LABELS or n_answers == 1:
        wrong, half = (np.logaddexp(0, Z) - Z * y.reshape(Z.shape)).mean(), 0.5
    else:
        wrong, half = (np.log(np.exp(Z).sum(1)) - Z[np.arange(12), y]).mean(), 0.5
    for cuts in ([12], [5, 12], [1, 2, 7, 12]):
        starts = [0, *cuts[:-1]]
        total = sum(
            float(head_loss(head, head(X[a:b]), truth, np.arange(a, b), 12, penalty=0.7).detach())
            for a, b in zip(starts, cuts, strict=True)
        )
        assert total == pytest.approx(wrong + 0.7 * half * (W**2).sum(), abs=1e-12)


@pytest.mark.parametrize("head", ["linear", "mlp", "attention", "mix"])
def test_a_frozen_head_draws_only_on_its_seed_and_leaves_the_process_as_it_was(given, head):
    where = {} if head == "mix" else {"layer": 1}
    found = []
    for before in (1, 2):
        torch.manual_seed(before)
        np.random.seed(before)  # noqa: NPY002 (what is global must not matter)
        state, threads = torch.get_rng_state(), torch.get_num_threads()
        legacy = np.random.get_state()[1].tolist()  # noqa: NPY002
        training = trained(given, ["label"], head=head, init="random", epochs=4, head_lr=0.05, **where)
        found.append({f"{n}": v.numpy().tobytes() for n, v in training.heads.modules[0].state_dict().items()})
        assert torch.equal(torch.get_rng_state(), state)
        assert torch.get_num_threads() == threads
        assert np.random.get_state()[1].tolist() == legacy  # noqa: NPY002
        trained(given, ["kind"], head=head, init="random", epochs=1, **where)  # another, in between
    assert found[0] == found[1]
    # (A head of another seed begins elsewhere.)
    a, b = (make_head(Shape("mlp", 16, 1), seed=seed).hidden.weight for seed in (0, 1))
    assert not torch.equal(a, b)


@pytest.mark.parametrize("head", ["mlp", "attention", "mix"])
def test_dropout_is_on_in_training_alone(given, head):
    where = {} if head == "mix" else {"layer": 1}
    plan, (chosen,) = planned(given, ["label"], head=head, dropout=0.5, init="random", epochs=2, **where)
    problem, _ = train_frozen(given.cache, chosen, 0, plan.options, state=None, on_step=lambda *_: None)
    rows = problem.train_rows
    with torch.no_grad():
        if head != "mlp":
            problem.head.output.weight.normal_()
        problem.mode(training=False)
        assert float(problem.loss(rows, rows, [True])) == float(problem.loss(rows, rows, [True]))
        assert problem.scores() == problem.scores()
        problem.mode(training=True)
        assert float(problem.loss(rows, rows, [True])) != float(problem.loss(rows, rows, [True]))


def test_answers_are_those_of_each_row_whatever_is_answered_with_it(given):
    plan, (chosen,) = planned(given, ["label"], head="attention", layer=1, epochs=1)
    problem, _ = train_frozen(given.cache, chosen, 0, plan.options, state=None, on_step=lambda *_: None)
    problem.mode(training=False)
    with torch.no_grad():
        problem.head.query.normal_()
        problem.head.output.weight.normal_()
        together = problem.head(problem.read(np.arange(12)))
        for i in range(12):
            states = torch.from_numpy(np.array(given.cache.tokens(1)[i], dtype=np.float32))
            z = problem.head.standardise(torch.nn.functional.layer_norm(states, (16,)))
            pooled = torch.softmax(z @ problem.head.query / 4.0, 0) @ z
            torch.testing.assert_close(together[i], problem.head.output(pooled), atol=1e-5, rtol=1e-5)
