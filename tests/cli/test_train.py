"""What ``probekit train`` says: what was kept, how it is used, what was read, what is wrong with a file."""

from __future__ import annotations

import csv
import re
import shlex
from types import SimpleNamespace

import pytest

from probekit.cli import run
from probekit.evaluate.table import curve_name
from tests.tiny import save_tiny_data


@pytest.fixture(scope="module")
def cache(tmp_path_factory, tiny_model):
    folder = tmp_path_factory.mktemp("of train")
    data = save_tiny_data(folder / "train.tsv")
    assert run(["extract", str(tiny_model), str(data), "--tokens", "--out", str(folder / "c.h5")]) == 0
    return folder / "c.h5"


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def train(cache, *words, code=0):
    assert run(["train", str(cache), "--epochs", "1", "--jobs", "1", "--threads", "1", *words]) == code


def hint(capsys):
    return re.search(r"use it with: (.*)", capsys.readouterr().err)[1]


@pytest.mark.parametrize(
    ("targets", "given", "more"),
    [("label", False, []), ("label", True, []), ("label,score", True, ["--target", "label"])],
)
def test_the_command_to_use_it_works(here, cache, tiny_model, capsys, targets, given, more):
    model = ["--model", str(tiny_model)]
    train(cache, "--target", targets, "--out", "my heads", *(model if given else []))
    command = shlex.split(hint(capsys))
    shown = model if given else ["--model", "MODEL_FOLDER"]  # of a local model: where it is nobody has said
    assert command == ["probekit", "predict", "my heads", *more, *shown, "--text", "some text"]
    assert run([str(tiny_model) if word == "MODEL_FOLDER" else word for word in command[1:]]) == 0
    assert re.search(r"^1,(neg|pos),", capsys.readouterr().out, re.MULTILINE)


def test_without_a_folder_nothing_is_kept_and_said_so(here, cache, capsys):
    train(cache, "--target", "label")
    assert capsys.readouterr().err.endswith("\nnothing was kept; --out FOLDER keeps the heads, their table and card\n")
    (here / "heads.yaml").write_text(f"cache: '{cache}'\ntargets: {{label: {{}}}}\nepochs: 1\njobs: 1\n")
    assert run(["train", "heads.yaml"]) == 0
    assert "nothing was kept; out: FOLDER in heads.yaml keeps the heads" in capsys.readouterr().err
    assert [path.name for path in here.iterdir()] == ["heads.yaml"]


def test_a_mix_is_said_to_read_all_layers(here, cache, capsys):
    train(cache, "--target", "label", "--head", "mix", "--out", "mix")
    shown = capsys.readouterr().out
    assert re.search(r"^mix +all ", shown, re.MULTILINE)
    assert re.search(r"^logistic +[0-2] ", shown, re.MULTILINE)
    with open("mix/heads.csv", newline="") as file:
        assert [row["layer"].isdecimal() for row in csv.DictReader(file)] == [True, True]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("targets: {nowhere: {}}", "heads.yaml, target nowhere: this cache has"),
        ("targets: {label: {layer: 7}}", "heads.yaml, layer 7: there are layers 0..2; this cache has 0, 1, 2"),
        ("targets: {label: {pooling: first}}", "heads.yaml, pooling first: the cache c.h5 has mean"),
        ("targets: {label: {}}\nsplit: fold", "heads.yaml, split fold: "),
        ("targets: {label: {}}\nbackbone: lora", "heads.yaml, model: the states are of a local model"),
        (
            "targets: {label: {width: 64}}",
            "heads.yaml, target label, width 64: is of an mlp's hidden layer; leave it out",
        ),
        ("targets: {label: {}}\nout: full", "heads.yaml, out full: is not empty; use --overwrite or another folder"),
        ("targets: {label: {}}\njobs: 0", "heads.yaml, jobs: a whole number of at least 1; got 0"),
    ],
)
def test_mistakes_of_a_file_name_it(here, cache, capsys, text, message):
    (here / "full").mkdir()
    (here / "full" / "mine.txt").write_text("kept")
    (here / "heads.yaml").write_text(f"cache: '{cache}'\n{text}\n")
    assert run(["train", "heads.yaml", *([] if "jobs" in text else ["--jobs", "1"])]) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert message in last


def test_mistakes_of_the_command_line_do_not(here, cache, capsys):
    (here / "heads.yaml").write_text(f"cache: '{cache}'\ntargets: {{label: {{}}}}\nbackbone: full\nmodel: org/none\n")
    assert run(["train", "heads.yaml", "--device", "tpu"]) == 2
    assert "heads.yaml, device" not in capsys.readouterr().err
    train(cache, "--target", "nowhere", code=2)
    assert "--target nowhere" in capsys.readouterr().err


def test_layers_that_tie_are_said(here, capsys, tiny_model):
    """The label is a word: every layer gets all validation rows right."""
    rows = [f"{'good' if i % 2 else 'bad'}\t{'pos' if i % 2 else 'neg'}" for i in range(60)]
    (here / "easy.tsv").write_text("\n".join(["text\tlabel", *rows]) + "\n")
    assert run(["extract", str(tiny_model), "easy.tsv", "--out", "easy.h5"]) == 0
    said = r"warning: label: layers 0, 1 and 2 tie on validation; the shallowest is taken\n"
    for options, expected in (([], True), (["--layer", "1"], False), (["--head", "mix"], False)):
        capsys.readouterr()
        train("easy.h5", "--target", "label", *options)
        assert bool(re.search(said, capsys.readouterr().err)) == expected


@pytest.mark.parametrize(
    ("pooling", "probe", "name"),
    [
        ("attention", "attention", "label, attention"),
        ("attention", "attention+lora", "label, attention+lora"),
        ("mean", "logistic", "label, mean, logistic"),
    ],
)
def test_attention_is_not_named_twice(pooling, probe, name):
    """It is both the pooling and the probe."""
    fit = SimpleNamespace(target=SimpleNamespace(name="label"), probe=SimpleNamespace(name=probe))
    assert curve_name(SimpleNamespace(fits=(fit,), pooling=pooling)) == name


def test_what_was_compared_before_the_top_blocks_are_trained(here, cache, tiny_model, capsys):
    train(cache, "--target", "label", "--backbone", "top:1", "--layer", "2", "--model", str(tiny_model))
    said = next(line for line in capsys.readouterr().err.splitlines() if line.startswith("top:1"))
    assert "a pass from live states of layer 1 was compared with the whole live pass, on 8 texts: loss within" in said
    assert "training starts from the cache's tokens of layer 1 as they are stored, in float16" in said
