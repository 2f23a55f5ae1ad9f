"""What can't be trained is said in one line, before the work."""

from __future__ import annotations

import re
import sys

import numpy as np
import pytest

from probekit import extract, train
from probekit.errors import InputError, ProbekitError, SpecError
from probekit.training import run
from tests.tiny import save_tiny_bert
from tests.training.trained import Given, made, one_line, table


@pytest.fixture(scope="module")
def odd(tmp_path_factory, tiny_model):
    """Labels that nothing can be learnt from."""
    data = table(40)
    data["same"] = "x"
    data["none"] = None
    data["infinite"] = [float("inf") if i == 3 else float(i % 9) for i in range(40)]
    data["constant"] = 2.5
    data["lonely"] = ["a"] * 39 + ["b"]
    data["topics"] = [["film"]] * 40
    return made(tmp_path_factory.mktemp("odd"), tiny_model, data.drop(columns="split"), layers=[1, 2])


@pytest.fixture(scope="module")
def pooled(tmp_path_factory, tiny_model):
    """Without the states of tokens."""
    return made(tmp_path_factory.mktemp("pooled"), tiny_model, table(40), tokens=False)


@pytest.fixture
def not_trained(monkeypatch):
    """It is found out before probes are fitted."""

    def never(*_args, **_options):
        raise AssertionError("the work has begun")

    monkeypatch.setattr(run, "choose_layers", never)


def refused(given, target, error=ProbekitError, **options):
    with pytest.raises(error) as found:
        train(given.cache, target, model=given.model, threads=1, **options)
    assert one_line(found)
    return str(found.value)


@pytest.mark.usefixtures("not_trained")
@pytest.mark.parametrize("backbone", ["frozen", "lora"])
@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("same", "at least two classes"),
        ("none", "none"),
        ("infinite", "inf"),
        ("constant", "constant|two different|same|vary|classes"),
        ("lonely", "of each class"),
        ("nowhere", "this cache has label"),
        (["label", "same"], "two classes"),
        (["label", "none"], "none"),
        (["label", "infinite"], "inf"),
    ],
)
def test_labels_that_nothing_can_be_learnt_from(odd, target, said, backbone):
    message = refused(odd, target, layer=1, backbone=backbone)
    assert re.search(said, message.lower()), message


