"""Attention: transformers' own weights for every family, rollout by hand, and what is refused before the work."""

from __future__ import annotations

import copy
import json
import os
import re
import sys

import numpy as np
import pytest
import torch
import transformers

import probekit
from probekit.cli import run
from probekit.errors import InputError, ModelError, ProbekitError, SpecError
from probekit.explanation.attention_result import without_first
from probekit.models.attention import attention_form, stream_attention
from probekit.models.backbone import prepare
from tests.models.families import FAMILIES, build
from tests.packaged import load_transformers, minilm, smollm2
from tests.tiny import save_tiny_bert

# Longer than the sliding windows of 6, with the ids of padding, end and beginning inside.
IDS = [5, 9, 3, 7, 11, 4, 8, 0, 31, 22, 17, 2, 1, 33]
NONE = {"fnet", "mamba", "mamba2"}
SINKS = {"gpt-oss"}
TOGETHER = {"deberta-v2", "mpnet"}
"""Their attention does not go through transformers' interface."""
QUICK = {
    "bert",
    "albert",
    "deberta-v2",
    "gpt2",
    "llama",
    "mistral",
    "gemma2",
    "gpt-oss",
    "qwen3-next",
    "t5",
    "bart-decoder",
}
WITH_ATTENTION = [
    pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow) for name in FAMILIES if name not in NONE
]
TOLERANCE = 2e-6
"""In float32; the layers below one that is asked for are sdpa here and eager in transformers."""


@pytest.fixture(scope="module", autouse=True)
def quiet():
    transformers.utils.logging.set_verbosity_error()


def own_attentions(model, side, ids):
    """transformers' own, all layers eager: one (n_heads, n, n) for each layer that has one, in order."""
    model = copy.deepcopy(model)
    model.set_attn_implementation("eager")
    row = torch.tensor([ids])
    with torch.inference_mode():
        if not model.config.is_encoder_decoder:
            found = model(input_ids=row, output_attentions=True).attentions
        elif side == "encoder":
            found = model.get_encoder()(input_ids=row, output_attentions=True).attentions
        else:
            shifted = torch.tensor([[model.config.decoder_start_token_id, *ids[:-1]]])
            found = model(input_ids=row, decoder_input_ids=shifted, output_attentions=True).decoder_attentions
    return [weights[0].numpy() for weights in found if weights is not None]


def prepared(model, side="encoder"):
    return prepare(copy.deepcopy(model), device=torch.device("cpu"), dtype="float32", dtype_reason="", side=side)


def read(backbone, form, layers):
    found = {}
    stream_attention(
        backbone, form, IDS, layers=layers, receive=lambda k, weights: found.update({k: weights.clone().numpy()})
    )
    return found


@pytest.mark.parametrize("name", WITH_ATTENTION)
def test_equals_output_attentions_whichever_layers_are_asked_for(name):
    model, side = build(name), FAMILIES[name].side
    expected = own_attentions(model, side, IDS)
    backbone = prepared(model, side)
    implementation = backbone.model.config._attn_implementation
    form = attention_form(backbone, IDS)
    assert form.layerwise == (name not in TOGETHER)
    there = [layer for layer, n in enumerate(form.n_heads, start=1) if n]
    for layers in (there, there[-1:], there[:1]):
        found = read(backbone, form, layers)
        assert list(found) == layers
        for layer, weights in found.items():
            own = expected[there.index(layer)]
            assert weights.shape == own.shape == (form.n_heads[layer - 1], len(IDS), len(IDS))
            np.testing.assert_allclose(weights, own, atol=TOLERANCE, rtol=0)
            if name in SINKS:
                assert weights.sum(axis=-1).max() < 1
            else:
                np.testing.assert_allclose(weights.sum(axis=-1), 1, atol=1e-5)
    assert backbone.model.config._attn_implementation == implementation


@pytest.mark.parametrize("name", ["llama", "bert", "albert"])
def test_only_the_layers_asked_for_are_eager_and_the_pass_ends_at_the_deepest(name, monkeypatch):
    backbone = prepared(build(name))
    form = attention_form(backbone, IDS)
    module = sys.modules[type(backbone.model).__module__]
    eager, sdpa = [], []
    of_module, of_torch = module.eager_attention_forward, torch.nn.functional.scaled_dot_product_attention
    monkeypatch.setattr(module, "eager_attention_forward", lambda *a, **k: eager.append(1) or of_module(*a, **k))
    monkeypatch.setattr(
        torch.nn.functional, "scaled_dot_product_attention", lambda *a, **k: sdpa.append(1) or of_torch(*a, **k)
    )
    read(backbone, form, (2,))
    assert (len(eager), len(sdpa)) == (1, 1)  # of three blocks


