"""Heads and backbone together: what changes, what is dropped out, which rows teach what."""

from __future__ import annotations

import json
import random
import re
from collections import Counter

import numpy as np
import pytest
import torch
from scipy.stats import chisquare
from torch import nn

from probekit.heads.loop import Recipe, train
from probekit.training.tuned import TunedProblem
from tests.tiny import save_tiny_bert
from tests.training.trained import made, parts_of, table, trained, tuned_problem, weights_of

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
KINDS = {
    "lora": {"backbone": "lora", "lora_rank": 2},
    "full": {"backbone": "full"},
    "top:1": {"backbone": "top:1"},
    "prompt": {"soft_prompt": 2},
    "lora and prompt": {"backbone": "lora", "lora_rank": 2, "soft_prompt": 2},
}
QUIET = {"head": "attention", "dropout": 0.5, "layer": 2}


@pytest.fixture(scope="module")
def dropping(tmp_path_factory):
    """A model that drops half of everything in training."""
    folder = save_tiny_bert(tmp_path_factory.mktemp("dropping") / "model")
    config = json.loads((folder / "config.json").read_text())
    config |= {"hidden_dropout_prob": 0.5, "attention_probs_dropout_prob": 0.5}
    (folder / "config.json").write_text(json.dumps(config))
    return made(tmp_path_factory.mktemp("dropping"), folder, table())


def everything(problem, tuned):
    """Every tensor of the backbone, the heads and the prompt, by name."""
    found = {f"backbone.{n}": t for n, t in tuned.reader.backbone.model.state_dict(keep_vars=True).items()}
    for i, head in enumerate(problem.heads):
        found |= {f"head{i}.{n}": t for n, t in head.head.state_dict(keep_vars=True).items()}
    if problem.reader.prompt is not None:
        found["prompt"] = problem.reader.prompt
    return found


def declared(problem):
    return {id(p) for group in problem.groups for p in group.parameters}


def copied(tensors):
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}


@pytest.mark.parametrize("kind", KINDS)
def test_all_that_is_declared_trainable_changes_and_all_else_keeps_its_bits(given, kind):
    with tuned_problem(given, ["label", "score"], layer=2, **KINDS[kind]) as (problem, tuned):
        tensors, last = everything(problem, tuned), {}
        before, trainable = copied(tensors), declared(problem)
        assert sum(id(t) in trainable for t in tensors.values()) == len(trainable), "all are part of what runs"
        assert {id(t) for t in tensors.values() if t.requires_grad} == trainable
        train(problem, Recipe(epochs=1, batch_size=16), on_step=lambda *_: last.update(copied(tensors)))
        for name, tensor in tensors.items():
            changed = not torch.equal(last[name], before[name])
            assert changed == (id(tensor) in trainable), name
        names = {name for name, tensor in tensors.items() if id(tensor) in trainable and name.startswith("backbone.")}
        if kind == "top:1":
            assert names
            assert all(".layer.1." in name for name in names)
        elif kind == "full":
            assert names >= {n for n in before if "encoder" in n or "embeddings.word" in n}
            assert not any("pooler" in n for n in names)
        elif kind == "prompt":
            assert not names


def test_a_lower_layer_that_is_read_leaves_the_blocks_above_it_as_they_were(given):
    with tuned_problem(given, ["label"], layer=1, backbone="full") as (problem, tuned):
        trainable = declared(problem)
        above = [t for n, t in everything(problem, tuned).items() if ".layer.1." in n]
        assert above
        assert not any(id(t) in trainable for t in above)


def loss_of(problem, rows, *, training, active=None):
    problem.mode(training=training)
    return problem.loss(rows, rows, active or [True] * len(problem.heads))


@pytest.mark.parametrize("kind", KINDS)
def test_dropout_is_off_in_evaluation_and_in_whatever_is_frozen(dropping, kind):
    rows = parts_of(dropping.cache)["train"][:16]
    with tuned_problem(dropping, ["label"], layer=2, **KINDS[kind]) as (problem, _):
        with torch.no_grad():
            calm = loss_of(problem, rows, training=False)
            assert float(calm) == float(loss_of(problem, rows, training=False))
            assert problem.scores() == problem.scores()
            first, second = (float(loss_of(problem, rows, training=True)) for _ in range(2))
        if kind in ("full", "top:1"):  # what is trained has its model's dropout
            assert len({first, second, float(calm)}) == 3
        else:
            assert first == second == float(calm)


