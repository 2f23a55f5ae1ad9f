"""Controls from the cache to the table, by function and by command."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pandas as pd
import pytest

from probekit import extract, open_cache, probe_layers
from probekit.cli import run
from probekit.errors import ModelError, SpecError
from tests.tiny import save_tiny_bert, save_tiny_data

pytestmark = pytest.mark.filterwarnings("ignore::probekit.ProbekitWarning")


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tiny_model, tiny_data):
    folder = tmp_path_factory.mktemp("controls")
    shutil.copy(tiny_data, folder / "train.tsv")
    save_tiny_data(folder / "other.tsv", 50)
    extract(tiny_model, folder / "train.tsv", out=folder / "cache.h5").close()
    extract(tiny_model, folder / "train.tsv", out=folder / "random.h5", random_seed=3).close()
    extract(tiny_model, folder / "other.tsv", out=folder / "other.h5", random_seed=3).close()
    extract(tiny_model, folder / "train.tsv", out=folder / "deep.h5", random_seed=3, layers="2").close()
    return folder


def test_function_and_command_give_the_same_controls(folder, capsys):
    table = probe_layers(folder / "cache.h5", "label,score", controls=True, random_cache=folder / "random.h5")
    of_random = probe_layers(folder / "random.h5", "label,score")
    assert table["random_model"].tolist() == of_random["score"].tolist()
    assert not np.allclose(table["random_model"], table["score"])
    for column in ("control", "selectivity", "length_baseline"):
        assert table[column].notna().all(), column
    assert table["mdl_bits"].notna().tolist() == [True] * 3 + [False] * 3
    out = folder / "layers.csv"
    command = ["probe", str(folder / "cache.h5"), "--target", "label,score", "--out", str(out), "--jobs", "1"]
    assert run([*command, "--controls", "--random-cache", str(folder / "random.h5")]) == 0
    text = capsys.readouterr().out
    for part in ("shuffled labels 0.", "length alone ", "random weights ", "bits, compressed"):
        assert part in text
    assert ("to layer 0" in text) == table["conditional"][table["selected"]].notna().any()
    written = pd.read_csv(out)
    for column in ("control", "length_baseline", "conditional", "mdl_bits", "compression", "random_model", "p_vs_best"):
        np.testing.assert_allclose(written[column], table[column].astype(float), rtol=1e-5)
    record = json.loads(out.with_suffix(".json").read_text())
    with open_cache(folder / "random.h5") as random:
        assert record["caches"][0]["random_cache"] == {"file": "random.h5", "fingerprint": random.fingerprint}
    assert record["options"]["controls"] == ["shuffled", "length", "conditional", "mdl", "random"]


def test_some_controls_by_name(folder):
    table = probe_layers(folder / "cache.h5", "label", controls="length")
    assert table["length_baseline"].notna().all()
    assert table[["control", "conditional", "mdl_bits", "random_model"]].isna().all(axis=None)


@pytest.mark.parametrize(
    ("name", "message"),
    {
        "cache.h5": "must be extracted with --random-seed",
        "other.h5": "must have the texts of cache.h5",
        "deep.h5": "must have the layers and poolings that are probed; got layers 2; mean pooling",
    }.items(),
)
def test_what_is_no_random_model_of_the_cache(folder, name, message):
    with pytest.raises(SpecError, match=message):
        probe_layers(folder / "cache.h5", "label", random_cache=folder / name)


def test_mistakes(folder, capsys):
    cache, random = str(folder / "cache.h5"), str(folder / "random.h5")
    assert run(["probe", cache, "--jobs", "1", "--target", "label", "--control", "nope"]) == 2
    assert "--control nope: one of shuffled" in capsys.readouterr().err
    assert run(["probe", cache, cache, "--target", "label", "--random-cache", random]) == 2
    assert "--random-cache: is of one cache" in capsys.readouterr().err


def test_per_class_table_is_printed_and_written(folder, capsys):
    cache, out = str(folder / "cache.h5"), folder / "byclass.csv"
    assert run(["probe", cache, "--jobs", "1", "--target", "label,score", "--per-class", "--out", str(out)]) == 0
    assert "label by class: logistic probe, mean pooling, layer" in capsys.readouterr().out
    written = pd.read_csv(folder / "byclass.classes.csv")
    table = pd.read_csv(out)
    chosen = table[table["selected"] & (table["target"] == "label")].iloc[0]
    assert written["class"].tolist() == ["neg", "pos"]
    assert written["support"].sum() == chosen["n_test"]
    assert written["recall"].mean() == pytest.approx(chosen["balanced_accuracy"], abs=1e-5)
    assert run(["probe", cache, "--jobs", "1", "--target", "label", "--per-class", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert [row["class"] for row in printed["classes"]] == ["neg", "pos"]
    assert len(printed["layers"]) == 3
    assert (
        run(["probe", cache, "--jobs", "1", "--target", "label", "--per-class", "--out", str(out), "--overwrite"]) == 0
    )
    out.unlink()
    out.with_suffix(".json").unlink()
    assert run(["probe", cache, "--jobs", "1", "--target", "label", "--per-class", "--out", str(out)]) == 2
    assert "byclass.classes.csv: exists already" in capsys.readouterr().err


def test_the_random_model_is_made_on_demand_and_kept(folder, tiny_model, tmp_path, capsys):
    shutil.copy(folder / "cache.h5", tmp_path / "mine.h5")
    made = tmp_path / "mine.random.h5"
    with pytest.raises(ModelError, match=r"states are of a local model .*; say where it is"):
        probe_layers(tmp_path / "mine.h5", "label", controls="random")
    with pytest.raises(SpecError, match="--probe nope"):
        probe_layers(tmp_path / "mine.h5", "label", probe="nope", controls="random", model=tiny_model)
    assert not made.exists()
    table = probe_layers(tmp_path / "mine.h5", "label", controls="random", model=tiny_model)
    extract(tiny_model, folder / "train.tsv", out=tmp_path / "by hand.h5", random_seed=0).close()
    with open_cache(made) as random, open_cache(tmp_path / "by hand.h5") as by_hand:
        assert random.fingerprint == by_hand.fingerprint
        np.testing.assert_array_equal(random.layer(2), by_hand.layer(2))
    assert table["random_model"].tolist() == probe_layers(made, "label")["score"].tolist()
    stamp = made.stat().st_mtime_ns
    command = ["probe", str(tmp_path / "mine.h5"), "--target", "label", "--jobs", "1", "--model", str(tiny_model)]
    assert run([*command, "--control", "random"]) == 0
    assert "mine.random.h5" in capsys.readouterr().err
    assert made.stat().st_mtime_ns == stamp


def test_one_table_of_two_models_with_their_random_forms(folder, tiny_model, tmp_path, capsys):
    other = save_tiny_bert(tmp_path / "other-bert", seed=7, layers=1)
    for name, model in (("a.h5", tiny_model), ("b.h5", other)):
        extract(model, folder / "train.tsv", out=tmp_path / name).close()
    command = ["probe", str(tmp_path / "a.h5"), str(tmp_path / "b.h5"), "--target", "label", "--jobs", "1"]
    command += ["--controls", "--out", str(tmp_path / "both.csv")]
    assert run([*command, "--model", str(tiny_model)]) == 2
    assert run([*command, "--model", str(other), "--model", str(tiny_model)]) == 0
    table = pd.read_csv(tmp_path / "both.csv")
    assert table["layer"].tolist() == [0, 1, 2, 0, 1]
    assert table["random_model"].notna().all()


def test_the_random_model_has_the_layers_and_options_of_the_cache(folder, tiny_model, tmp_path):
    options = {"layers": "0,2", "pooling": "max", "prompt": "the {text}", "max_length": 9, "store_dtype": "float16"}
    extract(tiny_model, folder / "train.tsv", out=tmp_path / "c.h5", **options).close()
    probe_layers(tmp_path / "c.h5", "label", controls="random", model=tiny_model)
    with open_cache(tmp_path / "c.h5") as cache, open_cache(tmp_path / "c.random.h5") as random:
        assert {k for k in cache.spec if cache.spec[k] != random.spec[k]} == {"random_seed"}


def test_the_random_model_needs_texts(folder, tiny_model, tmp_path):
    extract(tiny_model, folder / "train.tsv", out=tmp_path / "bare.h5", store_text=False).close()
    with pytest.raises(SpecError, match="--control random: needs the texts"):
        probe_layers(tmp_path / "bare.h5", "label", controls="random", model=tiny_model)
