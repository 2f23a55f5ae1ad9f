"""A checkpoint holds the weights that the layers need, under names that the model knows, or it is refused by name."""

from __future__ import annotations

import json
import logging
import re

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from probekit.errors import ModelError, SpecError
from probekit.models import locate
from probekit.models.loading import load_backbone
from probekit.readspec import ReadSpec, RunOptions
from tests.models.families import FAMILIES, SMALL, T5, build, reference_states

HEADS = {
    "causal": transformers.AutoModelForCausalLM,
    "masked": transformers.AutoModelForMaskedLM,
    "seq2seq": transformers.AutoModelForSeq2SeqLM,
    "classification": transformers.AutoModelForSequenceClassification,
}
TEXT = [5, 9, 3, 7, 11]


@pytest.fixture(scope="module", autouse=True)
def quiet():
    transformers.utils.logging.set_verbosity_error()
    logging.getLogger("transformers").setLevel(logging.ERROR)


def load(folder, **how):
    return load_backbone(locate(folder), ReadSpec(dtype="float32", **how), RunOptions("cpu", 1))


def last_state(backbone):
    states = []
    backbone.stream([TEXT], layers=(backbone.stack.n_layers,), receive=lambda _k, x: states.append(x.clone()))
    return states[0]


def saved_forms():
    """Every family with the first head that it has, and some bare ones."""
    for name, family in FAMILIES.items():
        if name != "bart-decoder":
            config = family.config()
            of_family = [head for head, auto in HEADS.items() if type(config) in auto._model_mapping]
            of_family = [head for head in of_family if not (config.is_encoder_decoder and head == "causal")]
            for head in of_family[:2] if name in ("bert", "llama", "t5", "bart") else of_family[:1]:
                yield pytest.param(name, HEADS[head], id=f"{name}-{head}")
        if name in ("roberta", "gpt2", "bart-decoder", "mixtral", "qwen3-next"):
            yield pytest.param(name, None, id=name)


@pytest.mark.parametrize(("name", "auto"), list(saved_forms()))
def test_what_transformers_saves_is_loaded_whatever_its_head(tmp_path, name, auto):
    config = FAMILIES[name].config()
    torch.manual_seed(0)
    if auto is HEADS["classification"] and config.pad_token_id is None:
        config.pad_token_id = 0
    model = build(name) if auto is None else auto.from_config(config).eval()
    model.save_pretrained(tmp_path)
    side = FAMILIES[name].side
    bare = transformers.AutoModel.from_pretrained(tmp_path)
    got = last_state(load(tmp_path, side=side))
    assert torch.allclose(got, reference_states(bare, side, TEXT)[-1], atol=1e-5)


@pytest.fixture
def bert(tmp_path):
    build("bert").save_pretrained(tmp_path)
    return tmp_path


def rewrite(folder, change):
    """The checkpoint with ``change`` made to its dictionary of tensors."""
    weights = load_file(folder / "model.safetensors")
    changed = change(weights)
    save_file(weights if changed is None else changed, folder / "model.safetensors", metadata={"format": "pt"})


def set_config(folder, **fields):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | fields))


def without(pattern):
    return lambda weights: {name: tensor for name, tensor in weights.items() if not re.search(pattern, name)}


def renamed(pattern, by):
    return lambda weights: {re.sub(pattern, by, name): tensor for name, tensor in weights.items()}