def test_dropout_of_a_lora_and_of_a_head_is_on_in_training_alone(dropping):
    rows = parts_of(dropping.cache)["train"][:16]
    lora = {"backbone": "lora", "lora_rank": 2, "lora_dropout": 0.5}
    for options in (lora | {"layer": 2}, KINDS["prompt"] | QUIET):
        with tuned_problem(dropping, ["label"], **options) as (problem, tuned):
            with torch.no_grad():
                for parameter in [*tuned.parameters.values(), *problem.heads[0].head.parameters()]:
                    parameter.normal_()
                calm = [float(loss_of(problem, rows, training=False)) for _ in range(2)]
                wild = [float(loss_of(problem, rows, training=True)) for _ in range(2)]
            assert calm[0] == calm[1]
            assert len({*calm, *wild}) == 3


def test_top_drops_out_in_the_blocks_that_are_trained_alone(dropping):
    with tuned_problem(dropping, ["label"], layer=2, backbone="top:1") as (problem, tuned):
        problem.mode(training=True)
        on = {n for n, m in tuned.reader.backbone.model.named_modules() if isinstance(m, nn.Dropout) and m.training}
        assert on
        assert all(".layer.1." in name for name in on)


# Missing labels


def gradients(problem, rows, active=None):
    for parameters in (group.parameters for group in problem.groups):
        for parameter in parameters:
            parameter.grad = None
    loss = loss_of(problem, rows, training=False, active=active)
    if loss is None:
        return None, {}
    loss.backward()
    assert bool(torch.isfinite(loss))
    return float(loss.detach()), {
        (h, n): p.grad for h, head in enumerate(problem.heads) for n, p in head.head.named_parameters()
    }


@pytest.fixture(scope="module")
def joint(halves):
    with tuned_problem(halves, ["label", "kind", "score"], layer=2, split=0.2, backbone="lora", lora_rank=2) as found:
        yield found[0]


def rows_with(halves, problem, *names):
    """Training rows that have exactly the labels ``names``."""
    missing = [np.array([str(v) in ("", "nan", "None") for v in halves.cache.column(t)]) for t in problem.targets]
    exactly = np.all([gone != (t in names) for gone, t in zip(missing, problem.targets, strict=True)], axis=0)
    return np.intersect1d(np.flatnonzero(exactly), problem.train_units)


def test_a_batch_without_any_label_has_no_loss(halves, joint):
    nobody = np.arange(8, 16)
    assert gradients(joint, nobody) == (None, {})
    assert not np.isin(nobody, joint.train_units).any()


def test_a_target_that_is_absent_from_a_batch_adds_exactly_nothing(halves, joint):
    rows = rows_with(halves, joint, "label", "score")
    assert len(rows) > 5
    loss, found = gradients(joint, rows)
    assert all(found[1, name] is None for h, name in found if h == 1)
    assert all(float(found[h, "output.weight"].abs().sum()) > 0 for h in (0, 2))
    alone, same = gradients(joint, rows, [True, False, True])
    assert loss == alone
    for (h, name), slope in found.items():
        assert slope is None or torch.equal(slope, same[h, name])


def test_a_batch_of_some_labels_is_the_sum_of_what_each_target_gives_by_itself(halves, joint):
    rows = np.concatenate(
        [
            rows_with(halves, joint, *n)[:6]
            for n in (("label", "score"), ("kind",), ("label",), ("label", "kind", "score"))
        ]
    )
    loss, found = gradients(joint, rows)
    each = [gradients(joint, rows, [h == t for h in range(3)]) for t in range(3)]
    assert loss == pytest.approx(sum(one for one, _ in each), abs=1e-5)
    for (h, name), slope in found.items():
        torch.testing.assert_close(slope, each[h][1][h, name], atol=1e-6, rtol=1e-5)
        others = [each[t][1][h, name] for t in range(3) if t != h]
        assert others == [None, None]


def test_a_row_with_a_missing_label_teaches_the_heads_whose_label_it_has(halves, joint):
    """The gradient of a head, by hand from its rows alone."""
    rows = np.concatenate([rows_with(halves, joint, *names)[:6] for names in (("label", "score"), ("kind",))])
    _, found = gradients(joint, rows)
    (mine,) = (head for head in joint.heads if head.fit.target.name == "label")
    has = rows[:6]
    X = np.asarray(halves.cache.layer(2, "mean"), dtype=np.float64)[has]
    mean, scale = (t.double().numpy() for t in (mine.head.standardise.mean, mine.head.standardise.scale))
    W = mine.head.output.weight.detach().double().numpy()[0]
    Z, y = (X - mean) / scale, mine.truth.y.numpy()[has]
    p = 1 / (1 + np.exp(-(Z @ W + mine.head.output.bias.item())))
    expected = ((p - y)[:, None] * Z).mean(0) + mine.penalty * W
    np.testing.assert_allclose(found[0, "output.weight"].numpy()[0], expected, atol=1e-5)


