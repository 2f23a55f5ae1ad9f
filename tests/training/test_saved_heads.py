"""Folders of heads: the same bits in another process, and nothing in them is believed that does not fit."""

from __future__ import annotations

import hashlib
import json
import pickle
import shutil
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from probekit.errors import ModelError, ProbekitError, SpecError
from probekit.extraction.request import same_model
from probekit.models import locate
from probekit.readspec import RunOptions
from probekit.spec import Silent
from probekit.training.saved_heads import _HEAD, _SHAPE, _TOP, Heads, load_heads
from tests.tiny import save_tiny_bert
from tests.training.trained import one_line, parts_of, trained

TEXTS = ["a good film", "very very dull plot the actor bad", "the", "", "fine fine film " * 12]
WORDS = [text.split() for text in TEXTS if text]
SHORT = {"epochs": 2, "batch_size": 16, "init": "random", "head_lr": 0.05, "lr": 0.02}
FROZEN = {"epochs": 2, "init": "random", "head_lr": 0.05}
KINDS = {
    "linear": (["label", "score", "topics"], {"layer": 2, **FROZEN}),
    "mlp": (["kind"], {"head": "mlp", "layer": 1, **FROZEN}),
    "attention": (["label"], {"head": "attention", "layer": 1, **FROZEN}),
    "mix": (["label"], {"head": "mix", **FROZEN}),
    "lora": (["label", "score"], {"layer": 2, "backbone": "lora", "lora_rank": 2, **SHORT}),
    "top": (["kind"], {"layer": 2, "backbone": "top:1", **SHORT}),
    "full": (["label"], {"head": "attention", "layer": 2, "backbone": "full", **SHORT, "lr": 1e-3}),
    "prompt": (["label"], {"layer": 1, "soft_prompt": 2, **SHORT}),
    "tags": (None, {"layer": 1, **FROZEN}),
    "tags-full": (None, {"layer": 2, "backbone": "full", "subword": "first", **SHORT}),
}

CHILD = """
import sys
from pathlib import Path
import numpy as np
sys.path.insert(0, sys.argv[1])
from tests.training.test_saved_heads import answered
from probekit.training.saved_heads import load_heads
for folder in map(Path, sys.argv[3:]):
    np.savez(folder.with_suffix(".npz"), *answered(load_heads(folder), Path(sys.argv[2])))
"""


def answered(heads, model):
    """The logits of every head for ``TEXTS``."""
    opened = heads.open(same_model(heads.card["cache"], model), RunOptions("cpu", 1), Silent())
    words = WORDS if heads.card["heads"][0]["task"] in ("tags", "entities") else None
    texts = TEXTS if words is None else [" ".join(of) for of in words]
    found, _ = opened.logits(range(len(heads.modules)), texts, listener=Silent(), words=words)
    return found


