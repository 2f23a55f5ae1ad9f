"""A saved probe gives from raw text what it gave in the table; a file that can't be trusted is refused."""

from __future__ import annotations

import csv
import io
import json
import pickle

import numpy as np
import pytest
import skops.io
from sklearn.linear_model import LogisticRegression
from transformers import AutoModel

from probekit import extract, open_cache
from probekit.api.predict import predict
from probekit.api.probe import run_probes
from probekit.cli import run
from probekit.errors import ModelError, SpecError
from probekit.evaluate.plan import ProbeOptions
from probekit.extraction.reader import read_states
from probekit.models import locate
from probekit.readspec import RunOptions
from probekit.saved import card_path, load_probe, save, save_probe
from probekit.spec import Silent
from tests.tiny import save_tiny_bert


@pytest.fixture(scope="module", params=["float32", "float16", "bfloat16"])
def fitted(request, tmp_path_factory, tiny_model, tiny_data):
    """A cache and the probes of its selected layers, for classes and for numbers."""
    folder = tmp_path_factory.mktemp("saved")
    cache = folder / "cache.h5"
    extract(tiny_model, tiny_data, out=cache, pooling="mean,last", store_dtype=request.param, dtype="float32").close()
    done = run_probes([cache], ["label", "score"], options=ProbeOptions())
    return cache, done, save(done, folder / "heads")


def test_predictions_from_raw_text_are_those_of_the_table(fitted, tiny_model):
    cache_path, done, paths = fitted
    with open_cache(cache_path) as cache:
        for path, (chosen, _) in zip(paths, done.chosen, strict=True):
            texts = [cache.texts[i] for i in chosen.test]
            found = predict(path, texts, model=tiny_model)
            if chosen.task == "classification":
                assert found.labels.tolist() == chosen.predicted.tolist()
                np.testing.assert_allclose(found.probability.sum(axis=1), 1)
            else:
                np.testing.assert_allclose(found.labels, chosen.predicted, rtol=1e-4, atol=1e-4)


def test_what_the_card_says(fitted):
    _, _, paths = fitted
    card = json.loads(card_path(paths[0]).read_text())
    assert card["labels"] == ["neg", "pos"]
    assert {"model", "revision", "tokenizer", "max_length"} <= set(card["cache"])
    assert card["scores"]["selected"] is True
    assert len(paths) == 4


def test_only_blocks_up_to_the_layer_run(fitted, tiny_model, monkeypatch):
    from transformers.models.bert.modeling_bert import BertLayer

    _, _, paths = fitted
    path = next(p for p in paths if "-mean-" in p.name)
    layer = load_probe(path).card["layer"]
    calls = []
    forward = BertLayer.forward
    from probekit.extraction import reader as reading

    loaded = reading.load_backbone

    def counted(*arguments, **options):
        backbone = loaded(*arguments, **options)
        monkeypatch.setattr(BertLayer, "forward", lambda self, *a, **k: calls.append(self) or forward(self, *a, **k))
        return backbone

    monkeypatch.setattr(reading, "load_backbone", counted)
    predict(path, ["good film"], model=tiny_model)
    assert len(calls) == layer


def test_another_model_is_refused(fitted, tmp_path):
    _, _, paths = fitted
    other = save_tiny_bert(tmp_path / "tiny-bert", seed=5)
    with pytest.raises(ModelError, match="must be the one that was read, with revision"):
        predict(paths[0], ["good"], model=other)
    with pytest.raises(ModelError, match=r"--model: the states are of a local model .*; say where it is"):
        predict(paths[0], ["good"])


def test_a_model_in_hand_is_refused(fitted, tiny_model):
    with pytest.raises(ModelError) as raised:
        predict(fitted[2][0], ["good"], model=AutoModel.from_pretrained(tiny_model))
    allowed = "must be a hub id or a path (probekit.attach takes a model in hand, with heads that train made)"
    assert str(raised.value) == f"model: {allowed}; got a BertModel"


def test_a_changed_file_is_refused(fitted, tmp_path, tiny_model):
    _, _, paths = fitted
    copy = tmp_path / paths[0].name
    data = bytearray(paths[0].read_bytes())
    data[100] ^= 1
    copy.write_bytes(data)
    with pytest.raises(SpecError, match="needs its card"):
        predict(copy, ["good"], model=tiny_model)
    card_path(copy).write_text(card_path(paths[0]).read_text())
    with pytest.raises(SpecError, match=r"must be the file that .*json speaks of"):
        predict(copy, ["good"], model=tiny_model)


class Evil:
    def __reduce__(self):
        return (print, ("run",))


def test_foreign_types_pickles_and_garbage_are_refused(tmp_path):
    class Own(LogisticRegression):
        pass

    Own.__module__ = "elsewhere"
    Own.__qualname__ = "Own"
    cases = {
        "foreign": (skops.io.dumps(Own().fit([[0], [1]], [0, 1])), r"scikit-learn, NumPy and probekit types only.*Own"),
        "pickle": (pickle.dumps(Evil()), "is damaged or not a skops file"),
        "garbage": (b"PK\x03\x04nothing", "is damaged or not a skops file"),
        "no estimator": (skops.io.dumps({"a": 1}), "must be something that predicts"),
    }
    for name, (data, message) in cases.items():
        path = tmp_path / f"{name}.skops"
        save_probe(path, LogisticRegression(), {})
        path.write_bytes(data)
        card = json.loads(card_path(path).read_text())
        import hashlib

        card["sha256"] = hashlib.sha256(data).hexdigest()
        card_path(path).write_text(json.dumps(card))
        with pytest.raises(SpecError, match=message):
            load_probe(path)