def test_weights_of_targets_scale_their_losses(halves):
    losses = []
    for weights in ({}, {"kind": 3.0}):
        with tuned_problem(halves, ["label", "kind"], layer=2, split=0.2, weights=weights, backbone="full") as (
            problem,
            _,
        ):
            rows = problem.train_units
            losses.append([gradients(problem, rows, active)[0] for active in ([True, False], [False, True])])
    assert losses[1] == pytest.approx([losses[0][0], 3 * losses[0][1]], rel=1e-6)


def test_nothing_becomes_nan_with_half_of_the_labels_missing(halves):
    training = trained(
        halves, ["label", "kind", "score"], layer=2, split=0.2, backbone="lora", lora_rank=2, epochs=2, batch_size=4
    )
    for module in training.heads.modules:
        assert all(bool(torch.isfinite(tensor).all()) for tensor in module.state_dict().values())
    assert training.table["score"].notna().all()


@pytest.mark.parametrize("kind", ["full", "lora"])
def test_a_step_in_parts_is_the_step_of_the_whole(halves, kind):
    """With labels missing, so that parts hold different numbers of them."""
    found = []
    for accumulate in (1, 5):
        with tuned_problem(halves, ["label", "kind", "score"], layer=2, split=0.2, penalty=0.3, **KINDS[kind]) as (
            problem,
            _,
        ):
            problem.dropout = ()
            rows, parameters = problem.train_units, [p for group in problem.groups for p in group.parameters]
            problem.mode(training=True)
            total = 0.0
            for part in np.array_split(rows, accumulate):
                loss = problem.loss(part, rows, [True] * 3)
                total += float(loss.detach())
                loss.backward()
            found.append((total, [p.grad.clone() for p in parameters]))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-6)
    for a, b in zip(found[0][1], found[1][1], strict=True):
        torch.testing.assert_close(a, b, atol=2e-6, rtol=1e-4)


class Runs:
    """A hook that counts."""

    n = 0

    def __call__(self, *_):
        self.n += 1


def test_checkpointing_gives_the_gradients_of_the_plain_run(given):
    found = []
    for checkpointing in (False, True):
        with tuned_problem(given, ["label"], layer=2, checkpointing=checkpointing, **KINDS["lora"]) as (problem, tuned):
            rows = problem.train_units[:16]
            with torch.no_grad():
                for name, parameter in tuned.parameters.items():
                    if "lora_B" in name:
                        parameter.copy_(torch.linspace(-0.1, 0.1, parameter.numel()).reshape(parameter.shape))
            problem.mode(training=True)
            runs = Runs()
            blocks = tuned.reader.backbone.stack.blocks
            handles = [next(block.children()).register_forward_hook(runs) for block in blocks]
            problem.loss(rows, rows, [True]).backward()
            for handle in handles:
                handle.remove()
            found.append(({n: p.grad.clone() for n, p in tuned.parameters.items()}, runs.n))
    (plain, once), (checked, twice) = found
    assert twice == 2 * once, "blocks run again in the backward pass"
    for name, slope in plain.items():
        assert float(slope.abs().sum()) > 0, name
        torch.testing.assert_close(checked[name], slope, atol=1e-6, rtol=1e-6)


# Sampling


class Fixed:
    """A head that learns from some texts."""

    def __init__(self, units, n):
        target = type("Target", (), {"name": "t", "__len__": lambda _self: n})()
        self.fit = type("Fit", (), {"train": units, "target": target})()


@pytest.mark.parametrize(
    ("power", "share"), [(0.0, [1, 1, 1]), (0.5, [2, 4, 8]), (1 / 3, [4 ** (1 / 3), 16 ** (1 / 3), 4])]
)
def test_targets_are_drawn_by_their_rows_to_a_power(power, share):
    n = np.cumsum([4, 16, 64])
    parts = [np.arange(a, b) for a, b in zip([0, *n[:-1]], n, strict=True)]
    problem = TunedProblem([Fixed(part, n[-1]) for part in parts], None, [], dropout=(), power=power)
    drawn = [np.concatenate(problem.batches(np.random.default_rng(seed), 10)) for seed in range(60)]
    assert all(len(epoch) == n[-1] for epoch in drawn), "as many as there are"
    every = np.concatenate(drawn)
    counts = [np.isin(every, part).sum() for part in parts]
    assert chisquare(counts, np.array(share) / np.sum(share) * len(every)).pvalue > 1e-3
    for part in parts:  # and rows of one target equally often
        of_rows = Counter(every[np.isin(every, part)].tolist())
        assert max(of_rows.values()) - min(of_rows.values()) <= 60
        assert len(of_rows) == len(part)
        within = Counter(drawn[0][np.isin(drawn[0], part)].tolist())
        assert max(within.values()) - min(within.get(i, 0) for i in part) <= 1, "all before one comes again"