@pytest.fixture(scope="module")
def folders(tmp_path_factory, given, tagged, tiny_model):
    """What was trained, its folder, and what a fresh process read from that."""
    root, found = tmp_path_factory.mktemp("heads"), {}
    for kind, (targets, options) in KINDS.items():
        of = given if targets else tagged
        training = trained(of, targets or [of.cache.columns[0]], **options)
        training.heads.save(root / kind)
        found[kind] = training
    repo = __file__.rpartition("/tests/")[0]
    command = [sys.executable, "-c", CHILD, repo, str(tiny_model), *(str(root / kind) for kind in KINDS)]
    ended = subprocess.run(command, check=False, timeout=300, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    return root, found


@pytest.mark.parametrize("kind", KINDS)
def test_a_fresh_process_answers_with_the_same_bits(folders, tiny_model, kind):
    root, found = folders
    with np.load(root / f"{kind}.npz") as file:
        theirs = [file[name] for name in file.files]
    for mine in (answered(found[kind].heads, tiny_model), answered(load_heads(root / kind), tiny_model)):
        assert len(mine) == len(theirs) == len(found[kind].heads.modules)
        for a, b in zip(mine, theirs, strict=True):
            assert np.isfinite(a).any()
            assert a.tobytes() == b.tobytes()


@pytest.mark.parametrize("kind", [kind for kind, (targets, _) in KINDS.items() if targets])
def test_texts_are_answered_as_the_table_says(folders, given, tiny_model, kind):
    """The score of the test rows, from their texts."""
    _, found = folders
    heads, rows = found[kind].heads, parts_of(given.cache)["test"]
    opened = heads.open(same_model(heads.card["cache"], tiny_model), RunOptions("cpu", 1), Silent())
    texts = [given.cache.texts[i] for i in rows]
    logits, _ = opened.logits(range(len(heads.modules)), texts, listener=Silent())
    for i, target in enumerate(heads.targets):
        if target == "topics":
            continue
        y, answers = np.array(given.cache.column(target).tolist())[rows], heads.estimator(i).predict(logits[i])
        score = (
            1 - ((answers - y) ** 2).sum() / ((y - y.mean()) ** 2).sum() if target == "score" else (answers == y).mean()
        )
        assert score == pytest.approx(found[kind].table["score"].iloc[2 * i + 1], abs=1e-5)


@pytest.mark.parametrize(
    ("kind", "files"),
    [
        ("linear", []),
        ("lora", ["adapter/adapter_config.json", "adapter/adapter_model.safetensors"]),
        ("top", ["backbone.safetensors"]),
        ("full", ["backbone.safetensors"]),
        ("prompt", ["prompt/adapter_config.json", "prompt/adapter_model.safetensors"]),
    ],
)
def test_a_folder_holds_what_was_trained_and_no_more(folders, kind, files):
    root, found = folders
    there = sorted(str(p.relative_to(root / kind)) for p in (root / kind).rglob("*") if p.is_file())
    assert there == sorted(["card.json", "heads.safetensors", *files])
    if kind == "lora":
        trained_weights = load_file(root / kind / "adapter/adapter_model.safetensors")
        assert all(bool(t.any()) for n, t in trained_weights.items() if "lora_B" in n), "an epoch was kept"
    if kind == "top":
        assert all(".layer.1." in name for name in load_file(root / kind / "backbone.safetensors"))
    if kind in ("full", "prompt"):
        assert found[kind].record["validation"][0]["kept_epoch"] > 0


# What does not fit


@pytest.fixture
def folder(tmp_path, folders):
    def copied(kind="linear"):
        shutil.copytree(folders[0] / kind, tmp_path / kind)
        return tmp_path / kind

    return copied


def changed(folder, change):
    card = json.loads((folder / "card.json").read_text())
    change(card)
    (folder / "card.json").write_text(json.dumps(card))


def signed(folder):
    """The card speaks of the files as they are: what a stranger would do."""

    def sign(card):
        for name in card["files"]:
            card["files"][name] = hashlib.sha256((folder / name).read_bytes()).hexdigest()

    changed(folder, sign)


def opened(folder, model):
    heads = load_heads(folder)
    if model is not None:
        heads.open(same_model(heads.card["cache"], model), RunOptions("cpu", 1), Silent())


def refused(folder, error=SpecError, model=None):
    with pytest.raises(error) as found:
        opened(folder, model)
    assert one_line(found)
    return str(found.value)


TENSORS = {
    "missing": (lambda tensors: tensors.pop("0.output.bias"), "lacks 0.output.bias"),
    "no scaler": (lambda tensors: tensors.pop("1.standardise.scale"), "lacks 1.standardise.scale"),
    "surplus": (lambda tensors: tensors.update({"0.extra": tensors["0.output.bias"].clone()}), "too many: 0.extra"),
    "another head": (lambda tensors: tensors.update({"9.output.bias": tensors["0.output.bias"].clone()}), "9.output"),
    "shape": (lambda tensors: tensors.update({"0.output.bias": tensors["0.output.bias"].repeat(2)}), "shape (1,)"),
    "whole numbers": (lambda tensors: tensors.update({"0.output.bias": tensors["0.output.bias"].int()}), "shape"),
    "nan": (lambda tensors: tensors["0.output.weight"].fill_(float("nan")), "finite"),
}


@pytest.mark.parametrize("case", TENSORS)
def test_tensors_that_do_not_fit_are_refused(folder, case):
    there, (change, said) = folder(), TENSORS[case]
    tensors = load_file(there / "heads.safetensors")
    change(tensors)
    save_file(tensors, there / "heads.safetensors")
    assert "must be the file that card.json speaks of" in refused(there)
    signed(there)
    assert said in refused(there)


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("linear", "heads.safetensors"),
        ("full", "backbone.safetensors"),
        ("lora", "adapter/adapter_model.safetensors"),
        ("lora", "adapter/adapter_config.json"),
        ("prompt", "prompt/adapter_model.safetensors"),
    ],
)
@pytest.mark.parametrize("damage", ["flipped", "cut", "pickle", "gone", "empty"])
def test_damaged_files_are_refused(folder, tiny_model, kind, name, damage):
    there = folder(kind)
    path, data = there / name, bytearray((there / name).read_bytes())
    if damage == "flipped":
        data[len(data) // 2] ^= 1
    elif damage == "cut":
        del data[-7:]
    elif damage == "pickle":
        data = bytearray(pickle.dumps({"0.output.bias": np.zeros(1)}))
    elif damage == "empty":
        data = bytearray()
    if damage == "gone":
        path.unlink()
        refused(there)
        return
    path.write_bytes(data)
    assert "speaks of" in refused(there)
    if damage != "flipped":  # (signed again, some flipped bits are as good as others)
        signed(there)
        refused(there, model=tiny_model)


def without_a_tensor(folder, name):
    tensors = load_file(folder / name)
    tensors.pop(sorted(tensors)[0])
    save_file(tensors, folder / name)


def with_a_tensor(folder, name):
    tensors = load_file(folder / name)
    tensors["pooler.dense.bias"] = tensors[sorted(tensors)[0]].clone()
    save_file(tensors, folder / name)


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("full", "backbone.safetensors"),
        ("top", "backbone.safetensors"),
        ("lora", "adapter/adapter_model.safetensors"),
        ("prompt", "prompt/adapter_model.safetensors"),
    ],
)
@pytest.mark.parametrize("change", [without_a_tensor, with_a_tensor])
def test_a_backbone_with_a_tensor_too_few_or_too_many_is_refused(folder, tiny_model, kind, name, change):
    there = folder(kind)
    change(there, name)
    signed(there)
    refused(there, model=tiny_model)