MISSING = "weights that the layers need are not in the checkpoint: "
CHANGES = {
    "every name behind module.": (renamed("^", "module."), MISSING + r"embeddings\.LayerNorm\.bias, .* and 50 more$"),
    "every name behind _orig_mod.": (renamed("^", "_orig_mod."), MISSING),
    "every name behind model.": (renamed("^", "model."), MISSING),
    "the last layer behind another name": (
        renamed(r"layer\.2", "layers.2"),
        MISSING + r"encoder\.layer\.2\..* 13 more$",
    ),
    "no last layer": (without(r"layer\.2\."), MISSING),
    "no embeddings": (without("^embeddings"), MISSING),
    "no embeddings of types": (without("token_type"), MISSING + r"embeddings\.token_type_embeddings\.weight$"),
    "one bias less": (without(r"layer\.1\.attention\.self\.key\.bias"), MISSING + r"\S+key\.bias$"),
    "no last norm": (without(r"layer\.2\.output\.LayerNorm"), MISSING + r"\S+bias, \S+weight$"),
    "wrapped in an adapter": (renamed(r"query\.", "query.base_layer."), MISSING),
    "nothing": (lambda _weights: {"x": torch.zeros(9999)}, MISSING),
    "an adapter's weights inside": (
        lambda weights: weights.update({"encoder.layer.0.attention.self.query.lora_A": torch.zeros(4, 24)}),
        r"the checkpoint has weights for which config\.json has no place: encoder\.layer\.0\S+lora_A$",
    ),
}


@pytest.mark.parametrize("name", CHANGES)
def test_weights_that_the_layers_need_are_named_where_they_are_missing(bert, name):
    change, message = CHANGES[name]
    rewrite(bert, change)
    with pytest.raises(ModelError, match=message):
        load(bert)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"num_hidden_layers": 4}, MISSING + r"encoder\.layer\.3\..* and 13 more$"),
        ({"num_hidden_layers": 2}, r"config\.json has no place: encoder\.layer\.2\..* and 13 more$"),
        (
            {"vocab_size": 61},
            r"of another shape than config\.json says: \S+word_embeddings\.weight \(60, 24\) for \(61, 24\)$",
        ),
        ({"intermediate_size": 48}, r"of another shape than config\.json says: .* and 6 more$"),
        ({"model_type": "roberta"}, None),
        ({"model_type": "distilbert"}, MISSING),
        ({"model_type": "electra"}, MISSING + r"embeddings_project\.bias, embeddings_project\.weight$"),
    ],
    ids=["more layers", "fewer layers", "vocabulary", "width", "roberta", "distilbert", "electra"],
)
def test_a_config_that_is_not_the_checkpoints(bert, fields, message):
    """BERT's weights are complete for a model that differs from it in how it reads them: nobody can see that."""
    set_config(bert, **fields)
    if message is None:
        load(bert)
        return
    with pytest.raises(ModelError, match=message):
        load(bert)


def test_fewer_layers_than_a_checkpoint_with_a_head(tmp_path):
    torch.manual_seed(0)
    transformers.BertForMaskedLM(transformers.BertConfig(**SMALL)).save_pretrained(tmp_path)
    set_config(tmp_path, num_hidden_layers=1)
    with pytest.raises(ModelError, match=r"no place: bert\.encoder\.layer\.1\..* and 29 more"):
        load(tmp_path)


@pytest.mark.parametrize("change", [without("^pooler"), lambda w: w.update({"head.weight": torch.zeros(2, 24)})])
def test_what_no_state_comes_from_may_be_missing_or_there(bert, change):
    expected = last_state(load(bert))
    rewrite(bert, change)
    assert torch.equal(last_state(load(bert)), expected)


def test_a_pooler_of_another_shape_is_no_matter(bert):
    rewrite(bert, lambda weights: weights.update({"pooler.dense.weight": torch.zeros(5, 24)}))
    load(bert)


def test_buffers_that_older_versions_saved_are_no_weights(tmp_path):
    for name, buffers in {
        "bert": {"embeddings.position_ids": torch.arange(64)},
        "gpt2": {"h.0.attn.bias": torch.ones(1, 1, 64, 64), "h.0.attn.masked_bias": torch.tensor(-1e4)},
        "llama": {"layers.0.self_attn.rotary_emb.inv_freq": torch.ones(6)},
    }.items():
        build(name).save_pretrained(tmp_path / name)
        rewrite(tmp_path / name, lambda weights, more=buffers: weights.update(more))
        load(tmp_path / name)