def test_command_line(fitted, tiny_model, tmp_path, capsys, monkeypatch):
    _, _, paths = fitted
    path = next(p for p in paths if "-label-mean-" in p.name)
    base = ["predict", str(path), "--model", str(tiny_model)]
    assert run([*base, "--text", "good, good film", "--text", "bad bad plot"]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [row["id"] for row in rows] == ["1", "2"]
    assert float(rows[0]["p_neg"]) + float(rows[0]["p_pos"]) == pytest.approx(1, abs=1e-5)
    monkeypatch.setattr("sys.stdin", io.StringIO("good film\nbad film\n"))
    assert run([*base, "-", "--json"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["id"] for line in lines] == ["1", "2"]
    (tmp_path / "new.csv").write_text('id,review\nx,"good, film"\n')
    assert run([*base, str(tmp_path / "new.csv"), "--column", "review"]) == 0
    assert capsys.readouterr().out.splitlines()[1].startswith("x,")
    for wrong in ([], ["--text", " "], ["--text", "a", str(tmp_path / "new.csv")]):
        assert run([*base, *wrong]) == 2
    assert run(["predict", str(tmp_path / "no.skops"), "--text", "a"]) == 2


@pytest.mark.parametrize("field", ["cache", "pooling", "layer", "max_length", "revision"])
def test_a_card_that_lacks_something_is_refused(fitted, tmp_path, tiny_model, field):
    _, _, paths = fitted
    copy = tmp_path / paths[0].name
    copy.write_bytes(paths[0].read_bytes())
    card = json.loads(card_path(paths[0]).read_text())
    card.pop(field, None)
    card.get("cache", {}).pop(field, None)
    card_path(copy).write_text(json.dumps(card))
    with pytest.raises(
        SpecError, match=f"must say what the probe was fitted on; got no .*{'model' if field == 'cache' else field}"
    ):
        predict(copy, ["good"], model=tiny_model)


def test_probes_are_replaced_only_when_asked(fitted, tmp_path):
    cache, _, _ = fitted
    command = [
        "probe",
        str(cache),
        "--target",
        "label",
        "--pooling",
        "mean",
        "--jobs",
        "1",
        "--save-probes",
        str(tmp_path / "h"),
    ]
    assert run(command) == 0
    stamps = {path: path.stat().st_mtime_ns for path in (tmp_path / "h").iterdir()}
    assert run(command) == 2
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps
    assert run([*command, "--overwrite"]) == 0
    assert all(path.stat().st_mtime_ns > stamp for path, stamp in stamps.items())


def test_states_are_rounded_as_the_cache_rounded_them(fitted, tiny_model):
    cache_path, done, paths = fitted
    card = load_probe(paths[0]).card
    with open_cache(cache_path) as cache:
        texts = cache.texts
        options = RunOptions("cpu", 1)
        states = read_states(texts, card=card, source=locate(tiny_model), options=options, listener=Silent())
        stored = cache.layer(card["layer"], card["pooling"])
    dtype = done.chosen[0][1]["store_dtype"]
    kept = {"float16": lambda x: x.astype(np.float16).astype(np.float32), "bfloat16": upper_bits}
    np.testing.assert_array_equal(kept.get(dtype, lambda x: x)(states), states)
    np.testing.assert_allclose(states, stored.astype(np.float32), atol=2e-2 if dtype == "bfloat16" else 2e-3)


def upper_bits(x):
    """float32 values cut to bfloat16's 16 bits."""
    return (x.view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)


def test_several_labels_per_text(tmp_path, tiny_model, tiny_data, capsys):
    rows = [line.split("\t") for line in tiny_data.read_text().splitlines()[1:]]
    data = tmp_path / "moods.jsonl"
    moods = [[label, "long"] if len(text) > 30 else [label] for text, label, *_ in rows]
    pairs = zip(rows, moods, strict=True)
    data.write_text("".join(json.dumps({"text": row[0], "mood": mood}) + "\n" for row, mood in pairs))
    extract(tiny_model, data, out=tmp_path / "c.h5", dtype="float32").close()
    done = run_probes([tmp_path / "c.h5"], ["mood"], options=ProbeOptions())
    (path,) = save(done, tmp_path / "heads")
    chosen = done.chosen[0][0]
    found = predict(path, [rows[i][0] for i in chosen.test], model=tiny_model)
    assert found.labels.tolist() == chosen.predicted.tolist()
    assert found.classes == ("long", "neg", "pos")
    np.testing.assert_array_equal(found.probability > 0.5, [[c in row for c in found.classes] for row in found.labels])
    assert run(["predict", str(path), "--model", str(tiny_model), "--text", rows[0][0]]) == 0
    assert json.loads(next(csv.DictReader(io.StringIO(capsys.readouterr().out)))["prediction"])
