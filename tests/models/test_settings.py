"""Settings of a config that change nothing of the states: the model is read as transformers reads it."""

from __future__ import annotations

import json
import logging

import pytest
import torch
import transformers

from probekit.models import locate
from probekit.models.backbone import prepare
from probekit.models.loading import load_backbone
from probekit.readspec import ReadSpec, RunOptions
from tests.models.families import FAMILIES, build, reference_states
from tests.models.test_families import TEXTS, assert_states_equal, read

SETTINGS = {
    "no padding as -1": {"pad_token_id": -1},
    "no padding": {"pad_token_id": None},
    "padding is the end": {"pad_token_id": 2, "eos_token_id": 2},
    "tuples": {"return_dict": False},
    "states always": {"output_hidden_states": True},
    "attentions always": {"output_attentions": True},
    "a cache always": {"use_cache": True},
    "all of them": {"return_dict": False, "output_hidden_states": True, "use_cache": True, "pad_token_id": -1},
}


@pytest.fixture(scope="module", autouse=True)
def quiet():
    transformers.utils.logging.set_verbosity_error()
    logging.getLogger("transformers").setLevel(logging.ERROR)


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize(
    "name", ["bert", "roberta", "gpt2", "llama", "opt", "t5", "t5-decoder", "bart-decoder", "mamba"]
)
def test_the_states_are_those_of_the_model_without_it(tmp_path, name, setting):
    model = build(name)
    model.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | SETTINGS[setting]))
    side = FAMILIES[name].side
    # In RoBERTa the number of a position depends on which token is padding.
    changed = name == "roberta" and "pad_token_id" in SETTINGS[setting]
    if changed and SETTINGS[setting]["pad_token_id"] is None:
        pytest.skip("nor does transformers run it")
    texts = [text for text in TEXTS if min(text) > 2]
    backbone = load_backbone(locate(tmp_path), ReadSpec(dtype="float32", side=side), RunOptions("cpu", 1))
    layers = tuple(range(backbone.stack.n_layers + 1))
    assert len(backbone.stack.blocks) > 0
    reference = transformers.AutoModel.from_pretrained(tmp_path, return_dict=True).eval() if changed else model
    assert_states_equal(read(backbone, texts, layers), [reference_states(reference, side, text) for text in texts])
    assert backbone.max_positions is None or backbone.max_positions > 60


@pytest.mark.parametrize("name", ["bert", "llama", "bart"])
def test_it_is_the_same_for_a_model_in_memory(name):
    model = build(name, return_dict=False, pad_token_id=-1)
    backbone = prepare(model, device=torch.device("cpu"), dtype="float32", dtype_reason="")
    read(backbone, TEXTS, (0, 1))
    assert 0 <= backbone.pad_id < 60


def test_a_first_token_of_the_decoder_that_its_table_lacks(tmp_path):
    from probekit.errors import ModelError

    build("t5", decoder_start_token_id=60).save_pretrained(tmp_path)
    options = RunOptions("cpu", 1)
    load_backbone(locate(tmp_path), ReadSpec(dtype="float32"), options)
    with pytest.raises(ModelError, match="index out of range"):
        load_backbone(locate(tmp_path), ReadSpec(dtype="float32", side="decoder"), options)