@pytest.mark.usefixtures("not_trained")
@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"layer": 0}, "this cache has"),
        ({"layer": 7}, "this cache has 1, 2"),
        ({"layer": -1.5}, "layer"),
        ({"layer": "two"}, "layer"),
        ({"pooling": "last"}, "the cache cache.h5 has mean"),
        ({"pooling": "tallest"}, "--pooling tallest: one of"),
        ({"head": "transformer"}, "--head transformer: one of linear, mlp, attention, mix"),
        ({"head": "mix", "layer": 1}, "leave it out"),
        ({"head": "attention", "pooling": "mean"}, "leave it out"),
        ({"backbone": "top"}, "--backbone top: frozen, top:M"),
        ({"backbone": "top:-1"}, "frozen, top:M"),
        ({"backbone": "LoRA"}, "frozen, top:M"),
        ({"backbone": 3}, "frozen, top:M"),
        ({"backbone": None}, "frozen, top:M"),
        ({"backbone": "top:0"}, "top:1 to top:2"),
        ({"backbone": "top:3"}, "top:1 to top:2"),
        ({"backbone": "top:99"}, "top:1 to top:2"),
        ({"backbone": "top:2"}, "starts from the tokens of layer 0: extract with it; got layers 1, 2"),
        ({"backbone": "top:1", "layer": 1}, "needs a layer of at least 2"),
        ({"bakcbone": "lora"}, "option bakcbone: one of accumulate, backbone"),
        ({"epochs": 0}, "--epochs 0: a whole number of at least 1"),
        ({"epochs": 2.5}, "--epochs 2.5"),
        ({"batch_size": True}, "--batch-size True"),
        ({"accumulate": 0}, "--accumulate 0"),
        ({"head_lr": -1}, "--head-lr -1"),
        ({"head_lr": float("nan")}, "--head-lr nan"),
        ({"head_lr": "fast"}, "--head-lr fast"),
        ({"penalty": float("inf")}, "--penalty inf"),
        ({"dropout": 1.0, "head": "mlp"}, "--dropout 1.0"),
        ({"width": 0, "head": "mlp"}, "--width 0"),
        ({"width": 64}, "--width 64: is of an mlp's hidden layer; leave it out; got linear"),
        ({"width": 64, "head": "mix"}, "--width 64: is of an mlp's hidden layer; leave it out; got mix"),
        ({"dropout": 0.5}, "--dropout 0.5: a linear head has none; leave it out; got linear"),
        ({"weights": {"kind": 2.0}}, "--weight: of targets: label; got kind"),
        ({"weights": {"label": 0.0}}, "--weight 0.0"),
        ({"init": "good"}, "--init good: one of probe, random"),
        ({"solver": "sgd"}, "--solver sgd: one of"),
        ({"solver": "lbfgs", "backbone": "lora"}, "is for heads on frozen states"),
        ({"sampling": "often"}, "--sampling often"),
        ({"lr": 0.1}, "is for a backbone that is trained"),
        ({"bf16": True}, "is for a backbone that is trained"),
        ({"checkpointing": True}, "is for a backbone that is trained"),
        ({"soft_prompt": -1}, "--soft-prompt -1"),
        ({"soft_prompt": 2, "backbone": "top:1"}, "not with top:M"),
        ({"lora_rank": 0, "backbone": "lora"}, "--lora-rank 0"),
        ({"lora_dropout": 1.5, "backbone": "lora"}, "--lora-dropout 1.5"),
        ({"split": 0.9}, "--split 0.9"),
        ({"split": "fold"}, "fold"),
        ({"group": "fold"}, "fold"),
        ({"seeds": 0}, "--seeds 0"),
        ({"task": "ranking"}, "ranking"),
        ({"task": {"kind": "regression"}}, "kind"),
        ({"viterbi": True}, "--viterbi"),
        ({"subword": "first"}, "--subword first"),
        ({"drop_rare": 30}, "--drop-rare 30"),
    ],
)
def test_options_that_can_not_be(odd, options, said):
    assert said in refused(odd, "label", SpecError, **options)


@pytest.mark.usefixtures("not_trained")
@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"head": "attention"}, "needs the states of every token: extract with --tokens"),
        ({"backbone": "top:1"}, "needs the states of every token: extract with --tokens"),
    ],
)
def test_a_cache_without_the_states_of_tokens(pooled, options, said):
    assert said in refused(pooled, "label", SpecError, **options)


@pytest.mark.usefixtures("not_trained")
@pytest.mark.parametrize("options", [{"backbone": "lora"}, {"soft_prompt": 2}])
def test_without_peft(odd, monkeypatch, options):
    monkeypatch.setitem(sys.modules, "peft", None)
    message = refused(odd, "label", SpecError, layer=1, **options)
    assert "needs the package peft: in the clone, pip install -c constraints.txt '.[train]'" in message
    assert f"--{next(iter(options))}".replace("_", "-") in message


