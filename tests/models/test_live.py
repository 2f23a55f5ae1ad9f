"""Every family read with gradients: the states of ``Backbone.stream``, from the tokens or from a layer on."""

from __future__ import annotations

import copy
import logging
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
import torch
import transformers
from torch import nn
from transformers.pytorch_utils import Conv1D

from probekit.errors import SpecError
from probekit.models import live as module
from probekit.models.backbone import prepare
from probekit.models.live import (
    Start,
    block_form,
    check_prompt,
    check_start,
    first_layer,
    for_training,
    live_states,
    trainable,
    use_checkpointing,
)
from probekit.models.packing import NAME
from tests.models.families import FAMILIES, build

TEXTS = [[5, 9, 3, 7, 11, 4, 8, 30, 31, 22, 17, 2], [6], [12, 13, 14], [9, 1, 0]]
LENGTHS = [len(text) for text in TEXTS]

ALL_SHARED = "needs blocks with weights of their own; got a albert"
FIRST_BLOCKS_BIAS = "must give the loss and gradients of the live run; got t5: the loss differs by"
NO_LAYER_BELOW = "has no states below its first block; got 3 blocks of it"
REFUSED = {
    # One module that is called three times.
    **{("albert", top): ALL_SHARED for top in (1, 2, 3)},
    # The first block makes the bias by position that all the others use.
    **{(name, top): FIRST_BLOCKS_BIAS for name in ("t5", "t5-decoder") for top in (1, 2)},
    # Their embeddings are no layer.
    ("mamba", 3): f"a mamba {NO_LAYER_BELOW}",
    ("mamba2", 3): f"a mamba2 {NO_LAYER_BELOW}",
}
"""Which of the top blocks can't be trained from cached states, and why; all other families can."""

NO_PROMPT = ("t5-decoder", "bart-decoder")


@pytest.fixture(scope="module", autouse=True)
def quiet():
    transformers.utils.logging.set_verbosity_error()
    logging.getLogger("transformers").setLevel(logging.ERROR)


def ready(name, model=None, **options):
    return prepare(
        model or build(name),
        device=torch.device("cpu"),
        dtype="float32",
        dtype_reason="",
        side=FAMILIES[name].side,
        **options,
    )


def streamed(backbone, layers, texts=TEXTS):
    got = {}
    backbone.stream(texts, layers=layers, receive=lambda k, states: got.update({k: states.clone()}))
    return got


def all_layers(backbone):
    return tuple(range(backbone.stack.first, backbone.stack.deepest + 1))


def close(a, b, most=1e-5):
    assert a.shape == b.shape
    assert float((a - b).detach().abs().max()) <= most * float(b.detach().abs().max())


def some_loss(states):
    """No symmetry of a norm leaves it as it is."""
    torch.manual_seed(3)
    return sum(((one * torch.randn(one.shape[-1])).sum(1) ** 2).mean() for one in states.values())


def slopes(loss, parameters):
    return torch.autograd.grad(loss, list(parameters), allow_unused=True)


@contextmanager
def counted(modules):
    """How many tokens each of the modules has read, call by call."""
    calls = [[] for _ in modules]
    handles = [
        one.register_forward_hook(
            lambda _m, _a, output, mine=mine: mine.append((output if torch.is_tensor(output) else output[0]).shape[1])
        )
        for one, mine in zip(modules, calls, strict=True)
    ]
    yield calls
    for handle in handles:
        handle.remove()


@pytest.fixture(scope="module", params=FAMILIES)
def case(request):
    return request.param, ready(request.param)


COMMON = ("bert", "gpt2", "llama", "t5", "t5-decoder", "mamba", "albert", "mixtral")


@pytest.fixture(
    scope="module", params=[name if name in COMMON else pytest.param(name, marks=pytest.mark.slow) for name in FAMILIES]
)
def some_case(request):
    """Families of every kind; the others are left to ``make slow``."""
    return request.param, ready(request.param)


@pytest.fixture
def fresh(case):
    """A backbone whose weights may be changed."""
    return copied(*case)


@pytest.fixture
def some_fresh(some_case):
    """The same, of fewer families."""
    return copied(*some_case)


