"""A config or tokenizer_config with anything in it: the model is read as transformers reads it, or refused in one line.

Never a traceback and never a hang.
"""

from __future__ import annotations

import json
import logging
import os
import warnings

import pytest
import torch
import transformers

from probekit.cli import run
from tests.models.families import DECODER
from tests.tiny import save_tiny_bert

VALUES = {
    "null": None,
    "text": "many",
    "list": [1, "a"],
    "object": {"a": 1},
    "true": True,
    "fraction": 1.5,
    "zero": 0,
    "negative": -1,
    "large": 10**9,
    "huge": 1e308,
}
MISSING = object()
NOT_IN_THE_FILE = (
    *("return_dict", "output_attentions", "output_hidden_states", "is_encoder_decoder", "decoder_start_token_id"),
    *("attention_chunk_size", "sliding_window", "layer_types", "rope_scaling", "original_max_position_embeddings"),
    *("quantization_config", "auto_map", "attn_implementation", "chunk_size_feed_forward"),
)


@pytest.fixture(scope="module", autouse=True)
def quiet():
    transformers.utils.logging.set_verbosity_error()
    logging.getLogger("transformers").setLevel(logging.ERROR)


def tiny_llama(folder):
    save_tiny_bert(folder)
    for name in ("config.json", "model.safetensors"):
        (folder / name).unlink()
    torch.manual_seed(0)
    transformers.LlamaModel(transformers.LlamaConfig(**DECODER)).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "data.tsv"
    path.write_text("text\tlabel\ngood film\tpos\na dull plot\tneg\n")
    return path


FOLDERS = {
    "BERT's config": (save_tiny_bert, "config.json", ()),
    "BERT's tokenizer": (save_tiny_bert, "tokenizer_config.json", ("added_tokens_decoder", "extra_special_tokens")),
    "Llama's config": (tiny_llama, "config.json", NOT_IN_THE_FILE),
}


SLOW = ("Llama's config", "BERT's config")


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow if n in SLOW else ()) for n in FOLDERS])
def test_any_value_of_any_field(tmp_path, data, capsys, name):
    make, file, others = FOLDERS[name]
    base, broken = make(tmp_path / "base"), tmp_path / "broken"
    fields = json.loads((base / file).read_text())
    broken.mkdir()
    for part in base.iterdir():
        if part.name != file:
            os.link(part, broken / part.name)
    wrong, refused = [], 0
    for field in (*fields, *others):
        for kind, value in {**VALUES, **({"missing": MISSING} if field in fields else {})}.items():
            changed = {k: v for k, v in fields.items() if k != field} | ({} if value is MISSING else {field: value})
            (broken / file).write_text(json.dumps(changed))
            with warnings.catch_warnings(action="ignore"):  # as the command line has it
                try:
                    code = run(["extract", str(broken), str(data), "--device", "cpu", "--threads", "1", "--estimate"])
                except Exception as error:  # noqa: BLE001  (any would be the fault looked for)
                    code = repr(error)
            lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
            if (code, len(lines)) not in {(0, 0), (1, 1), (2, 1)}:
                wrong.append(f"{field} {kind}: {code}, {lines}")
            refused += code != 0
    assert wrong == []
    assert refused > 5
