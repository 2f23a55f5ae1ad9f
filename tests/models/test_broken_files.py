"""Each known kind of damage to a model's files is one line that names it, and exit code 2."""

from __future__ import annotations

import json
import logging
import os
import shutil

import pytest
import torch
import transformers

from probekit.cli import run
from probekit.models.foreign import first_line
from tests.models.families import SMALL
from tests.tiny import save_tiny_bert

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:" + "0" * 64 + "\nsize 90868376\n"
LFS = r"is a Git LFS pointer, not the file itself: git lfs pull"


@pytest.fixture(scope="module", autouse=True)
def quiet():
    transformers.utils.logging.set_verbosity_error()
    logging.getLogger("transformers").setLevel(logging.ERROR)


@pytest.fixture
def folder(tmp_path, tiny_model):
    return shutil.copytree(tiny_model, tmp_path / "m")


def write(name, content):
    return lambda folder: (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())


def cut(name, share):
    def change(folder):
        whole = (folder / name).read_bytes()
        (folder / name).write_bytes(whole[: int(share * len(whole))])

    return change


def as_pickle(change):
    def both(folder):
        model = transformers.BertModel.from_pretrained(folder)
        (folder / "model.safetensors").unlink()
        torch.save(model.state_dict(), folder / "pytorch_model.bin")
        change(folder)

    return both


def evil(folder):
    class Call:
        def __reduce__(self):
            return os.mkdir, (str(folder / "was here"),)

    torch.save(Call(), folder / "pytorch_model.bin")


def edit(name, change):
    def edited(folder):
        values = json.loads((folder / name).read_text())
        change(values)
        (folder / name).write_text(json.dumps(values))

    return edited


def config(**fields):
    return edit("config.json", lambda values: values.update(fields))


def tokenizer(change):
    return edit("tokenizer.json", change)


def remove(*patterns):
    def change(folder):
        for pattern in patterns:
            for file in folder.glob(pattern):
                file.unlink()

    return change


def save_clip(folder):
    text = {**SMALL, "num_hidden_layers": 1, "eos_token_id": 2, "bos_token_id": 1, "vocab_size": 60}
    vision = {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 40}
    sizes = {"image_size": 8, "patch_size": 4}
    clip = transformers.CLIPConfig(text_config=text, vision_config=vision | sizes, projection_dim=8)
    transformers.CLIPModel(clip).save_pretrained(folder)


LOADING = r"^error: model \S+/m: transformers could not load it: \S+"
CANT_HOLD = r"the weight files can't hold the 5,520 parameters that config\.json describes; got \d+ bytes$"
NO_TOKENIZER = r"^error: model \S+/m: no tokenizer could be loaded: \S+"
NO_WORDS = r"needs its tokenizer's files \(tokenizer.json.*; got a vocabulary of \d+ tokens without a word$"
DAMAGE = {
    "weights as a pointer": (write("model.safetensors", POINTER), rf"model\.safetensors: {LFS}$"),
    "tokenizer as a pointer": (write("tokenizer.json", POINTER), rf"tokenizer\.json: {LFS}$"),
    "config as a pointer": (write("config.json", POINTER), rf"config\.json: {LFS}$"),
    "pickle as a pointer": (as_pickle(write("pytorch_model.bin", POINTER)), rf"pytorch_model\.bin: {LFS}$"),
    "weights cut": (cut("model.safetensors", 0.7), LOADING),
    "weights' header cut": (cut("model.safetensors", 0.01), CANT_HOLD),
    "weights empty": (write("model.safetensors", ""), LOADING),
    "weights of zeros": (write("model.safetensors", b"\0" * 5000), LOADING),
    "no weights": (remove("model.safetensors"), LOADING),
    "pickle cut": (as_pickle(cut("pytorch_model.bin", 0.5)), LOADING),
    "pickle empty": (as_pickle(write("pytorch_model.bin", "")), LOADING),
    "pickle of something else": (as_pickle(write("pytorch_model.bin", b"\x80\x04K\x01.")), CANT_HOLD),
    "pickle that runs code": (as_pickle(evil), LOADING),
    "config no JSON": (write("config.json", "{"), r"config\.json: must be JSON"),
    "config empty": (write("config.json", ""), r"config\.json: must be JSON"),
    "config not UTF-8": (write("config.json", b'{"a": "\xff"}'), r"config\.json: must be JSON"),
    "config nested": (write("config.json", "[" * 100_000), r"config\.json: must be JSON"),
    "config a list": (write("config.json", "[1]"), r"config\.json: must be a JSON object; got list$"),
    "config a text": (write("config.json", '"bert"'), r"config\.json: must be a JSON object; got str$"),
    "config empty object": (write("config.json", "{}"), r"model_type"),
    "kind of model unknown": (config(model_type="hal9000"), r"hal9000"),
    "kind with an escape": (config(model_type="\x1b[31mred"), r"\\x1b\[31mred"),
    "code of its own": (
        config(model_type="mine", auto_map={"AutoConfig": "mine.Config", "AutoModel": "mine.Model"}),
        r"trust_remote_code|trust-remote-code|custom code",
    ),
    "shape": (config(vocab_size=15), r"word_embeddings\.weight \(14, 16\) for \(15, 16\)$"),
    "tokenizer cut": (cut("tokenizer.json", 0.5), NO_TOKENIZER),
    "tokenizer empty": (write("tokenizer.json", ""), NO_TOKENIZER),
    "tokenizer of a newer format": (tokenizer(lambda t: t["model"].update(type="Newer")), NO_TOKENIZER),
    "tokenizer's parts unknown": (tokenizer(lambda t: t["pre_tokenizer"].update(type="Newer")), NO_TOKENIZER),
    "tokenizer_config no JSON": (write("tokenizer_config.json", "{"), NO_TOKENIZER),
    "tokenizer without words": (tokenizer(lambda t: t["model"].update(vocab={"[UNK]": 1})), NO_WORDS),
    "no tokenizer": (remove("*token*", "vocab*"), NO_WORDS),
    "settings of a tokenizer alone": (remove("tokenizer.json", "vocab*"), r"tokenizer"),
    "no vision": (lambda folder: transformers.ViTConfig().save_pretrained(folder), r"takes pixel_values$"),
    "no hearing": (lambda folder: transformers.WhisperConfig().save_pretrained(folder), r"takes input_features$"),
    "pictures with their captions": (save_clip, r"loaded but can't be read: "),
}


