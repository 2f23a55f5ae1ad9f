"""What others tried: adapters inside a checkpoint, models that change themselves, odd tables, other token types."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import safetensors.torch
import torch
import transformers

from probekit import extract
from probekit.errors import ModelError
from probekit.models.backbone import prepare
from tests.models.families import SMALL, build
from tests.models.test_families import assert_states_equal, read


def prepared(model):
    return prepare(model, device=torch.device("cpu"), dtype="float32", dtype_reason="")


@pytest.mark.parametrize(
    "key",
    [
        "base_model.model.encoder.layer.0.attention.self.query.lora_A.weight",
        "prompt_encoder.default.embedding.weight",
        "encoder.layer.0.attention.self.query.lora_B.default.weight",
        "model.layers.0.mlp.ia3_l.weight",
    ],
)
def test_an_adapter_inside_the_checkpoint_is_refused(tmp_path, tiny_model, tiny_data, key):
    import shutil

    folder = tmp_path / "adapted"
    shutil.copytree(tiny_model, folder)
    weights = safetensors.torch.load_file(folder / "model.safetensors") | {key: torch.zeros(4, 16)}
    safetensors.torch.save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match="holds an adapter's weights"):
        extract(folder, tiny_data, out=tmp_path / "c.h5")


def test_a_model_that_changes_its_own_settings_is_refused():
    """BigBird gives up its sparse attention for good at the first short text."""
    torch.manual_seed(0)
    config = transformers.BigBirdConfig(**SMALL, block_size=4, num_random_blocks=1, attention_type="block_sparse")
    with pytest.raises(ModelError, match="attention_type: block_sparse became original_full"):
        prepared(transformers.BigBirdModel(config).eval())


@pytest.mark.parametrize(
    ("config", "causal"),
    [
        (transformers.RoFormerConfig(**SMALL), False),
        (transformers.CTRLConfig(vocab_size=60, n_positions=64, n_embd=24, dff=40, n_layer=3, n_head=2), True),
    ],
    ids=["a table of positions that takes a size", "no gradient to be had"],
)
def test_causality_of_odd_models(config, causal):
    torch.manual_seed(0)
    model = transformers.AutoModel.from_config(config).eval()
    texts = [[5, 9, 3, 7], [6], [12, 13, 14, 2, 8]]
    with torch.inference_mode():
        expected = [
            [states[0] for states in model(input_ids=torch.tensor([t]), output_hidden_states=True).hidden_states]
            for t in texts
        ]
    backbone = prepared(copy.deepcopy(model))
    assert backbone.causal == causal
    assert_states_equal(read(backbone, texts, (0, 3)), expected)


def test_a_batch_that_fails_is_read_one_by_one():
    class Short(transformers.BertModel):
        def forward(self, input_ids=None, **options):
            if input_ids.numel() > 100:
                raise ValueError("at most 100 tokens")
            return super().forward(input_ids=input_ids, **options)

    torch.manual_seed(0)
    backbone = prepared(Short(build("bert").config).eval())
    texts = [np.arange(1, 12, dtype=np.int32) for _ in range(20)]
    checked = backbone.checked_on(texts, layer=3, batch_tokens=2048)
    assert checked.way == "single"
    assert "at most 100 tokens" in checked.batching


def test_token_types_that_are_not_read_are_refused(tmp_path, tiny_model, tiny_data):
    import json
    import shutil

    folder = tmp_path / "typed"
    shutil.copytree(tiny_model, folder)
    whole = json.loads((folder / "tokenizer.json").read_text())
    for part in whole["post_processor"]["single"]:
        next(iter(part.values()))["type_id"] = 1
    (folder / "tokenizer.json").write_text(json.dumps(whole))
    config = json.loads((folder / "tokenizer_config.json").read_text())
    config["model_input_names"] = ["input_ids", "token_type_ids", "attention_mask"]
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="type 0 alone"):
        extract(folder, tiny_data, out=tmp_path / "c.h5")
