"""Every family: each layer equals transformers' own hidden states, however texts are batched and padded."""

from __future__ import annotations

import copy
import inspect
import logging
from dataclasses import replace

import pytest
import torch
import transformers

from probekit.errors import SpecError
from probekit.models.backbone import prepare
from tests.models.families import FAMILIES, build, reference_states

TOLERANCE = 3e-6  # of the largest value of the layer, in float32
# Of different lengths, several of one length, of one token, longer than the sliding windows of 6; with the ids of
# padding, end and beginning as ordinary tokens inside.
TEXTS = [
    [5, 9, 3, 7, 11, 4, 8, 30, 31, 22, 17, 2],
    [6],
    [4, 4, 4],
    [12, 13, 14],
    [2, 0, 2, 1],
    list(range(3, 25)),
    [9, 1, 0],
]


@pytest.fixture(scope="module", autouse=True)
def quiet():
    transformers.utils.logging.set_verbosity_error()
    logging.getLogger("transformers").setLevel(logging.ERROR)


def read(backbone, texts, layers):
    """Ragged states per layer, split by text."""
    got = {}
    lengths = [len(text) for text in texts]
    backbone.stream(texts, layers=layers, receive=lambda k, states: got.update({k: states.clone().split(lengths)}))
    return got


def assert_states_equal(got, expected):
    for layer, states in got.items():
        scale = max(float(row[layer].abs().max()) for row in expected)
        for mine, row in zip(states, expected, strict=True):
            assert mine.shape == row[layer].shape
            assert float((mine - row[layer]).abs().max()) <= TOLERANCE * scale, f"layer {layer}"


@pytest.fixture(scope="module", params=FAMILIES)
def case(request):
    family = FAMILIES[request.param]
    model = build(request.param)
    expected = [reference_states(model, family.side, text) for text in TEXTS]
    backbone = prepare(
        copy.deepcopy(model), device=torch.device("cpu"), dtype="float32", dtype_reason="", side=family.side
    )
    return family, model, backbone, expected


def test_every_layer_equals_hidden_states(case):
    _, _, backbone, expected = case
    n_layers = len(expected[0]) - 1
    assert backbone.stack.n_layers == n_layers
    assert len(backbone.stack.blocks) > 0, "no stack found: fallback"
    got = read(backbone, TEXTS, tuple(range(n_layers + 1)))
    assert list(got) == list(range(n_layers + 1))
    assert_states_equal(got, expected)


def test_what_is_found_out_about_the_model(case):
    family, _, backbone, _ = case
    assert (backbone.position_start is not None) == family.packed, backbone.batching
    assert backbone.single == family.single, backbone.batching
    assert backbone.stack.final_norm == family.final_norm
    assert backbone.causal == family.causal


def test_batched_equals_one_by_one(case):
    _, _, backbone, expected = case
    layers = (0, backbone.stack.n_layers)
    for text, row in zip(TEXTS, expected, strict=True):
        assert_states_equal(read(backbone, [text], layers), [row])
    backwards = list(reversed(TEXTS))
    assert_states_equal(read(backbone, backwards, layers), list(reversed(expected)))


def test_a_subset_of_layers_ends_the_pass_at_the_deepest(case):
    _, _, backbone, expected = case
    calls = []
    handles = [
        block.register_forward_hook(lambda *_: calls.append(1)) for block in dict.fromkeys(backbone.stack.blocks)
    ]
    got = read(backbone, TEXTS, (0, 1))
    for handle in handles:
        handle.remove()
    assert list(got) == [0, 1]
    assert_states_equal(got, expected)
    passes = len(TEXTS) if backbone.single else 1
    most = 2 if backbone.stack.after else 1
    assert len(calls) / passes <= most < backbone.stack.n_layers + backbone.stack.after


def test_left_padded_transformers_agrees(case):
    """The other padding side, done by transformers itself with its mask and positions."""
    _, model, backbone, _ = case
    if model.config.is_encoder_decoder or model.config.model_type in (
        "fnet",
        "mamba",
        "deberta-v2",
        "roberta",
        "mpnet",
        "distilbert",
    ):
        pytest.skip("transformers takes no positions here, so it can't be padded on the left")
    texts = [[5, 9, 3, 7], [6], [12, 13, 14]]
    width = max(map(len, texts))
    ids = torch.tensor([[0] * (width - len(text)) + text for text in texts])
    mask = torch.tensor([[0] * (width - len(text)) + [1] * len(text) for text in texts])
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    options = {"position_ids": positions} if "position_ids" in inspect.signature(model.forward).parameters else {}
    with torch.inference_mode():
        padded = model(input_ids=ids, attention_mask=mask, output_hidden_states=True, **options).hidden_states
    expected = [[states[i, width - len(text) :] for states in padded] for i, text in enumerate(texts)]
    assert_states_equal(read(backbone, texts, tuple(range(backbone.stack.n_layers + 1))), expected)