def test_rows_come_as_they_are_where_sampling_is_proportional():
    parts = [np.arange(0, 30), np.arange(20, 90)]
    problem = TunedProblem([Fixed(part, 90) for part in parts], None, [], dropout=(), power=1.0)
    batches = problem.batches(np.random.default_rng(0), 16)
    assert [len(batch) for batch in batches] == [16] * 5 + [10]
    assert sorted(np.concatenate(batches)) == list(range(90))
    again = problem.batches(np.random.default_rng(1), 16)
    assert np.concatenate(batches).tolist() != np.concatenate(again).tolist()


@pytest.mark.parametrize(("sampling", "power"), [("proportional", 1.0), ("uniform", 0.0), ("temperature", 0.25)])
def test_the_option_says_the_power(halves, sampling, power):
    with tuned_problem(
        halves, ["label", "kind"], layer=2, split=0.2, sampling=sampling, temperature=4.0, **KINDS["prompt"]
    ) as (problem, _):
        assert problem.power == power


# Chance, and what the test rows may not do


SEEDED = {
    "lora": {"backbone": "lora", "lora_rank": 2, "lora_dropout": 0.3, "soft_prompt": 2},
    "full": {"backbone": "full"},
}


@pytest.mark.parametrize("kind", SEEDED)
def test_the_seed_is_all_that_chance_depends_on_and_the_process_is_left_as_it_was(given, kind):
    options, found = SEEDED[kind] | {"layer": 2, "epochs": 1, "batch_size": 16, "head_lr": 0.01}, []
    for before in (1, 2):
        torch.manual_seed(before)
        np.random.seed(before)  # noqa: NPY002 (what is global must not matter)
        random.seed(before)
        states = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()  # noqa: NPY002
        threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
        training = trained(given, ["label"], head="mlp", **options)
        found.append(weights_of(training))
        assert torch.equal(torch.get_rng_state(), states[0])
        assert np.random.get_state()[1].tolist() == states[1]  # noqa: NPY002
        assert random.getstate() == states[2]
        assert torch.get_num_threads() == threads
        assert torch.are_deterministic_algorithms_enabled() == deterministic
        assert torch.is_grad_enabled()
        trained(given, ["kind"], head="mlp", layer=1, epochs=1)  # another, in between
    assert found[0] == found[1]


OTHER_WORDS = re.compile(r"good|film|plot")
"""(As many tokens as before: in batches of another shape the states would have other last bits.)"""


@pytest.mark.parametrize("options", [pytest.param({"head": "mlp"}, marks=pytest.mark.slow), {"backbone": "full"}])
def test_test_rows_change_no_weight_and_no_epoch(tmp_path_factory, tiny_model, options):
    data, found = table(), []
    for changed in (False, True):
        if changed:
            at = np.flatnonzero(data["split"] == "test")
            data.loc[at, "text"] = [OTHER_WORDS.sub("bad", text) for text in data["text"][at]]
            data.loc[at, "label"] = data["label"][at].map({"pos": "neg", "neg": "pos"})
        given = made(tmp_path_factory.mktemp("rows"), tiny_model, data)
        training = trained(given, ["label"], layer=2, epochs=2, batch_size=16, head_lr=0.01, **options)
        found.append(
            (
                weights_of(training),
                [r["scores"] for r in training.record["validation"]],
                training.record["validation"][0]["kept_epoch"],
            )
        )
        tested = training.table["score"].iloc[1]
        found[-1] += (tested,)
    assert found[0][:3] == found[1][:3]
    assert found[0][3] != found[1][3], "only what is said of the test rows differs"


def test_the_kept_epoch_is_the_best_of_validation(given):
    training = trained(given, ["label"], head="mlp", layer=1, epochs=6, head_lr=0.03)
    (of,) = training.record["validation"]
    assert of["kept_epoch"] == int(np.argmax(of["scores"]))
    rows = parts_of(given.cache)["val"]
    with torch.no_grad():
        logits = training.heads.modules[0](torch.from_numpy(np.array(given.cache.layer(1, "mean"))[rows]))[:, 0]
    right = (logits.numpy() > 0) == (np.array(given.cache.column("label").tolist())[rows] == "pos")
    assert right.mean() == pytest.approx(max(of["scores"]))
    assert training.table["val_score"].iloc[1] == pytest.approx(max(of["scores"]))