@pytest.mark.parametrize("kind", ["lora", "top", "full", "prompt"])
def test_a_card_that_keeps_quiet_of_a_trained_backbone_is_refused(folder, kind):
    there = folder(kind)
    changed(there, lambda card: card.update(files={"heads.safetensors": card["files"]["heads.safetensors"]}))
    assert "must name" in refused(there)


def test_a_card_that_speaks_of_a_backbone_that_was_not_trained_is_refused(folder, folders):
    there = folder("full")
    changed(there, lambda card: card.update(backbone="frozen"))
    assert "must not name backbone.safetensors" in refused(there)


@pytest.mark.parametrize(
    "name",
    [
        "../card.json",
        "/etc/passwd",
        "adapter/../../x",
        "adapter/evil.py",
        "model.pkl",
        "adapter",
        "",
        "heads\n",
        "a/b/c",
    ],
)
def test_no_other_file_is_read(folder, name):
    there = folder()
    changed(there, lambda card: card["files"].update({name: "0" * 64}))
    assert "must name files of the folder" in refused(there)


@pytest.mark.parametrize("digest", ["", "0" * 63, 7, None, "Z" * 64, ["0" * 64]])
def test_a_digest_is_a_digest(folder, digest):
    there = folder()
    changed(there, lambda card: card["files"].update({"heads.safetensors": digest}))
    refused(there)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", "7", '"card"', "[" * 100_000, "\ud800", '{"format": "probekit"}']
)
def test_a_card_that_is_none_is_refused(folder, text):
    there = folder()
    (there / "card.json").write_bytes(text.encode("utf-8", "surrogatepass"))
    refused(there)