@pytest.mark.parametrize("pad", [None, 2], ids=["no pad token", "pad is eos"])
@pytest.mark.parametrize("name", ["llama", "gpt2", "opt", "gemma2", "mistral"])
def test_no_padding_token_or_one_that_is_also_the_end(name, pad):
    model = build(name, pad_token_id=pad, eos_token_id=2)
    expected = [reference_states(model, "encoder", text) for text in TEXTS]
    backbone = prepare(copy.deepcopy(model), device=torch.device("cpu"), dtype="float32", dtype_reason="")
    assert_states_equal(read(backbone, TEXTS, (0, 1, 2, 3)), expected)


def test_where_no_stack_is_found_the_states_are_right_all_the_same(monkeypatch):
    from probekit.models import blocks

    monkeypatch.setattr(blocks, "_candidates", lambda _model: iter(()))
    model = build("llama")
    expected = [reference_states(model, "encoder", text) for text in TEXTS]
    backbone = prepare(copy.deepcopy(model), device=torch.device("cpu"), dtype="float32", dtype_reason="")
    assert backbone.stack.blocks == ()
    assert "no stack of blocks found" in backbone.batching
    assert_states_equal(read(backbone, TEXTS, (1, 3)), expected)


def test_positions_start_anew_in_every_packed_text(monkeypatch):
    """Trap: position ids that run on through the packed row."""
    from probekit.models import backbone as module

    model = build("gpt2")
    expected = [reference_states(model, "encoder", text) for text in TEXTS]
    backbone = prepare(copy.deepcopy(model), device=torch.device("cpu"), dtype="float32", dtype_reason="")
    right = module._packed_inputs

    def running_on(*arguments):
        inputs = right(*arguments)
        return inputs | {"position_ids": torch.arange(inputs["input_ids"].shape[1]).unsqueeze(0)}

    monkeypatch.setattr(module, "_packed_inputs", running_on)
    with pytest.raises(AssertionError, match="layer 0"):
        assert_states_equal(read(backbone, TEXTS, (0, 3)), expected)


def test_longer_texts_than_the_sliding_window_are_not_packed():
    backbone = prepare(build("mistral"), device=torch.device("cpu"), dtype="float32", dtype_reason="")
    assert backbone.longest_packed == 6
    seen = []
    hook = backbone.model.register_forward_pre_hook(
        lambda _m, _a, kwargs: seen.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True
    )
    read(backbone, [[5, 6, 7], [8, 9, 3]], (0,))
    read(backbone, [[5, 6, 7, 8, 9, 10, 11], [8]], (0,))
    hook.remove()
    assert seen == [(1, 6), (2, 7)]


def test_a_model_prepared_later_changes_nothing_for_one_prepared_before():
    """Trap: the sliding window kept beside the attention function, which all models share."""
    model = build("mistral")
    expected = [reference_states(model, "encoder", text) for text in TEXTS]
    backbone = prepare(copy.deepcopy(model), device=torch.device("cpu"), dtype="float32", dtype_reason="")
    prepare(build("bert"), device=torch.device("cpu"), dtype="float32", dtype_reason="")
    assert_states_equal(read(backbone, TEXTS, (1, 3)), expected)


def test_no_keys_and_values_are_kept_for_generation(case):
    """Trap: memory that grows with every block passed."""
    _, _, backbone, _ = case
    kept = []
    handle = backbone.model.register_forward_hook(
        lambda _module, _args, output: kept.extend(
            name for name in ("past_key_values", "cache_params") if getattr(output, name, None) is not None
        )
    )
    read(backbone, TEXTS, (backbone.stack.n_layers,))
    handle.remove()
    assert kept == []


def test_a_side_that_the_model_has_not():
    with pytest.raises(SpecError, match="--side decoder: goes with encoder-decoder models; got a llama"):
        prepare(build("llama"), device=torch.device("cpu"), dtype="float32", dtype_reason="", side="decoder")
    with pytest.raises(SpecError, match="--side both: one of encoder, decoder"):
        prepare(build("t5"), device=torch.device("cpu"), dtype="float32", dtype_reason="", side="both")


SITES_FOUND = [
    "modernbert",
    "gpt2",
    "gpt-neox",
    "llama",
    "mistral",
    "qwen3",
    "gemma2",
    "gemma3",
    "phi3",
    "mixtral",
    "t5",
]


