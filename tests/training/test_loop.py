"""The loop on made-up problems: its steps, what it keeps, when it stops, and how it goes on after a kill."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from probekit.errors import SpecError
from probekit.heads.loop import Group, Recipe, plain_batches, train
from tests.training.trained import one_line

N, D = 40, 6


class Several:
    """Linear heads on made-up rows, each with dropout; ``script``: validation scores to give, by epoch."""

    def __init__(self, targets=("a", "b"), *, dropout=0.0, seed=0, script=None, labelled=None):
        rng = np.random.default_rng(seed)
        self.X = torch.from_numpy(rng.standard_normal((N, D)).astype(np.float32))
        self.y = torch.from_numpy(rng.standard_normal((N, len(targets))).astype(np.float32))
        self.labelled = np.ones((N, len(targets)), dtype=bool) if labelled is None else labelled
        self.targets = targets
        self.base, self.drop = nn.Linear(D, D), nn.Dropout(dropout)
        self.heads = [nn.Linear(D, 1) for _ in targets]
        for k, layer in enumerate([self.base, *self.heads]):
            layer.weight.data = torch.from_numpy(rng.standard_normal(tuple(layer.weight.shape)).astype(np.float32)) / 3
            layer.bias.data.fill_(0.1 * k)
        self.groups = [Group(list(head.parameters()), 0.02) for head in self.heads]
        self.groups.append(Group(list(self.base.parameters()), 0.01, 0.1))
        self.script, self.seen, self.asked = script, [], []

    def parameters(self):
        return [p for group in self.groups for p in group.parameters]

    def batches(self, rng, size):
        return plain_batches(np.arange(30), rng, size)

    def loss(self, rows, of, active):
        self.asked.append(tuple(active))
        total = None
        for t, head in enumerate(self.heads):
            mine = rows[self.labelled[rows, t]]
            if not active[t] or not len(mine):
                continue
            wrong = (head(self.drop(self.base(self.X[mine])))[:, 0] - self.y[mine, t]) ** 2
            added = wrong.sum() / int(self.labelled[of, t].sum())
            total = added if total is None else total + added
        return total

    def scores(self):
        self.seen.append([p.detach().clone() for p in self.parameters()])
        if self.script is not None:
            return list(self.script[len(self.seen) - 1])
        with torch.no_grad():
            hidden = self.base(self.X[30:])
            return [-float(((head(hidden)[:, 0] - self.y[30:, t]) ** 2).mean()) for t, head in enumerate(self.heads)]

    def mode(self, *, training):
        self.drop.train(training)


def values(problem):
    return [p.detach().clone() for p in problem.parameters()]


def equal(a, b):
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def test_the_steps_are_adamw_with_a_rate_that_rises_and_falls_and_a_clipped_gradient():
    recipe = Recipe(epochs=3, batch_size=7, warmup=0.25, clip=0.5, patience=99, seed=5)
    mine, theirs = Several(script=[(k, k) for k in range(4)]), Several()
    train(mine, recipe)
    groups = [{"params": list(g.parameters), "lr": g.lr, "weight_decay": g.weight_decay} for g in theirs.groups]
    optimizer = torch.optim.AdamW(groups)
    total, step, most = 3 * 5, 0, [g.lr for g in theirs.groups]
    for epoch in (1, 2, 3):
        for rows in theirs.batches(np.random.default_rng([5, epoch]), 7):
            step += 1
            rate = min(step / 4, (16 - step) / 12)  # 4 of 15 steps rise (0.25 x 15 = 3.75), the rest falls to 0
            for group, lr in zip(optimizer.param_groups, most, strict=True):
                group["lr"] = lr * rate
            optimizer.zero_grad()
            theirs.loss(rows, rows, [True, True]).backward()
            torch.nn.utils.clip_grad_norm_(theirs.parameters(), 0.5)
            optimizer.step()
    assert step == total
    for a, b in zip(values(mine), values(theirs), strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("parts", [2, 3, 50])
def test_a_step_in_parts_is_the_step_of_the_whole(parts):
    labelled = np.random.default_rng(0).random((N, 2)) < 0.4
    found = []
    for accumulate in (1, parts):
        problem = Several(labelled=labelled, script=[(0, 0), (1, 1)])
        train(problem, Recipe(epochs=1, batch_size=30, accumulate=accumulate, clip=1e9))
        found.append(values(problem))
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize(
    ("script", "best"),
    [
        ([(1, 1), (2, 2), (0, 5), (3, 0)], 2),  # by the mean of targets
        ([(5, 5), (1, 1), (1, 1), (1, 1)], 0),  # the start can be the best
        ([(1, 1), (2, 2), (2, 2), (2, 2)], 1),  # of equals the first
        ([(math.nan, 1), (math.nan, 3), (math.nan, 2), (math.nan, 2)], 1),  # what has no score does not count
        ([(math.nan, math.nan)] * 4, 0),
        ([(-math.inf, 0), (0, 0), (0, 0), (0, 1)], 3),
    ],
)
def test_the_weights_that_are_kept_are_those_of_the_best_epoch(script, best):
    problem = Several(script=script)
    history = train(problem, Recipe(epochs=3, batch_size=10, patience=99))
    assert history.best == best
    assert equal(values(problem), problem.seen[best])
    assert not equal(problem.seen[0], problem.seen[1])
    np.testing.assert_array_equal(history.scores, script)


def test_a_target_that_gains_no_more_stops_and_the_others_go_on():
    script = [(0, 0), (1, 1), (1, 2), (0.5, 3), (0, 4), (9, 5), (0, 6)]
    problem = Several(script=script)
    history = train(problem, Recipe(epochs=6, batch_size=30, patience=2))
    assert history.stopped == [3, None]
    assert problem.asked == [(True, True)] * 3 + [(False, True)] * 3
    assert equal(problem.seen[3][:2], problem.seen[6][:2]), "its head is left alone"
    assert not equal(problem.seen[3][2:4], problem.seen[4][2:4])


def test_training_ends_where_all_have_stopped():
    problem = Several(script=[(0, 0), (1, 0), (0, 0), (0, 0), (9, 9)])
    history = train(problem, Recipe(epochs=9, batch_size=30, patience=2))
    assert history.stopped == [3, 2]
    assert (len(history.scores), history.steps, history.best) == (4, 3, 1)


def test_a_step_without_any_label_changes_nothing():
    labelled = np.zeros((N, 2), dtype=bool)
    problem = Several(labelled=labelled, script=[(0, 0), (1, 1)])
    start = values(problem)
    train(problem, Recipe(epochs=1, batch_size=10))
    assert equal(values(problem), start)


def test_the_head_of_a_target_that_is_absent_from_all_steps_keeps_its_bits():
    labelled = np.ones((N, 2), dtype=bool)
    labelled[:, 1] = False
    problem = Several(labelled=labelled, script=[(0, 0), (1, 1), (2, 2)])
    start = values(problem)
    train(problem, Recipe(epochs=2, batch_size=10))
    assert equal(values(problem)[2:4], start[2:4])
    assert not equal(values(problem)[:2], start[:2])


def test_the_seed_is_all_that_chance_depends_on_and_the_callers_is_left_alone():
    recipe, found = Recipe(epochs=3, batch_size=10, seed=3), []
    for before in (1, 2):
        torch.manual_seed(before)
        state = torch.get_rng_state()
        problem = Several(dropout=0.5)
        torch.set_rng_state(state)
        train(problem, recipe)
        assert torch.equal(torch.get_rng_state(), state)
        found.append(problem.seen[-1])
    assert equal(*found)
    other = Several(dropout=0.5)
    train(other, Recipe(epochs=3, batch_size=10, seed=4))
    assert not equal(found[0], other.seen[-1])


class Stopped(Exception):  # noqa: N818 (as a kill would)
    pass


def stop_at(step):
    def count(done, _total, _seconds):
        if done == step:
            raise Stopped

    return count


@pytest.mark.parametrize("at", [(1,), (3,), (4,), (5,), (8,), (2, 5, 7), (3, 6)])
def test_a_training_that_was_broken_off_goes_on_to_the_same_bits(tmp_path, at):
    recipe = Recipe(epochs=5, batch_size=10, accumulate=2, seed=1, patience=2)
    whole = Several(dropout=0.3)
    expected = train(whole, recipe)
    for step in at:
        with pytest.raises(Stopped):
            train(Several(dropout=0.3), recipe, state=tmp_path / "state", on_step=stop_at(step))
    again = Several(dropout=0.3)
    assert train(again, recipe, state=tmp_path / "state") == expected
    assert equal(values(again), values(whole))
    third = Several(dropout=0.3)
    assert train(third, recipe, state=tmp_path / "state") == expected, "a state that has ended does nothing more"
    assert equal(values(third), values(whole))


def rewritten(path, change):
    tensors = load_file(path)
    with safe_open(path, "pt") as file:
        metadata = dict(file.metadata())
    change(tensors, metadata)
    save_file(tensors, path, metadata or None)


def without(name):
    return lambda tensors, _metadata: tensors.pop(name)


def history_is(text):
    return lambda _tensors, metadata: metadata.update(history=text)


def reshaped(tensors, _metadata):
    tensors["now.0"] = torch.zeros(1, 1)  # would be spread over the whole weight


DAMAGE = {
    "cut short": lambda path: path.write_bytes(path.read_bytes()[:-40]),
    "empty": lambda path: path.write_bytes(b""),
    "something else": lambda path: path.write_bytes(b"\x80\x04}q\x00."),
    "a tensor is missing": lambda path: rewritten(path, without("now.1")),
    "half an optimiser": lambda path: rewritten(path, without("exp_avg.1")),
    "no random state": lambda path: rewritten(path, without("rng.cpu")),
    "another shape": lambda path: rewritten(path, reshaped),
    "one too many": lambda path: rewritten(path, lambda tensors, _m: tensors.update({"now.99": torch.zeros(2)})),
    "no history": lambda path: rewritten(path, lambda _t, metadata: metadata.clear()),
    "history is no JSON": lambda path: rewritten(path, history_is("{")),
    "history of other targets": lambda path: rewritten(
        path, history_is(json.dumps({"scores": [[1.0]], "best": 0, "steps": 0, "stopped": [None]}))
    ),
    "history without scores": lambda path: rewritten(
        path, history_is(json.dumps({"scores": [], "best": 0, "steps": 0, "stopped": [None, None]}))
    ),
    "history of text": lambda path: rewritten(
        path, history_is(json.dumps({"scores": [["a", "b"]], "best": 0, "steps": 0, "stopped": [None, None]}))
    ),
    "best epoch beyond": lambda path: rewritten(
        path, history_is(json.dumps({"scores": [[0.0, 0.0]], "best": 7, "steps": 0, "stopped": [None, None]}))
    ),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_state_that_is_damaged_is_refused_in_one_line(tmp_path, damage):
    path, recipe = tmp_path / "state", Recipe(epochs=3, batch_size=10)
    with pytest.raises(Stopped):
        train(Several(), recipe, state=path, on_step=stop_at(4))
    DAMAGE[damage](path)
    with pytest.raises(SpecError, match="state of this training") as error:
        train(Several(), recipe, state=path)
    assert one_line(error)


def test_a_state_of_other_targets_is_refused(tmp_path):
    recipe = Recipe(epochs=3, batch_size=10)
    train(Several(("a", "b", "c")), recipe, state=tmp_path / "state")
    with pytest.raises(SpecError, match="state of this training"):
        train(Several(), recipe, state=tmp_path / "state")