def test_an_expert_that_no_token_of_the_trial_is_sent_to(tmp_path):
    """Trap: what three tokens don't run through counts as well."""
    build("mixtral", num_local_experts=16).save_pretrained(tmp_path)
    for expert in (0, 7, 15):
        weights = load_file(tmp_path / "model.safetensors")
        rewrite(tmp_path, without(rf"layers\.1\..*experts\.{expert}\."))
        with pytest.raises(ModelError):
            load(tmp_path)
        save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    load(tmp_path)


def test_each_side_needs_its_own_weights_only(tmp_path):
    model = build("t5")
    transformers.T5EncoderModel(transformers.T5Config(**T5)).save_pretrained(tmp_path / "encoder")
    set_config(tmp_path / "encoder", decoder_start_token_id=0)
    load(tmp_path / "encoder")
    with pytest.raises(ModelError, match=MISSING + r"decoder\.block\.0\."):
        load(tmp_path / "encoder", side="decoder")
    model.save_pretrained(tmp_path / "cut")
    rewrite(tmp_path / "cut", without(r"^encoder\.block\.1"))
    for side in ("encoder", "decoder"):  # which reads what the encoder made of the text
        with pytest.raises(ModelError, match=MISSING + r"encoder\.block\.1"):
            load(tmp_path / "cut", side=side)
    build("bert").save_pretrained(tmp_path / "bert")
    with pytest.raises(SpecError, match="goes with encoder-decoder models; got a bert"):
        load(tmp_path / "bert", side="decoder")


def test_half_of_an_encoder_decoder_model(tmp_path):
    transformers.BartForCausalLM(FAMILIES["bart"].config()).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=MISSING):
        load(tmp_path)


def test_a_shard_that_is_missing_or_incomplete(tmp_path):
    build("bert").save_pretrained(tmp_path, max_shard_size="20KB")
    shards = sorted(tmp_path.glob("*.safetensors"))
    assert len(shards) > 2
    load(tmp_path)
    whole = load_file(shards[1])
    save_file(dict(list(whole.items())[1:]), shards[1], metadata={"format": "pt"})
    with pytest.raises(ModelError, match=MISSING):
        load(tmp_path)
    shards[1].unlink()
    with pytest.raises(ModelError, match="could not load it"):
        load(tmp_path)


def test_random_weights_need_no_checkpoint(bert):
    expected = last_state(load(bert, random_seed=3))
    rewrite(bert, without(r"layer\.2\."))
    assert torch.equal(last_state(load(bert, random_seed=3)), expected)


@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"])
@pytest.mark.parametrize("alone", [False, True], ids=["beside a model", "alone"])
def test_an_adapter_is_refused_by_name(bert, name, alone):
    (bert / name).write_bytes(b"{}")
    for file in bert.glob("*") if alone else ():
        if file.name != name:
            file.unlink()
    with pytest.raises(ModelError, match=f"is an adapter or has one beside it: merge it .*; got {name}$"):
        locate(bert)


def test_a_model_that_is_larger_than_its_file_or_the_memory(bert):
    for fields, message in (
        ({"vocab_size": 10**9}, r"the weight files can't hold the 24,\d+,\d+,\d+ parameters .* describes; got"),
        ({"num_hidden_layers": 10**6}, r"num_hidden_layers: at most 4,096; got 1,000,000"),
        ({"hidden_size": 10**6, "num_attention_heads": 1}, "the weight files can't hold"),
    ):
        config = (bert / "config.json").read_text()
        set_config(bert, **fields)
        with pytest.raises(ModelError, match=message):
            load(bert)
        (bert / "config.json").write_text(config)
    set_config(bert, vocab_size=10**11)
    with pytest.raises(ModelError, match=r"needs 9,600 GB in float32, more memory than there is; got \d"):
        load(bert, random_seed=0)