@pytest.mark.parametrize("name", SITES_FOUND)
def test_attention_and_mlp_add_up_to_the_residual_stream(name):
    model = build(name)
    expected = [reference_states(model, "encoder", text) for text in TEXTS]
    parts = {}
    for site in ("attention", "mlp"):
        backbone = prepare(
            copy.deepcopy(model), device=torch.device("cpu"), dtype="float32", dtype_reason="", site=site
        )
        assert not backbone.stack.final_norm
        if not name.startswith("gemma"):  # whose part is a norm after it
            assert ("att" in type(backbone.stack.blocks[0]).__name__.lower()) == (site == "attention")
        parts[site] = read(backbone, TEXTS, (1, 2, 3))
    for layer in (1, 2):  # the last one has the final norm in hidden_states
        for i, states in enumerate(expected):
            whole = states[layer - 1] + parts["attention"][layer][i] + parts["mlp"][layer][i]
            assert torch.allclose(whole, states[layer], atol=2e-5)
        assert parts["attention"][layer][0].abs().max() > 1e-3


@pytest.mark.parametrize("name", ["bert", "roberta", "electra", "distilbert"])
def test_attention_and_mlp_before_the_norms_of_bert(name):
    model = build(name)
    expected = [reference_states(model, "encoder", text) for text in TEXTS]
    stack = model.transformer.layer if name == "distilbert" else model.encoder.layer
    parts = {}
    for site in ("attention", "mlp"):
        backbone = prepare(
            copy.deepcopy(model), device=torch.device("cpu"), dtype="float32", dtype_reason="", site=site
        )
        parts[site] = read(backbone, TEXTS, (1, 3))
    for layer in (1, 3):
        block = stack[layer - 1]
        if name == "distilbert":
            first, second = block.sa_layer_norm, block.output_layer_norm
        else:
            first, second = block.attention.output.LayerNorm, block.output.LayerNorm
        for i, states in enumerate(expected):
            middle = first(states[layer - 1] + parts["attention"][layer][i])
            assert torch.allclose(second(middle + parts["mlp"][layer][i]), states[layer], atol=2e-5)


def test_the_attention_is_what_runs_first_whatever_stands_first_in_the_code():
    model = build("gpt-neox")  # whose attention and MLP run side by side
    for block in model.layers:
        block._modules["attention"] = block._modules.pop("attention")
    backbone = prepare(model, device=torch.device("cpu"), dtype="float32", dtype_reason="", site="attention")
    assert "attention" in type(backbone.stack.blocks[0]).__name__.lower()


@pytest.mark.parametrize("name", ["bert", "llama", "gpt-neox"])
def test_sites_are_found_in_bfloat16_too(name):
    model = build(name).bfloat16()
    for site in ("attention", "mlp"):
        prepare(copy.deepcopy(model), device=torch.device("cpu"), dtype="bfloat16", dtype_reason="", site=site)


@pytest.mark.parametrize("name", ["mamba", "bart-decoder"])
def test_blocks_of_other_parts_have_no_such_site(name):
    with pytest.raises(SpecError, match="--site mlp: needs blocks that add an attention and an MLP"):
        prepare(
            build(name),
            device=torch.device("cpu"),
            dtype="float32",
            dtype_reason="",
            side=FAMILIES[name].side,
            site="mlp",
        )


def test_position_tables_with_room_for_padding():
    limits = {"roberta": 62, "mpnet": 62, "bert": 64, "llama": 64, "bart": 64}
    for name, most in limits.items():
        backbone = prepare(build(name), device=torch.device("cpu"), dtype="float32", dtype_reason="")
        assert backbone.max_positions == most, name
        longest = [5 + i % 50 for i in range(most)]
        read(backbone, [longest], (1,))


def test_a_rope_that_depends_on_the_length_sets_a_limit_for_batches():
    """Trap: one long text in the batch changes the rotary positions of the short ones (Phi-3's longrope)."""
    import numpy as np

    from probekit.extraction.plan import make_plan

    factors = {"short_factor": [1.0] * 6, "long_factor": [4.0 + i for i in range(6)]}
    rope = {
        "rope_type": "longrope",
        "rope_theta": 10000.0,
        "original_max_position_embeddings": 8,
        "factor": 8.0,
        **factors,
    }
    model = build("phi3", rope_parameters=rope, original_max_position_embeddings=8)
    expected = [reference_states(model, "encoder", text) for text in TEXTS]
    backbone = prepare(copy.deepcopy(model), device=torch.device("cpu"), dtype="float32", dtype_reason="")
    assert backbone.length_limit == 8
    plan = make_plan(np.array([len(t) for t in TEXTS], dtype=np.int32), batch_tokens=999, length_limit=8)
    for batch in plan.batches[0]:
        got = read(backbone, [TEXTS[i] for i in batch], (0, 1, 2, 3))
        assert_states_equal(got, [expected[i] for i in batch])
    # Pieces of one text can't be kept apart by the plan: the backbone does it.
    assert_states_equal(read(backbone, TEXTS, (0, 1, 2, 3)), expected)
    with pytest.raises(AssertionError, match="layer"):
        assert_states_equal(read(replace(backbone, length_limit=None), TEXTS, (0, 1, 2, 3)), expected)