@pytest.mark.parametrize("name", sorted(NONE))
def test_a_model_without_attention_is_refused_by_name(name):
    with pytest.raises(ModelError, match=f"a {name}: has no attention"):
        attention_form(prepared(build(name)), IDS)


def test_states_read_before_and_after_are_the_same():
    """The packed path has its own attention back."""
    backbone = prepared(build("llama"))
    states = []
    for _ in range(2):
        backbone.stream([IDS, IDS[:4]], layers=(3,), receive=lambda _k, found: states.append(found.clone()))
        read(backbone, attention_form(backbone, IDS), (1, 3))
    assert torch.equal(*states)


# The command and the function


TEXT = "the film is very good, and the plot a fine one"


def test_of_a_real_model_with_its_tokens():
    model, tokenizer = load_transformers(minilm())
    ids = tokenizer(TEXT)["input_ids"]
    expected = np.stack(own_attentions(model, "encoder", ids))
    found = probekit.attention(minilm(), TEXT, layers=[2, 5], heads=[0, -1])
    assert found.layers == (2, 5)
    assert found.heads == (0, 11)
    assert found.token_ids.tolist() == ids
    assert found.tokens == ("[CLS]", *TEXT.replace(",", " ,").split(), "[SEP]")
    assert found.weights.shape == (2, 2, len(ids), len(ids))
    assert found.weights.dtype == np.float32
    np.testing.assert_allclose(found.weights, expected[[1, 4]][:, [0, 11]], atol=1e-5)


@pytest.mark.slow
def test_of_a_decoder_with_shared_keys():
    model, tokenizer = load_transformers(smollm2())
    ids = tokenizer(TEXT)["input_ids"]
    expected = own_attentions(model, "encoder", ids)
    found = probekit.attention(smollm2(), TEXT, layers=[1, 17, 30])
    assert found.weights.shape == (3, 9, len(ids), len(ids))
    np.testing.assert_allclose(found.weights, np.stack([expected[k] for k in (0, 16, 29)]), atol=1e-4)


def test_rollout_is_that_of_abnar_and_zuidema():
    """Against the matrix product written out: 0.5 A + 0.5 I of each layer, the deeper one from the left."""
    model, tokenizer = load_transformers(minilm())
    attentions = own_attentions(model, "encoder", tokenizer(TEXT)["input_ids"])
    n = attentions[0].shape[-1]
    expected = np.eye(n)
    for weights in attentions[:4]:
        expected = (0.5 * weights.mean(axis=0) + 0.5 * np.eye(n)) @ expected
    found = probekit.attention(minilm(), TEXT, layers=[4], heads=[3], rollout=True)
    assert found.rollout_layer == 4
    np.testing.assert_allclose(found.rollout, expected, atol=1e-6)
    np.testing.assert_allclose(found.rollout.sum(axis=-1), 1, atol=1e-5)
    np.testing.assert_allclose(found.weights[0, 0], attentions[3][3], atol=1e-5)