def copied(name, backbone):
    memo = {}
    model = copy.deepcopy(backbone.model, memo)
    blocks = tuple(memo[id(block)] for block in backbone.stack.blocks)
    return name, replace(backbone, model=model, stack=replace(backbone.stack, blocks=blocks))


def no_dropout(backbone):
    """Some keep the rate of their attention's dropout as a number."""
    for one in backbone.model.modules():
        if isinstance(one, nn.Dropout):
            one.p = 0.0
        for name, value in vars(one).items():
            if "dropout" in name and isinstance(value, float):
                setattr(one, name, 0.0)


def step(backbone, trained, read, steps=1):
    """Train, and see that all that is declared trainable has changed and nothing else has, to the bit."""
    assert all(p.grad is None for p in backbone.model.parameters())
    before = {name: p.detach().clone() for name, p in backbone.model.named_parameters()}
    optimizer = torch.optim.Adam(trained.values(), lr=1e-3)
    for _ in range(steps):
        optimizer.zero_grad()
        some_loss(read()).backward()
        optimizer.step()
    changed = {name for name, p in backbone.model.named_parameters() if not torch.equal(p, before[name])}
    assert {id(p) for name, p in backbone.model.named_parameters() if name in changed} == {
        id(p) for p in trained.values()
    }
    assert {name for name, p in backbone.model.named_parameters() if p.requires_grad} == changed


def test_live_states_are_those_of_the_stream(case):
    _, backbone = case
    layers = all_layers(backbone)
    expected = streamed(backbone, layers)
    with for_training(backbone) as padded:
        got = live_states(padded, [TEXTS[0], *map(np.array, TEXTS[1:])], layers=layers)
        shallow = live_states(padded, TEXTS, layers=(1,))
    assert tuple(got) == layers
    for layer in layers:
        assert got[layer].dtype == torch.float32
        close(got[layer], expected[layer])
    assert torch.equal(shallow[1], got[1])
    for layer, states in streamed(backbone, layers).items():
        assert torch.equal(states, expected[layer])  # it reads as before


def test_full_trains_all_that_has_a_part_in_the_states(fresh):
    name, backbone = fresh
    layers = (backbone.stack.n_layers,)
    with for_training(backbone) as padded:
        trained = trainable(padded, "full", layers=layers, sequences=TEXTS)
        step(backbone, trained, lambda: live_states(padded, TEXTS, layers=layers))
        left = {n for n, p in backbone.model.named_parameters() if not p.requires_grad}
        assert all(n.startswith("pooler.") for n in left), left
        deeper = {id(p) for p in backbone.stack.blocks[-1].parameters()}
        shallow = trainable(padded, "full", layers=(1,), sequences=TEXTS)
        assert shallow
        assert name == "albert" or not deeper & {id(p) for p in shallow.values()}


@pytest.mark.parametrize("top", [1, pytest.param(2, marks=pytest.mark.slow), 3])
def test_top_blocks_from_cached_states(fresh, top):
    name, backbone = fresh
    n = backbone.stack.n_layers
    if top > n:
        pytest.skip("it has no more blocks")
    with for_training(backbone) as padded:
        if (name, top) in REFUSED:
            with pytest.raises(SpecError, match=f"--backbone top:{top}: .*{REFUSED[name, top]}"):
                check_start(padded, TEXTS, top=top, layers=(n,))
            return
        check = check_start(padded, TEXTS, top=top, layers=(0, n))
        assert max(check.loss_difference, check.gradient_difference) < 1e-5
        layer = first_layer(padded, top)
        assert check.layer == layer == n - top - backbone.stack.after
        cached = streamed(padded, (layer,))[layer]
        layers = tuple(range(layer, n + 1))
        trained = trainable(padded, f"top:{top}", layers=layers, sequences=TEXTS)
        inside = {id(p) for block in backbone.stack.blocks[-top:] for p in block.parameters()}
        behind = [one for one, p in trained.items() if id(p) not in inside]
        assert inside <= {id(p) for p in trained.values()}
        assert bool(behind) == backbone.stack.final_norm
        assert all("norm" in one or "ln_f" in one for one in behind)
        start = Start(layer, cached, block_form(padded))
        started = live_states(padded, TEXTS, layers=layers, start=start)
        for k, states in live_states(padded, TEXTS, layers=layers).items():
            close(started[k], states)
        step(padded, trained, lambda: live_states(padded, TEXTS, layers=layers, start=start))
    assert tuple(streamed(backbone, (layer,))[layer].shape) == tuple(cached.shape)