def test_what_needs_no_peft_goes_without(odd, monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    train(odd.cache, "label", layer=1, model=odd.model, backbone="full", epochs=1, threads=1)


def test_a_soft_prompt_that_leaves_no_room(odd):
    message = refused(odd, "label", SpecError, layer=1, soft_prompt=30)
    assert "must leave room: the model has 32 positions" in message


def test_a_lora_on_modules_that_are_not_there(odd):
    message = refused(odd, "label", SpecError, layer=1, backbone="lora", lora_targets=("q_proj",))
    assert "--lora-targets q_proj: one of dense, key, query, value" in message


@pytest.mark.parametrize("overwrite", [False, True])
def test_what_ends_before_the_first_step_leaves_nothing_behind(odd, tmp_path, overwrite):
    out, lora = tmp_path / "heads", {"layer": 1, "backbone": "lora", "epochs": 1, "overwrite": overwrite}
    if overwrite:
        out.mkdir()
        (out / "mine.txt").write_text("to be replaced")
        for name in ("cache0/training.json", "cache0/seed0.safetensors", "cache1/seed0.safetensors"):
            (tmp_path / "heads.partial" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "heads.partial" / name).write_text("{}")
    refused(odd, "label", SpecError, out=out, lora_targets=("q_proj",), **lora)
    assert [p.name for p in tmp_path.iterdir()] == ["heads"] * overwrite
    train(odd.cache, "label", model=odd.model, threads=1, out=out, **lora)
    assert [p.name for p in tmp_path.iterdir()] == ["heads"]


def test_a_folder_without_a_state_stops_nobody(odd, tmp_path):
    """As a kill before the first step leaves it."""
    note = tmp_path / "heads.partial" / "cache0" / "training.json"
    note.parent.mkdir(parents=True)
    note.write_text('{"sha256": "of other options"}')
    train(odd.cache, "label", layer=1, epochs=1, threads=1, out=tmp_path / "heads")
    assert [p.name for p in tmp_path.iterdir()] == ["heads"]


def test_nothing_of_others_is_removed_with_what_was_not_begun(odd, tmp_path):
    (tmp_path / "heads.partial").mkdir()
    (tmp_path / "heads.partial" / "mine.txt").write_text("kept")
    refused(odd, "label", SpecError, out=tmp_path / "heads", backbone="lora", layer=1, lora_targets=("q_proj",))
    assert [str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*.*")] == ["heads.partial", "heads.partial/mine.txt"]


@pytest.mark.usefixtures("not_trained")
def test_a_cache_of_windows_is_not_trained_through(tmp_path, tiny_model):
    given = made(tmp_path, tiny_model, table(40), stride=2, max_length=8)
    assert "--stride" in refused(given, "label", SpecError, layer=1, backbone="lora")


@pytest.mark.usefixtures("not_trained")
def test_a_cache_of_quantised_weights_is_not_trained_through(odd, monkeypatch):
    monkeypatch.setitem(odd.cache.spec, "quantize", "int8")
    assert "--quantize" in refused(odd, "label", SpecError, layer=1, backbone="lora")


@pytest.mark.usefixtures("not_trained")
def test_another_model(odd, tmp_path):
    other = Given(odd.cache, save_tiny_bert(tmp_path / "other", seed=1))
    assert "must be the one that was read" in refused(other, "label", layer=1, backbone="lora")
    missing = Given(odd.cache, tmp_path / "nowhere")
    assert "nowhere" in refused(missing, "label", layer=1, backbone="lora")


@pytest.mark.usefixtures("not_trained")
def test_a_folder_that_is_not_empty(odd, tmp_path):
    (tmp_path / "heads").mkdir()
    (tmp_path / "heads" / "mine.txt").write_text("kept")
    message = refused(odd, "label", SpecError, layer=1, out=tmp_path / "heads")
    assert "is not empty; use --overwrite or another folder" in message
    (tmp_path / "file").write_text("kept")
    assert "must be a folder" in refused(odd, "label", SpecError, layer=1, out=tmp_path / "file")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "heads"]


def test_states_that_the_model_does_not_give_are_refused(tmp_path, tiny_model, monkeypatch):
    given = Given(extract(tiny_model, table(40), out=tmp_path / "c.h5", dtype="float32"), tiny_model)
    layer = given.cache.layer
    monkeypatch.setattr(given.cache, "layer", lambda *a, **k: np.asarray(layer(*a, **k)) * 1.01, raising=False)
    message = refused(given, "label", layer=1, backbone="full")
    assert "must give the states of c.h5" in message


@pytest.mark.usefixtures("not_trained")
def test_a_mix_reads_no_layer_that_is_not_run(given):
    assert "--head mix: reads all layers of the cache" in refused(given, "label", head="mix", backbone="top:1")


def test_errors_are_of_input_where_the_input_is_wrong(odd):
    refused(odd, "same", InputError, layer=1)
    refused(odd, "none", InputError, layer=1)
