"""Heads that are trained in torch, as probes of every layer: in the table, kept, and used on new text."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from probekit import extract, open_cache
from probekit.api.predict import predict
from probekit.api.probe import run_probes
from probekit.cli import run
from probekit.errors import SpecError
from probekit.evaluate.few_shot import Shots
from probekit.evaluate.plan import ProbeOptions
from probekit.evaluate.tokens import token_source
from probekit.saved import card_path, load_probe, save
from probekit.store import TextTokens
from tests.contracts.probes import quick_mlp
from tests.tiny import save_tiny_data, tiny_texts

BOTH = "mlp-torch,attention"


@pytest.fixture(scope="module", autouse=True)
def quick():
    with quick_mlp():
        yield


@pytest.fixture(scope="module")
def caches(tmp_path_factory, tiny_model, tiny_data):
    """With float16 tokens, without tokens, and with words; the texts have several labels too."""
    folder = tmp_path_factory.mktemp("caches")
    table = pd.read_csv(tiny_data, sep="\t")
    table["moods"] = [json.dumps([w for w in ("film", "dull") if w in text]) for text in table["text"]]
    table.to_csv(folder / "data.csv", index=False)
    plain = {"dtype": "float32", "threads": 1}
    extract(tiny_model, folder / "data.csv", out=folder / "tokens.h5", tokens=True, pooling="mean", **plain).close()
    extract(tiny_model, folder / "data.csv", out=folder / "pooled.h5", **plain).close()
    texts, labels = tiny_texts(60)
    lines = [json.dumps({"tokens": t.split(), "pos": [y] * len(t.split())}) for t, y in zip(texts, labels, strict=True)]
    (folder / "words.jsonl").write_text("\n".join(lines))
    extract(tiny_model, folder / "words.jsonl", out=folder / "words.h5", tokens=True, **plain).close()
    return folder


@pytest.fixture(scope="module")
def done(caches):
    found = run_probes(
        [caches / "tokens.h5"], ["label", "score", "moods"], options=ProbeOptions(probe=BOTH, layers=[1, 2])
    )
    return found, save(found, caches / "heads")


def test_a_layer_curve_of_each(done):
    table = done[0].table
    assert set(zip(table["probe"], table["pooling"], strict=True)) == {
        ("mlp-torch", "mean"),
        ("attention", "attention"),
    }
    assert (table.groupby(["target", "pooling"])["layer"].apply(list).map(tuple) == (1, 2)).all()
    of_classes = table[table["target"] == "label"]
    assert of_classes[["score", "log_loss", "auroc", "max_abs", "text_baseline"]].notna().all().all()
    assert of_classes["score"].max() > 0.8
    assert table[table["target"] == "score"]["r2"].notna().all()


def test_predictions_from_raw_text_are_those_of_the_table(done, caches, tiny_model):
    found, paths = done
    with open_cache(caches / "tokens.h5") as cache:
        for path, (chosen, _) in zip(paths, found.chosen, strict=True):
            answer = predict(path, [cache.texts[i] for i in chosen.test], model=tiny_model)
            if chosen.task == "regression":
                np.testing.assert_allclose(answer.labels, chosen.predicted, rtol=1e-4, atol=1e-4)
            else:
                assert [np.array(a).tolist() for a in answer.labels] == [np.array(a).tolist() for a in chosen.predicted]
    card = load_probe(next(path for path in paths if "-label-attention" in path.name)).card
    assert (card["pooling"], card["probe"], card["cache"]["tokens"]) == ("attention", "attention", "float16")


@pytest.mark.slow
def test_a_fresh_process_answers_the_same_bytes(done, tiny_model):
    paths = [path for path in done[1] if "-label-" in path.name]
    code = (
        "import sys; from probekit.api.predict import predict\n"
        "for path in sys.argv[2:]:\n"
        "    print(predict(path, ['a good film', 'bad'], model=sys.argv[1]).probability.tobytes())"
    )
    command = [sys.executable, "-c", code, tiny_model, *paths]
    fresh = subprocess.run(
        command, capture_output=True, text=True, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    here = [predict(path, ["a good film", "bad"], model=tiny_model).probability.tobytes() for path in paths]
    assert fresh.stdout.split("\n")[:-1] == [str(of_path) for of_path in here]


def test_the_kept_probe_has_what_was_chosen_and_saw_more_rows(done):
    for chosen, _ in done[0].chosen:
        if chosen.task == "classification":
            assert chosen.fitted_on == "train + validation"
            assert chosen.estimator.stop == chosen.estimator.n_epochs_
            assert chosen.estimator.penalty == pytest.approx(chosen.row["regularisation"])


def test_controls_are_there_or_empty(caches):
    options = ProbeOptions(
        probe=BOTH, controls="shuffled,length,conditional,mdl", layers=[0, 1], pooling="mean", refit=False
    )
    with pytest.raises(SpecError, match="--control mdl: is of classes and the logistic probe"):
        run_probes([caches / "tokens.h5"], ["label"], options=options)
    options = ProbeOptions(
        probe=f"logistic,{BOTH}", controls="shuffled,length,conditional,mdl", layers=[0, 1], pooling="mean", refit=False
    )
    table = run_probes([caches / "tokens.h5"], ["label"], options=options).table.set_index(["probe", "layer"])
    there = table[["control", "length_baseline", "conditional", "mdl_bits"]].notna()
    assert there.loc[("attention", 1)].tolist() == [True, True, False, False]
    assert there.loc[("mlp-torch", 1)].tolist() == [True, True, True, False]
    assert there.loc[("logistic", 1)].tolist() == [True, True, True, True]


def test_a_random_model_with_tokens_is_held_against_it(caches, tiny_model, tmp_path):
    options = {
        "out": tmp_path / "random.h5",
        "random_seed": 1,
        "dtype": "float32",
        "tokens": True,
        "pooling": "mean",
    }
    extract(tiny_model, caches / "data.csv", **options).close()
    found = run_probes(
        [caches / "tokens.h5"],
        ["label"],
        options=ProbeOptions(probe="attention", refit=False),
        random_cache=tmp_path / "random.h5",
    )
    assert found.table["random_model"].notna().all()


def test_transfer_takes_it_and_few_shots_leave_it_out(caches, tiny_model, tmp_path):
    extract(tiny_model, save_tiny_data(tmp_path / "other.tsv", 40), out=tmp_path / "other.h5", tokens=True).close()
    options = ProbeOptions(probe="attention", transfer=(tmp_path / "other.h5",), layers=[1], refit=False)
    found = run_probes([caches / "tokens.h5"], ["label"], options=options).tables["transfer"]
    assert set(found["pooling"]) == {"attention"}
    assert len(found) == 4
    shots = ProbeOptions(probe=f"logistic,{BOTH}", shots=Shots((2,), 2), layers=[1], refit=False)
    assert set(run_probes([caches / "tokens.h5"], ["label"], options=shots).tables["shots"]["pooling"]) == {"mean"}


def refused(cache, *options):
    return lambda caches: run_probes([caches / cache], list(options[:1]), options=ProbeOptions(**dict(options[1:])))


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (
            refused("pooled.h5", "label", ("probe", "attention")),
            "--probe attention: needs the states of every token: extract with --tokens; got pooled states only",
        ),
        (
            refused("words.h5", "pos", ("probe", "attention")),
            "--probe attention: target 'pos' is tags, for which there are logistic, mlp, .*, mlp-torch$",
        ),
        (
            refused("tokens.h5", "label", ("probe", "attention"), ("shots", Shots((2,), 2))),
            "--probe attention: few-shot curves are of pooled states: ask for another probe too",
        ),
    ],
    ids=["no tokens", "words", "few shots"],
)
def test_what_it_is_not_for_is_said_before_the_work(caches, ask, message):
    with pytest.raises(SpecError, match=message) as raised:
        ask(caches)
    assert "\n" not in str(raised.value)


def test_spans_are_refused(tiny_model, tmp_path):
    lines = [
        {"text": f"the {w} very", "start": 4, "end": 8, "type": "ab"[i % 2]} for i, w in enumerate(["good", "film"] * 9)
    ]
    (tmp_path / "spans.jsonl").write_text("\n".join(map(json.dumps, lines)))
    extract(tiny_model, tmp_path / "spans.jsonl", out=tmp_path / "s.h5", tokens=True, pool_over="span").close()
    with pytest.raises(SpecError, match="--probe attention: reads whole texts; this cache is of a span of each"):
        run_probes([tmp_path / "s.h5"], ["type"], options=ProbeOptions(probe="attention"))


@pytest.mark.parametrize(("probe", "pooling", "message"), [
    ("attention", "mean", "field 'pooling': must be that of its probe, attention; got mean"),
    ("mlp-torch", "attention", "field 'pooling': must be that of its probe, a pooling; got attention"),
])  # fmt: skip
@pytest.mark.parametrize("target", ["label", "moods"])
def test_a_card_edited_by_hand_is_refused(done, tiny_model, tmp_path, capsys, probe, pooling, message, target):
    path = next(path for path in done[1] if f"-{target}-" in path.name and path.stem.endswith(probe))
    copy = tmp_path / path.name
    shutil.copy(path, copy)
    card = json.loads(card_path(path).read_text())
    card_path(copy).write_text(json.dumps({**card, "pooling": pooling}))
    assert run(["predict", str(copy), "--model", str(tiny_model), "--text", "good"]) == 2
    error = capsys.readouterr().err.strip().split("\n")[-1]
    assert message in error
    card["cache"].pop("tokens")
    card_path(copy).write_text(json.dumps({**card, "pooling": "attention"}))
    assert run(["predict", str(copy), "--model", str(tiny_model), "--text", "good"]) == 2
    assert "must say what the probe was fitted on; got no tokens" in capsys.readouterr().err


def test_only_the_tokens_of_the_rows_are_read_and_they_must_be_finite(caches):
    asked = []

    class Watched:
        def __init__(self, stored):
            self.stored = stored

        def __getitem__(self, rows):
            asked.append(len(rows))
            return self.stored[rows]

    with open_cache(caches / "tokens.h5") as cache:
        tokens = cache.tokens(1)
        found = TextTokens(Watched(cache.token_rows(1)), tokens.offsets).rows(np.array([5, 2]))
        expected = np.concatenate([tokens[5], tokens[2]])
    assert asked == [len(expected)]
    assert found.dtype == np.float32
    assert expected.dtype == np.float16
    np.testing.assert_array_equal(found.values, expected)


def test_a_reader_can_be_sent_to_another_process(caches):
    with open_cache(caches / "tokens.h5") as cache:
        read = token_source(cache, "attention", (1, 2), None).read
        again = pickle.loads(pickle.dumps(read))(2)
        np.testing.assert_array_equal(again.rows(np.array([3])).values, cache.tokens(2)[3])