def test_blocks_below_do_not_run(some_case):
    name, backbone = some_case
    n, top = backbone.stack.n_layers, 1
    if name == "albert":
        return
    with for_training(backbone) as padded, counted(backbone.stack.blocks) as calls, torch.no_grad():
        layer = n - top - backbone.stack.after
        states = streamed(padded, (layer,))[layer]
        form = block_form(padded)
        for mine in calls:
            mine.clear()
        live_states(padded, TEXTS, layers=(n,), start=Start(layer, states, form))
        assert [bool(mine) for mine in calls] == [False] * (n - top) + [True] * top
        live_states(padded, TEXTS, layers=(n,), start=Start(layer, states))  # what a block puts out is watched
        assert {tokens for mine in calls[: n - top] for tokens in mine} <= {1}


def test_gradients_flow_into_the_states_that_a_pass_starts_at():
    backbone = ready("llama")
    with for_training(backbone) as padded:
        states = streamed(padded, (1,))[1].clone().requires_grad_(True)
        live_states(padded, TEXTS, layers=(3,), start=Start(1, states))[3].square().mean().backward()
    assert bool((states.grad.abs().sum(1) > 0).all())


def test_a_soft_prompt_stands_before_every_text(some_case):
    name, backbone = some_case
    if name in NO_PROMPT:
        with (
            for_training(backbone) as padded,
            pytest.raises(SpecError, match="--soft-prompt: needs a model"),
        ):
            live_states(padded, TEXTS, layers=(1,), prompt=torch.zeros(2, 24))
        return
    with for_training(backbone) as padded, torch.no_grad():
        table = check_prompt(padded)
        prompt = torch.randn(3, table(torch.tensor([1])).shape[-1]) * 0.1
        layers = all_layers(backbone)
        got = live_states(padded, TEXTS, layers=layers, prompt=prompt)
        expected = []
        for text in TEXTS:
            embedded = torch.cat([prompt, table(torch.tensor(text))])[None]
            output = backbone.model(inputs_embeds=embedded, output_hidden_states=True).hidden_states
            expected.append([states[0, 3:] for states in output])
        for layer in layers:
            close(got[layer], torch.cat([states[layer] for states in expected]))
    prompt.requires_grad_(True)
    with for_training(backbone) as padded:
        some_loss(live_states(padded, TEXTS, layers=(1,), prompt=prompt)).backward()
    assert bool(prompt.grad.abs().sum())
    with for_training(backbone) as padded, pytest.raises(SpecError, match="--soft-prompt: vectors of"):
        live_states(padded, TEXTS, layers=(1,), prompt=torch.zeros(2, 7))


def test_checkpointed_gradients_are_the_same(some_fresh):
    _, backbone = some_fresh
    if not backbone.stack.blocks:
        with pytest.raises(SpecError, match="--checkpointing: needs a model whose blocks can be found"):
            use_checkpointing(backbone)
        return
    n = backbone.stack.n_layers
    inside = next(one for one in backbone.stack.blocks[0].modules() if isinstance(one, nn.Linear | Conv1D))
    with for_training(backbone) as padded:
        trained = trainable(padded, "full", layers=(n,), sequences=TEXTS)
        no_dropout(backbone)
        for layers in ((n,), (0, 1), (1, n)):
            backbone.model.eval()
            expected = slopes(some_loss(live_states(padded, TEXTS, layers=layers)), trained.values())
            use_checkpointing(padded)  # (in eval mode too: a frozen model has no dropout on)
            with counted([inside]) as calls:
                loss = some_loss(live_states(padded, TEXTS, layers=layers))
                once = len(calls[0])
                got = slopes(loss, trained.values())
            if max(layers) == n:
                assert len(calls[0]) == 2 * once, "no block ran again"
            assert any(one is not None and bool(one.any()) for one in got)
            for a, b in zip(got, expected, strict=True):
                assert (a is None) == (b is None)
                if a is not None:
                    assert float((a - b).norm()) <= 1e-6 * max(float(b.norm()), 1e-3)