def test_a_folder_that_is_none_is_refused(tmp_path):
    assert "must be a folder made by probekit train" in refused(tmp_path / "nowhere")
    (tmp_path / "file").write_text("x")
    refused(tmp_path / "file")
    refused(tmp_path)


@pytest.mark.parametrize("version", [0, 2, "1", True, None])
def test_another_version_is_refused(folder, version):
    there = folder()
    changed(there, lambda card: card.update(format_version=version))
    assert "this probekit reads version 1" in refused(there)


@pytest.mark.parametrize("name", [*_TOP, *(f"heads.{n}" for n in _HEAD), *(f"shape.{n}" for n in _SHAPE)])
def test_every_field_has_to_be_there(folder, name):
    there = folder()

    def drop(card):
        of, _, last = name.rpartition(".")
        {"": card, "heads": card["heads"][0], "shape": card["heads"][0]["shape"]}[of].pop(last)

    changed(there, drop)
    refused(there)


def test_a_head_as_large_as_a_card_may_say_takes_no_memory(folder):
    there = folder("mlp")
    changed(there, lambda card: card["heads"][0]["shape"].update(d_model=1 << 20, width=1 << 20))
    assert "must have shape" in refused(there)


ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 3),
    st.sampled_from([10**400, -1, 1e308, 0.5, float("nan"), float("inf")]),
    st.text(max_size=4),
    st.sampled_from(["../x", "linear", "mean", "lora", "classes", "top:1", "attention"]),
    st.lists(st.one_of(st.integers(-1, 3), st.text(max_size=2), st.none(), st.booleans()), max_size=3),
    st.dictionaries(st.text(max_size=2), st.integers(0, 2), max_size=2),
)


def fields_of(card):
    """Every place of a card that decides something."""
    places = [(card, name) for name in _TOP]
    for head in card["heads"]:
        places += [(head, name) for name in _HEAD] + [(head["shape"], name) for name in _SHAPE]
    return places + [(card["cache"], name) for name in sorted(card["cache"])]


@pytest.fixture(scope="module")
def scratch(tmp_path_factory, folders):
    root = tmp_path_factory.mktemp("scratch")
    for kind in ("linear", "lora", "tags"):
        shutil.copytree(folders[0] / kind, root / kind)
    return root, {kind: (root / kind / "card.json").read_text() for kind in ("linear", "lora", "tags")}


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(kind=st.sampled_from(["linear", "lora", "tags"]), where=st.integers(0, 10_000), value=ODD)
def test_a_card_with_any_field_of_another_value_loads_or_is_refused_in_one_line(scratch, kind, where, value):
    root, cards = scratch
    card = json.loads(cards[kind])
    places = fields_of(card)
    place, name = places[where % len(places)]
    place[name] = value
    (root / kind / "card.json").write_text(json.dumps(card))
    said = ""
    try:
        heads = load_heads(root / kind)
        [heads.estimator(i) for i in range(len(heads.modules))]
    except ProbekitError as error:
        said = str(error)
    assert "\n" not in said


def test_another_model_is_refused(folder, tmp_path, tiny_model):
    there = folder("lora")
    assert "must be the one that was read" in refused(there, ModelError, save_tiny_bert(tmp_path / "m", seed=3))
    (tmp_path / "deep").mkdir()
    deeper = save_tiny_bert(tmp_path / "deep" / "m", layers=3)
    heads, source = load_heads(there), locate(str(deeper))
    with pytest.raises(ProbekitError) as error:
        heads.open(source, RunOptions("cpu", 1), Silent())
    assert one_line(error)


def test_saving_replaces_a_folder_whole(folders, tmp_path):
    _, found = folders
    found["lora"].heads.save(tmp_path / "heads")
    found["linear"].heads.save(tmp_path / "heads")
    assert sorted(p.name for p in (tmp_path / "heads").iterdir()) == ["card.json", "heads.safetensors"]
    assert [p.name for p in tmp_path.iterdir()] == ["heads"]
    assert isinstance(load_heads(tmp_path / "heads"), Heads)