def test_hiding_the_first_token_changes_what_is_shown_and_no_number(tiny_model):
    plain, hidden = (probekit.attention(tiny_model, "good film", hide_first=hide) for hide in (False, True))
    assert np.array_equal(plain.weights, hidden.weights)
    assert plain.json() == hidden.json()
    weights = plain.weights[1, 1]
    assert plain.shown(weights) is weights
    shown = hidden.shown(weights)
    assert np.isnan(shown[:, 0]).all()
    np.testing.assert_allclose(shown[:, 1:].sum(axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(shown[2, 1:], weights[2, 1:] / (1 - weights[2, 0]), rtol=1e-5)
    assert np.isnan(without_first(np.float32([[1, 0], [0.25, 0.75]]))[0]).all()


def test_what_the_command_prints(tiny_model, tmp_path, capsys):
    assert run(["attention", str(tiny_model), "--text", "good film", "--layers", "2", "--heads", "1", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    found = probekit.attention(tiny_model, "good film", layers=2, heads=1)
    assert printed["tokens"] == ["[CLS]", "good", "film", "[SEP]"]
    assert (printed["layers"], printed["heads"], printed["renormalised"]) == ([2], [1], False)
    np.testing.assert_allclose(printed["weights"], found.weights, atol=1e-6)
    assert run(["attention", str(tiny_model), "--text", "good film", "--layers", "2", "--heads", "1"]) == 0
    out = capsys.readouterr().out
    others = found.weights[0, 0] - np.diag(np.diag(found.weights[0, 0]))
    q, k = np.unravel_index(others.argmax(), others.shape)
    first_link = out.split("the strongest links")[1].splitlines()[2].split()
    assert first_link == [str(q), found.tokens[q], str(k), found.tokens[k], f"{others.max():.3f}"]


def test_the_table_says_what_heads_do(tiny_model, capsys):
    assert run(["attention", str(tiny_model), "--text", "good film plot", "--rollout"]) == 0
    out = capsys.readouterr().out
    found = probekit.attention(tiny_model, "good film plot")
    weights = found.weights[1, 0].astype(float)
    entropy = -(weights * np.log2(weights)).sum(axis=1).mean()
    row = next(line.split() for line in out.splitlines() if line.split()[:2] == ["2", "0"])
    assert row[2:6] == [
        f"{value:.3f}"
        for value in (weights[1:, 0].mean(), entropy, np.diag(weights).mean(), np.diag(weights[1:]).mean())
    ]
    assert "rollout, layers 1..2" in out


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--layers", "3"], r"--layers 3: there are layers 0\.\.2"),
        (["--layers", "0"], r"the embeddings \(0\) have no attn; layers 1\.\.2"),
        (["--layers", "x"], "--layers: all, or numbers"),
        (["--heads", "2"], r"--heads 2: this model has heads 0\.\.1"),
        (["--heads", "0:0"], r"--heads 0:0: this model has heads 0\.\.1; got no head at all"),
        (["--heads", "x"], "--heads: all, or numbers"),
        (["--side", "decoder"], "--side decoder: goes with encoder-decoder models"),
        (["--max-length", "99"], "--max-length: this model reads 1 to 32 tokens"),
        (["--dtype", "int8"], "--dtype: one of auto"),
        (["--plot", "x.gif"], r"--plot x\.gif: must end in \.png or \.svg or \.pdf"),
        (["--html", "x.txt"], r"--html x\.txt: must end in \.html"),
        (["--text", "another"], "--text: one at a time; got 2"),
    ],
)
def test_mistakes_are_one_line(options, said, tiny_model, capsys):
    assert run(["attention", str(tiny_model), "--text", "good film", *options]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    assert re.search(said, line), line


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "must not be empty"),
        (" \n ", "must not be empty"),
        ("[CLS] [SEP]", "must have a token of its own"),
        ("a\0b", "without NUL"),
    ],
)
def test_a_text_with_nothing_in_it(text, said, tiny_model):
    with pytest.raises(InputError, match=said):
        probekit.attention(tiny_model, text)


def test_no_text_but_unknown_words_is_a_text(tiny_model):
    assert probekit.attention(tiny_model, "zebra").tokens == ("[CLS]", "[UNK]", "[SEP]")


def test_a_long_text_is_cut_and_that_is_said(tiny_model, capsys):
    assert run(["attention", str(tiny_model), "--text", "good film " * 40, "--json"]) == 0
    captured = capsys.readouterr()
    assert "longer than 32 tokens and read only so far" in captured.err
    printed = json.loads(captured.out)
    assert printed["truncated"]
    assert len(printed["tokens"]) == 32


def test_attention_that_is_not_finite(tmp_path, capsys):
    folder = save_tiny_bert(tmp_path / "broken")
    model = transformers.BertModel.from_pretrained(folder)
    with torch.no_grad():
        model.encoder.layer[1].attention.self.query.weight[0, 0] = float("nan")
    model.save_pretrained(folder)
    assert run(["attention", str(folder), "--text", "good film"]) == 2
    assert "must have finite attention; got NaN or inf at layer 2" in capsys.readouterr().err
    assert probekit.attention(folder, "good film", layers=1).layers == (1,)


def test_more_than_there_is_memory_for_is_refused_before_the_pass(tiny_model, monkeypatch):
    from probekit.explanation import attention

    def never(*_args, **_kwargs):
        raise AssertionError("the pass began")

    needed = (4 * 2 * 2 + 4 * 4 * 2) * 32**2  # what is kept, and four copies of a layer's two heads
    text = "good film " * 40
    monkeypatch.setattr(attention, "free_memory", lambda: needed)
    probekit.attention(tiny_model, text)
    monkeypatch.setattr(attention, "free_memory", lambda: needed - 1)
    monkeypatch.setattr(attention, "stream_attention", never)
    with pytest.raises(SpecError, match=r"2 layers x 2 heads to 32 tokens needs 0\.00 GB of memory; ask for fewer"):
        probekit.attention(tiny_model, text)
    assert attention.free_memory() > 0


