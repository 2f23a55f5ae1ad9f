"""A text's states are its own, whatever else is read with it: models that break this are read text by text."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
import transformers

from probekit import extract, predict
from probekit.cli import run
from probekit.models.backbone import prepare
from tests.models.families import build
from tests.models.test_families import assert_states_equal, read
from tests.tiny import save_tiny_data

TEXTS = [[5, 9, 3], [7, 8, 6, 4, 2, 11, 12, 14, 13, 9, 21, 30], [6, 7], [40, 5, 9, 3, 22, 17]]


class MaskIgnored(transformers.BertModel):
    """Padding is read like text."""

    def forward(self, input_ids=None, attention_mask=None, **options):  # noqa: ARG002
        options.pop("position_ids", None)
        return super().forward(input_ids=input_ids, attention_mask=torch.ones_like(input_ids), **options)


class RowsMixed(transformers.BertModel):
    """Every text gets a little of the others."""

    def forward(self, input_ids=None, attention_mask=None, **options):
        embedded = self.embeddings.word_embeddings(input_ids)
        mixed = embedded + 0.5 * (embedded.mean(dim=(0, 1)) - embedded[:1].mean(dim=(0, 1)))
        options.pop("position_ids", None)
        return super().forward(inputs_embeds=mixed, attention_mask=attention_mask, **options)


class LongTextsWrong(transformers.BertModel):
    """The mask is forgotten where there are more than so many tokens."""

    def forward(self, input_ids=None, attention_mask=None, **options):
        options.pop("position_ids", None)
        if input_ids.shape[1] > 20:
            attention_mask = torch.ones_like(input_ids)
        return super().forward(input_ids=input_ids, attention_mask=attention_mask, **options)


class LargeBatchesWrong(transformers.BertModel):
    """What lies beyond the hundredth place of a batch is lost."""

    def forward(self, input_ids=None, attention_mask=None, **options):
        options.pop("position_ids", None)
        found = super().forward(input_ids=input_ids, attention_mask=attention_mask, **options)
        if input_ids.numel() <= 100:
            return found
        found.last_hidden_state.view(-1, 24)[100:] = 0
        return found


def planted(kind, **changes):
    torch.manual_seed(0)
    model = kind(build("bert", **changes).config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model.eval()


def alone(model, text):
    ids = torch.tensor([text])
    with torch.inference_mode():
        found = model(input_ids=ids, attention_mask=torch.ones_like(ids), output_hidden_states=True).hidden_states
    return [states[0] for states in found]


def prepared(model):
    return prepare(model, device=torch.device("cpu"), dtype="float32", dtype_reason="")


@pytest.mark.parametrize("kind", [MaskIgnored, RowsMixed])
def test_a_model_that_mixes_texts_is_read_one_by_one(kind):
    model = planted(kind)
    expected = [alone(model, text) for text in TEXTS]
    backbone = prepared(model)
    assert backbone.single
    assert backbone.batching.startswith("one by one")
    assert_states_equal(read(backbone, TEXTS, (0, 1, 3)), expected)


def test_what_goes_wrong_in_long_texts_alone_is_found_on_the_data():
    model = planted(LongTextsWrong)
    texts = [np.array(text, dtype=np.int32) for text in [*TEXTS, list(range(1, 31))]]
    backbone = prepared(model)
    assert backbone.way == "padded"  # its short texts are right
    checked = backbone.checked_on(texts, layer=3, batch_tokens=2048)
    assert checked.way == "single"
    lists = [text.tolist() for text in texts]
    assert_states_equal(read(checked, lists, (1, 3)), [alone(model, text) for text in lists])
    # Where no two texts fit into a batch, or the long one is not there, nothing is wrong.
    assert backbone.checked_on(texts, layer=3, batch_tokens=40).way == "padded"
    assert backbone.checked_on(texts[:-1], layer=3, batch_tokens=2048).way == "padded"
    assert backbone.checked_on(texts[:1], layer=3, batch_tokens=2048) is backbone


def test_what_goes_wrong_in_large_batches_alone_is_found_on_the_data():
    backbone = prepared(planted(LargeBatchesWrong))
    texts = [np.arange(1, 2 + n, dtype=np.int32) for n in range(30)]
    assert backbone.way == "padded"
    assert backbone.checked_on(texts, layer=3, batch_tokens=90).way == "padded"
    assert backbone.checked_on(texts, layer=3, batch_tokens=400).way == "single"


@pytest.mark.parametrize("name", ["bert", "roberta", "gpt2", "llama", "mistral", "deberta-v2", "mamba", "t5", "bart"])
def test_good_models_are_batched(name):
    backbone = prepared(build(name))
    assert backbone.way in ("packed", "padded")
    texts = [np.array(text, dtype=np.int32) for text in TEXTS]
    assert backbone.checked_on(texts, layer=backbone.stack.n_layers, batch_tokens=2048) is backbone


@pytest.mark.parametrize("name", ["bert", "llama", "mixtral"])
def test_rounding_in_half_precision_is_no_fault(name):
    backbone = prepare(build(name).to(torch.bfloat16), device=torch.device("cpu"), dtype="bfloat16", dtype_reason="")
    assert backbone.way == "packed"


def test_an_ignored_mask_shows_in_half_precision_too():
    model = planted(MaskIgnored).to(torch.bfloat16)
    assert prepare(model, device=torch.device("cpu"), dtype="bfloat16", dtype_reason="").single


@pytest.fixture
def mask_ignored_folder(tmp_path, tiny_model):
    """A folder whose own code forgets the mask, as a user would get it from the hub."""
    folder = tmp_path / "forgetful"
    shutil.copytree(tiny_model, folder)
    (folder / "modeling_forgetful.py").write_text(
        "import torch\nfrom transformers import BertConfig, BertModel\n\n"
        "class ForgetfulConfig(BertConfig):\n    model_type = 'forgetful'\n\n"
        "class Forgetful(BertModel):\n    config_class = ForgetfulConfig\n"
        "    def forward(self, input_ids=None, attention_mask=None, **options):\n"
        "        options.pop('position_ids', None)\n"
        "        return super().forward(input_ids=input_ids, attention_mask=torch.ones_like(input_ids), **options)\n"
    )
    config = json.loads((folder / "config.json").read_text())
    config |= {
        "model_type": "forgetful",
        "architectures": ["Forgetful"],
        "auto_map": {
            "AutoConfig": "modeling_forgetful.ForgetfulConfig",
            "AutoModel": "modeling_forgetful.Forgetful",
        },
    }
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_the_whole_way_of_such_a_model(tmp_path, tiny_model, mask_ignored_folder, capsys, monkeypatch):
    """Told, right, and predicted as it was read; its own weights are BERT's, which reads every text rightly."""
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.chdir(tmp_path)
    data = save_tiny_data(tmp_path / "train.tsv")
    command = ["extract", str(mask_ignored_folder), str(data), "--out", "mine.h5", "--dtype", "float32"]
    assert run([*command, "--trust-remote-code"]) == 0
    assert "one by one" in capsys.readouterr().err
    right = extract(tiny_model, data, out="right.h5", dtype="float32")
    mine = extract(mask_ignored_folder, data, out="mine.h5", dtype="float32", trust_remote_code=True)
    assert mine.spec["batching"] == "single"
    for layer in right.layers:
        np.testing.assert_allclose(mine.layer(layer), right.layer(layer), atol=1e-5)
    assert run(["probe", "mine.h5", "--target", "label", "--save-probes", "heads"]) == 0
    (probe,) = (tmp_path / "heads").glob("*.skops")
    texts = ["good", "bad a very dull film the plot bad actor a the very dull fine"]
    together = predict(probe, texts, model=mask_ignored_folder, trust_remote_code=True)
    each = [predict(probe, [text], model=mask_ignored_folder, trust_remote_code=True).probability for text in texts]
    np.testing.assert_allclose(together.probability, np.concatenate(each), atol=1e-5)