@pytest.mark.parametrize("name", ["bert", "llama", "mamba", "deberta-v2", "gpt2"])
def test_checkpointed_from_cached_states(name):
    """Trap: a block that is run again takes in what the model handed it, not what it was given instead."""
    backbone = ready(name)
    n = backbone.stack.n_layers
    no_dropout(backbone)
    with for_training(backbone) as padded:
        for top in (1, 2, 3 - backbone.stack.after):
            layer = first_layer(padded, top)
            start = Start(layer, torch.randn(sum(LENGTHS), backbone.stack.d_model))
            trained = trainable(padded, f"top:{top}", layers=(n,), sequences=TEXTS)
            backbone.model.eval()
            expected = slopes(some_loss(live_states(padded, TEXTS, layers=(n,), start=start)), trained.values())
            use_checkpointing(padded)
            backbone.model.train()
            got = slopes(some_loss(live_states(padded, TEXTS, layers=(n,), start=start)), trained.values())
            for a, b in zip(got, expected, strict=True):
                assert float((a - b).norm()) <= 1e-6 * max(float(b.norm()), 1e-3)


@pytest.mark.parametrize("site", ["attention", "mlp"])
def test_sites_inside_checkpointed_blocks(site):
    backbone = ready("llama", site=site)
    expected = streamed(backbone, (1, 2))
    with for_training(backbone) as padded:
        trained = trainable(padded, "full", layers=(1, 2), sequences=TEXTS)
        plain = live_states(padded, TEXTS, layers=(1, 2))
        for layer, states in plain.items():
            close(states, expected[layer])
        first = slopes(some_loss(plain), trained.values())
        use_checkpointing(padded)
        backbone.model.train()
        again = slopes(some_loss(live_states(padded, TEXTS, layers=(1, 2))), trained.values())
        assert all(torch.allclose(a, b, rtol=1e-5, atol=1e-7) for a, b in zip(first, again, strict=True))
        with pytest.raises(SpecError, match="--backbone top:1: goes with --site block"):
            first_layer(padded, 1)


def test_raw_and_normed_last_layers():
    backbone = ready("llama", last_layer="both")
    expected = streamed(backbone, (2, 3, 4))
    with for_training(backbone) as padded:
        got = live_states(padded, TEXTS, layers=(2, 3, 4))
        for layer, states in got.items():
            close(states, expected[layer])
        started = live_states(padded, TEXTS, layers=(3, 4), start=Start(2, got[2].detach()))
        close(started[3], got[3])
        close(started[4], got[4])
        assert not any(n == "norm.weight" for n in trainable(padded, "top:1", layers=(3,), sequences=TEXTS))
        assert "norm.weight" in trainable(padded, "top:1", layers=(3, 4), sequences=TEXTS)
        check_start(padded, TEXTS, top=1, layers=(3, 4))


def test_texts_on_both_sides_of_a_limit_are_read_apart():
    factors = {"short_factor": [1.0] * 6, "long_factor": [4.0 + i for i in range(6)]}
    rope = {"rope_type": "longrope", "rope_theta": 1e4, "original_max_position_embeddings": 8, "factor": 8.0, **factors}
    backbone = ready("phi3", build("phi3", rope_parameters=rope, original_max_position_embeddings=8))
    assert backbone.length_limit == 8
    expected = streamed(backbone, (0, 1, 2, 3))  # in inference mode, whose rotary positions backward must not meet
    with for_training(backbone) as padded:
        trained = trainable(padded, "full", layers=(3,), sequences=TEXTS)
        got = live_states(padded, TEXTS, layers=(0, 1, 2, 3))
        for layer, states in got.items():
            close(states, expected[layer])
        assert all(one is not None for one in slopes(some_loss(got), trained.values()))
        start = Start(2, got[2].detach())
        close(live_states(padded, TEXTS, layers=(3,), start=start)[3], got[3])
        # With a prompt of 6 the three tokens are above the limit too.
        prompt = torch.zeros(6, 24)
        alone = live_states(padded, TEXTS[2:3], layers=(3,), prompt=prompt)[3]
        close(live_states(padded, TEXTS, layers=(3,), prompt=prompt)[3].split(LENGTHS)[2], alone)