@pytest.mark.filterwarnings("ignore")  # of transformers, which the command line shows beside the one line
@pytest.mark.parametrize("name", DAMAGE)
def test_one_line_that_names_the_damage(folder, tiny_data, tmp_path, capsys, name):
    import re

    change, message = DAMAGE[name]
    change(folder)
    code = run(["extract", str(folder), str(tiny_data), "--out", str(tmp_path / "c.h5"), "--device", "cpu"])
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert code == 2, line
    assert re.search(message, line), line
    assert not (tmp_path / "c.h5").exists()
    assert not (folder / "was here").exists()


@pytest.mark.parametrize("content", [POINTER.encode(), b"GGUF", b"", b"GGUF\x03\0\0\0" + b"\xff" * 60])
def test_a_broken_gguf(tmp_path, tiny_data, capsys, content):
    (tmp_path / "m.gguf").write_bytes(content)
    code = run(["extract", str(tmp_path / "m.gguf"), str(tiny_data), "--out", str(tmp_path / "c.h5")])
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert code == 2
    assert ("git lfs pull" in line) == content.startswith(b"version"), line


def test_states_with_a_dimension_more_are_refused_by_name(tmp_path, tiny_data, capsys):
    save_tiny_bert(tmp_path)
    for file in ("config.json", "model.safetensors"):
        (tmp_path / file).unlink()
    torch.manual_seed(0)
    sizes = {"vocab_size": 60, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "head_dim": 12}
    more = {"num_key_value_heads": 1, "intermediate_size": 40, "vocab_size_per_layer_input": 60, "laurel_rank": 4}
    config = transformers.Gemma3nTextConfig(**sizes, **more, hidden_size_per_layer_input=8, num_kv_shared_layers=0)
    transformers.AutoModel.from_config(config).save_pretrained(tmp_path)
    code = run(["extract", str(tmp_path), str(tiny_data), "--out", str(tmp_path / "c.h5"), "--device", "cpu"])
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert code == 2
    assert "its states are not (batch, tokens, d_model) but (4, 1, 3, 24)" in line


def test_a_file_that_may_not_be_read(folder, tiny_data, capsys):
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").symlink_to("/proc/self/mem")  # nobody can read its beginning, root included
    if not (folder / "model.safetensors").is_file():
        pytest.skip("no such file here")
    assert run(["extract", str(folder), str(tiny_data), "--out", str(folder / "c.h5")]) == 2
    assert "model.safetensors: can't be read" in capsys.readouterr().err


def test_prediction_says_the_same(tmp_path, folder, tiny_data, capsys):
    cache, heads = str(tmp_path / "c.h5"), str(tmp_path / "heads")
    assert run(["extract", str(folder), str(tiny_data), "--out", cache, "--device", "cpu"]) == 0
    assert run(["probe", cache, "--target", "label", "--save-probes", heads, "--jobs", "1"]) == 0
    (probe,) = (tmp_path / "heads").glob("*.skops")
    for file, message in (("tokenizer.json", "tokenizer.json: is a Git LFS"), ("model.safetensors", "git lfs pull")):
        write(file, POINTER)(folder)
        capsys.readouterr()
        assert run(["predict", str(probe), "--text", "good", "--model", str(folder)]) == 2
        (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
        assert message in line


def test_the_line_kept_of_a_message():
    assert first_line(ValueError("a\x1b[2Jb\nc")) == "a\\x1b[2Jb"
    assert first_line(ValueError("\n ---\n  wrong field:\n  it is 3\nmore")) == "wrong field: it is 3"
    assert first_line(KeyError("key")) == "KeyError 'key'"
    assert first_line(AssertionError()) == "AssertionError"
    assert len(first_line(ValueError("x" * 9999))) < 400