def test_free_memory_is_between_nothing_and_all():
    from probekit.explanation.attention import free_memory

    assert 0 < free_memory() <= os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def test_two_thousand_tokens(tmp_path, capsys):
    """Drawn and listed; a page of all of it is refused before the pass."""
    folder = save_tiny_bert(tmp_path / "long")
    config = json.loads((folder / "config.json").read_text()) | {"max_position_embeddings": 2048}
    transformers.BertModel(transformers.BertConfig(**config)).save_pretrained(folder)
    tokenizer = json.loads((folder / "tokenizer_config.json").read_text()) | {"model_max_length": 2048}
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    words = ["attention", str(folder), "--text", "good film " * 999]
    picture = tmp_path / "a.png"
    assert run([*words, "--plot", str(picture)]) == 0
    assert "attention in 2,000 tokens" in capsys.readouterr().out
    assert picture.stat().st_size > 0
    assert run([*words, "--json"]) == 2
    assert "--json: takes 10,000,000 weights at most" in capsys.readouterr().err


def test_rollout_needs_attention_in_every_layer_and_no_encoder_beside_it(monkeypatch):
    from probekit.explanation.attention import _check_rollout
    from probekit.models.attention import AttentionForm

    hybrid = AttentionForm((0, 2, 0), layerwise=True)
    with pytest.raises(SpecError, match=r"needs attention in every layer up to 2; got none in 1"):
        _check_rollout(hybrid, (2,), decoder=False)
    with pytest.raises(SpecError, match="a decoder attends to the encoder's states as well"):
        _check_rollout(AttentionForm((2, 2), layerwise=True), (2,), decoder=True)


def save_family(name, folder):
    """A family's tiny model as a folder, with a tokenizer of words."""
    save_tiny_bert(folder)
    for file in ("config.json", "model.safetensors"):
        (folder / file).unlink()
    build(name).save_pretrained(folder)
    return folder


def test_layers_of_a_hybrid_without_attention_are_refused_by_number(tmp_path):
    folder = save_family("qwen3-next", tmp_path / "hybrid")
    assert probekit.attention(folder, "good film").layers == (2,)
    with pytest.raises(SpecError, match="--layers 1: this model has attention in layers 2; got layer 1"):
        probekit.attention(folder, "good film", layers=1)
    with pytest.raises(SpecError, match="--rollout: needs attention in every layer"):
        probekit.attention(folder, "good film", rollout=True)


def test_a_model_without_attention_is_one_line(tmp_path, capsys):
    folder = save_family("mamba", tmp_path / "mamba")
    assert run(["attention", str(folder), "--text", "good film"]) == 2
    assert "a mamba: has no attention that can be read" in capsys.readouterr().err


def test_a_decoder_reads_one_token_late(tmp_path):
    folder = save_family("t5-decoder", tmp_path / "t5")
    found = probekit.attention(folder, "good film", side="decoder")
    assert found.tokens == ("[PAD]", "[CLS]", "good", "film")
    assert np.triu(found.weights[0, 0], 1).max() == 0
    encoder = probekit.attention(folder, "good film")
    assert encoder.tokens == ("[CLS]", "good", "film", "[SEP]")
    with pytest.raises(SpecError, match="--rollout: goes with --side encoder"):
        probekit.attention(folder, "good film", side="decoder", rollout=True)


def test_sinks_are_said(tmp_path, capsys):
    folder = save_family("gpt-oss", tmp_path / "sinks")
    assert run(["attention", str(folder), "--text", "good film plot"]) == 0
    assert "rows sum to less than 1" in capsys.readouterr().err


def test_a_pair_of_one_token_has_nothing_besides_the_first(tmp_path):
    folder = save_family("gpt2", tmp_path / "gpt2")
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.post_processor = None
    state = json.loads(tokenizer.to_str()) | {"post_processor": None}
    (folder / "tokenizer.json").write_text(json.dumps(state))
    assert probekit.attention(folder, "good").weights.shape == (3, 2, 1, 1)
    with pytest.raises(SpecError, match="--hide-first: needs a text of two tokens or more"):
        probekit.attention(folder, "good", hide_first=True)
    assert run(["attention", str(folder), "--text", "good"]) == 0


def test_every_error_is_one_of_ours(tiny_model):
    for wrong in ({"layers": []}, {"heads": []}, {"text": 3}, {"layers": 1.5}):
        with pytest.raises(ProbekitError):
            probekit.attention(tiny_model, **({"text": "good film"} | wrong))