def test_for_training_switches_and_switches_back():
    backbone = ready("llama")
    assert backbone.model.config._attn_implementation == NAME
    with pytest.raises(ValueError, match="use for_training"):
        live_states(backbone, TEXTS, layers=(1,))
    with for_training(backbone) as padded:
        assert padded.padded
        assert backbone.model.config._attn_implementation == "sdpa"
    assert backbone.model.config._attn_implementation == NAME
    with pytest.raises(SpecError), for_training(backbone) as padded:
        first_layer(padded, 9)
    assert backbone.model.config._attn_implementation == NAME
    dropping = ready("opt", build("opt", layerdrop=0.9))
    assert dropping.model.decoder.layerdrop == 0.9
    with for_training(dropping) as padded:
        dropping.model.train()
        with counted(dropping.stack.blocks) as calls:
            live_states(padded, TEXTS, layers=(3,))
        assert [len(mine) for mine in calls] == [1, 1, 1]
    assert dropping.model.decoder.layerdrop == 0.9


def test_trials_leave_no_trace():
    backbone = ready("bert")
    backbone.model.train()
    backbone.model.encoder.layer[1].eval()
    with for_training(backbone) as padded:
        torch.manual_seed(5)
        trainable(padded, "top:2", layers=(3,), sequences=TEXTS)
        check_start(padded, TEXTS, top=2, layers=(3,))
        drawn = torch.rand(1)
    torch.manual_seed(5)
    assert torch.equal(drawn, torch.rand(1))
    assert backbone.model.training
    assert not backbone.model.encoder.layer[1].attention.self.query.training
    assert all(parameter.grad is None for parameter in backbone.model.parameters())


def test_what_can_not_be_trained():
    backbone = ready("bert")
    for top in (0, 4):
        with pytest.raises(SpecError, match=rf"--backbone top:{top}: 1\.\.3 blocks"):
            first_layer(backbone, top)
    with pytest.raises(SpecError, match="needs a model whose blocks can be found"):
        first_layer(replace(backbone, stack=replace(backbone.stack, blocks=())), 1)
    shared = ready("bert")
    query = shared.model.encoder.layer[0].attention.self.query
    shared.model.encoder.layer[2].attention.self.query = query
    with pytest.raises(SpecError, match="share no weights with those below"):
        first_layer(shared, 1)
    with for_training(backbone) as padded:
        for how in ("half", "top:", "top:x"):
            with pytest.raises(SpecError, match=f"--backbone {how}: one of top:M, full"):
                trainable(padded, how, layers=(3,), sequences=TEXTS)
        with pytest.raises(SpecError, match="trains blocks above layer 2, so one above it must be read; got 2"):
            trainable(padded, "top:1", layers=(1, 2), sequences=TEXTS)
        with pytest.raises(ValueError, match="layers \\[7\\] are not among those"):
            live_states(padded, TEXTS, layers=(1, 7))
        states = torch.zeros(sum(LENGTHS), 24)
        with pytest.raises(ValueError, match="layer 1 is below the start at layer 2"):
            live_states(padded, TEXTS, layers=(1, 3), start=Start(2, states))
        with pytest.raises(ValueError, match="3 states for 19 tokens"):
            live_states(padded, TEXTS, layers=(3,), start=Start(2, states[:3]))
        with pytest.raises(SpecError, match="--soft-prompt: needs passes from the tokens on"):
            live_states(padded, TEXTS, layers=(3,), start=Start(2, states), prompt=torch.zeros(2, 24))


def test_a_start_that_fails_is_refused_by_name(monkeypatch):
    backbone = ready("bert")

    def failing(*_args):
        raise RuntimeError("no such thing\nat all")

    monkeypatch.setattr(module, "_hand_over", failing)
    with for_training(backbone) as padded, pytest.raises(SpecError, match=r"live run; got bert: no such thing$"):
        check_start(padded, TEXTS, top=1, layers=(3,))
    layers = backbone.model.encoder.layer
    assert tuple(layers) == backbone.stack.blocks


def test_where_no_stack_is_found_states_come_all_the_same(monkeypatch):
    from probekit.models import blocks

    monkeypatch.setattr(blocks, "_candidates", lambda _model: iter(()))
    backbone = ready("llama")
    expected = streamed(backbone, (1, 3))
    with for_training(backbone) as padded:
        for layer, states in live_states(padded, TEXTS, layers=(1, 3)).items():
            close(states, expected[layer])
        assert trainable(padded, "full", layers=(3,), sequences=TEXTS)
