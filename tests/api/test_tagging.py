"""Tags from a CoNLL file to the table and from a saved probe back to text."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from seqeval.metrics import f1_score
from seqeval.scheme import IOB2

from probekit import extract, open_cache, probe_layers
from probekit.api.predict import Entity, predict, tag_texts
from probekit.api.probe import run_probes
from probekit.cli import run
from probekit.errors import InputError, SpecError
from probekit.evaluate.plan import ProbeOptions
from probekit.extraction.reader import read_words
from probekit.inputs.read import read_examples
from probekit.models import locate
from probekit.readspec import RunOptions
from probekit.saved import card_path, load_probe, save
from probekit.spec import Silent
from probekit.store import WordStates, word_matrix
from tests.inputs.cases import DATA, needs_data
from tests.packaged import minilm
from tests.tiny import WORDS

pytestmark = pytest.mark.filterwarnings("ignore::probekit.ProbekitWarning")


@pytest.fixture(scope="module")
def conll(tmp_path_factory):
    """Sentences in which film and plot are things, of one or two words; a word twice as long as the model reads."""
    rng = np.random.default_rng(0)
    lines = []
    for _ in range(80):
        for word in rng.choice(WORDS, size=int(rng.integers(3, 9))):
            if word in ("film", "plot"):
                lines += [f"{word} NN B-thing", *(["actor NN I-thing"] if rng.random() < 0.9 else [])]
            else:
                lines.append(f"{word} JJ O")
        lines.append("")
    path = tmp_path_factory.mktemp("conll") / "train.conll"
    path.write_text("\n".join(lines))
    return path


@pytest.fixture(scope="module")
def cache(tmp_path_factory, tiny_model, conll):
    out = tmp_path_factory.mktemp("tagged") / "cache.h5"
    extract(tiny_model, conll, out=out, tokens=True, dtype="float32").close()
    return out


def test_the_table(cache, tmp_path, capsys):
    table = probe_layers(cache, "ner,column_2", seeds=2)
    assert table["target"].tolist() == ["ner"] * 3 + ["column_2"] * 3
    assert table["metric"].tolist() == ["entity_f1"] * 3 + ["accuracy"] * 3
    assert (table["pooling"] == "mean").all()
    assert (table["score"][table["selected"]] > 0.6).all()
    out = tmp_path / "l.csv"
    command = ["probe", str(cache), "--target", "ner", "--subword", "last", "--viterbi", "--jobs", "1", "--per-class"]
    assert run([*command, "--out", str(out), "--plot", str(tmp_path / "l.png")]) == 0
    text = capsys.readouterr().out
    for part in ("entity F1", "last of subwords", "each word looked up", "lenient entity F1", "selectivity", "thing"):
        assert part in text
    record = json.loads(out.with_suffix(".json").read_text())
    assert (record["options"]["subword"], record["options"]["viterbi"]) == ("last", True)
    assert "entity_f1" in next(csv.DictReader(io.StringIO(out.read_text())))


@pytest.mark.parametrize("viterbi", [False, True])
@pytest.mark.parametrize("target", ["ner", "column_2"])
def test_a_saved_probe_repeats_its_test_predictions(cache, conll, tiny_model, tmp_path, target, viterbi):
    if viterbi and target != "ner":
        pytest.skip("decoding is for entities")
    layers = "0" if viterbi else "all"  # there an actor is inside a thing, whatever stands before
    options = ProbeOptions(layers=layers, viterbi=viterbi, refit=False)
    done = run_probes([cache], [target], options=options)
    (path,) = save(done, tmp_path)
    examples, chosen = read_examples([conll]), done.chosen[0][0]
    words = [examples.words[i] for i in chosen.test]
    found = tag_texts(path, [examples.texts[i] for i in chosen.test], words=words, model=tiny_model)
    assert [tag for tagged in found for tag in tagged.tags] == chosen.predicted.tolist()
    if viterbi:
        plain = run_probes([cache], [target], options=replace(options, viterbi=False)).chosen[0][0].predicted
        assert (plain != chosen.predicted).any()
    if target == "ner":
        truth = [json.loads(examples.columns["ner"][i]) for i in chosen.test]
        f1 = f1_score(truth, [list(tagged.tags) for tagged in found], mode="strict", scheme=IOB2)
        assert f1 == pytest.approx(chosen.row["score"])


def test_raw_text(cache, tiny_model, tmp_path, capsys, monkeypatch):
    done = run_probes([cache], ["ner", "column_2"], options=ProbeOptions(layers="2"))
    ner, pos = save(done, tmp_path)
    text = 'A very dull film, "the plot"!'
    (found,) = tag_texts(ner, [text], model=tiny_model)
    assert [text[a:b] for a, b in found.words] == ["A", "very", "dull", "film", ",", '"', "the", "plot", '"', "!"]
    assert found.entities == (Entity("thing", 12, 16), Entity("thing", 23, 27))
    base = ["predict", str(ner), "--model", str(tiny_model)]
    assert run([*base, "--text", text]) == 0
    assert capsys.readouterr().out.splitlines() == ["id,start,end,tag,text", "1,12,16,thing,film", "1,23,27,thing,plot"]
    assert run([*base, "--text", text, "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    entities = printed["entities"]
    assert [word["tag"] for word in printed["words"]].count("B-thing") == 2
    assert entities[1] == {"text": "plot", "type": "thing", "start": 23, "end": 27}
    assert run(["predict", str(pos), "--model", str(tiny_model), "--text", "the film", "--json"]) == 0
    words = json.loads(capsys.readouterr().out)["words"]
    assert [(word["text"], word["tag"]) for word in words] == [("the", "JJ"), ("film", "NN")]
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    assert run([*base, "--text", text]) == 0
    assert "[film thing]" in capsys.readouterr().out
    plain = predict(ner, ["a film", " "], model=tiny_model)
    assert [plain.labels[0], []] == [list(tag_texts(ner, "a film", model=tiny_model)[0].tags), plain.labels[1]]
    assert plain.words == (((0, 1), (2, 6)), ())
    with pytest.raises(InputError, match="text 1: must not be empty"):
        tag_texts(ner, [" "], model=tiny_model)


def test_a_word_beyond_the_model_is_outside_of_every_entity(cache, tiny_model, tmp_path, capsys):
    (path,) = save(run_probes([cache], ["ner"], options=ProbeOptions(layers="2")), tmp_path)
    (found,) = tag_texts(path, ["film " * 40], model=tiny_model)
    assert set(found.tags[:15]) == {"B-thing"}
    assert found.tags[30:] == ("O",) * 10
    assert run(["predict", str(path), "--model", str(tiny_model), "--text", "film " * 40]) == 0
    assert "1 text is longer than 32 tokens and read only so far" in capsys.readouterr().err


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_states_are_read_in_pieces_and_rounded_as_the_cache_has_them(conll, tiny_model, tmp_path, dtype):
    out = tmp_path / "c.h5"
    options = {"tokens": True, "token_dtype": dtype, "stride": 4, "max_length": 10, "dtype": "float32"}
    extract(tiny_model, conll, out=out, **options).close()
    done = run_probes([out], ["ner"], options=ProbeOptions(layers="2"))
    (path,) = save(done, tmp_path / "heads")
    card = load_probe(path).card
    with open_cache(out) as cache:
        long = [i for i, words in enumerate(cache.words) if len(words) > 9]
        words = [cache.words[i] for i in long]
        how = {"source": locate(tiny_model), "options": RunOptions("cpu", 1), "listener": Silent()}
        states, lost = read_words(words, card=card, **how)
        assert not lost.any()
        X = states.rows(np.arange(len(lost)))
        lengths = [len(sentence) for sentence in cache.words]
        stored = WordStates(cache.tokens(2).stored, word_matrix(cache.tokens(2), lengths, "mean"))
        ends = np.cumsum(lengths)
        at = np.concatenate([np.arange(ends[i] - lengths[i], ends[i]) for i in long])
        np.testing.assert_allclose(X, stored.rows(at), atol=2e-3 if dtype == "float16" else 1e-5)
    rounded = states.stored.astype(dtype).astype(np.float32)
    assert np.array_equal(rounded, states.stored)
    found = tag_texts(path, ["film " * 40], model=tiny_model)[0]
    assert set(found.tags[-10:]) == {"B-thing"}


def test_what_is_refused(cache, conll, tiny_model, tmp_path, capsys):
    extract(tiny_model, conll, out=tmp_path / "pooled.h5").close()
    for arguments, message in (
        (
            [str(tmp_path / "pooled.h5"), "--target", "ner"],
            "need the states of every token: extract with --tokens",
        ),
        ([str(cache), "--target", "ner", "--subword", "middle"], "--subword middle: one of mean, first, last"),
        ([str(cache), "--target", "ner", "--shots", "1"], "few-shot curves are of whole texts"),
        ([str(cache), "--target", "column_2", "--viterbi"], "--viterbi: needs entity tags"),
        ([str(cache), "--target", "ner", "--control", "mdl"], "--control mdl: is for targets of whole texts"),
    ):
        assert run(["probe", *arguments, "--jobs", "1"]) == 2
        error = capsys.readouterr().err.strip().splitlines()[-1]
        assert message in error
    ragged = tmp_path / "ragged.jsonl"
    ragged.write_text('{"tokens": ["a", "film"], "ner": ["O"]}\n{"tokens": ["plot"], "ner": ["B-x"]}\n')
    command = ["extract", str(tiny_model), str(ragged), "--tokens", "--out", str(tmp_path / "ragged.h5")]
    assert run(command) == 0
    said = "column 'ner' has no tag for each word in 1 of 2 examples (example 0: 1 for 2 words)"
    assert said in capsys.readouterr().err
    with pytest.raises(InputError, match="example 0, column 'ner': a tag for each of its 2 words; got 1"):
        probe_layers(tmp_path / "ragged.h5", "ner")


@needs_data
def test_real_entities(tmp_path):
    """WNUT-17's development part with MiniLM: the figures are seqeval's on predictions made from the words."""
    source = DATA / "wnut17" / "dev.conll"
    extract(minilm(), source, out=tmp_path / "c.h5", tokens=True, layers="3", dtype="float32").close()
    done = run_probes([tmp_path / "c.h5"], ["ner"], options=ProbeOptions(refit=False))
    (path,) = save(done, tmp_path / "heads")
    examples, chosen = read_examples([source]), done.chosen[0][0]
    words = [examples.words[i] for i in chosen.test]
    found = tag_texts(path, [" ".join(row) for row in words], words=words, model=minilm())
    predicted = [list(tagged.tags) for tagged in found]
    truth = [json.loads(examples.columns["ner"][i]) for i in chosen.test]
    assert f1_score(truth, predicted, mode="strict", scheme=IOB2) == pytest.approx(chosen.row["score"], abs=5e-3)
    assert f1_score(truth, predicted) == pytest.approx(chosen.row["entity_f1_lenient"], abs=5e-3)
    right = np.mean([a == b for x, y in zip(truth, predicted, strict=True) for a, b in zip(x, y, strict=True)])
    assert right == pytest.approx(chosen.row["accuracy"], abs=5e-3)
    with open_cache(tmp_path / "c.h5") as cache:
        assert sum(map(len, cache.words)) == chosen.row["n_words"] + sum(
            len(examples.words[i]) for i in set(range(len(examples))) - set(chosen.test.tolist())
        )


@pytest.mark.slow
def test_processes_and_other_probes(cache):
    alone = probe_layers(cache, "ner", probe="logistic,mass-mean,lda")
    together = probe_layers(cache, "ner", probe="logistic,mass-mean,lda", jobs=2)
    pd.testing.assert_frame_equal(alone, together)
    assert alone["probe"].tolist() == ["logistic"] * 3 + ["mass-mean"] * 3 + ["lda"] * 3
    assert (alone["score"][alone["selected"]] > 0.5).all()
    (mlp,) = probe_layers(cache, "ner", probe="mlp", layers="2")["score"]
    assert mlp > 0.5


def test_a_card_with_other_labels_is_refused(cache, tiny_model, tmp_path):
    (path,) = save(run_probes([cache], ["ner"], options=ProbeOptions(layers="2")), tmp_path)
    card = json.loads(card_path(path).read_text())
    for labels in (["B-thing", "O"], ["O", "I-thing", "B-thing"]):
        card_path(path).write_text(json.dumps(card | {"labels": labels}))
        with pytest.raises(SpecError, match="must have the labels of its probe, sorted"):
            tag_texts(path, ["a film"], model=tiny_model)


def test_tags_and_labels_of_two_caches_with_their_random_models(tiny_model, tmp_path):
    """Each cache has two evaluations, and one random model of its own."""
    for name, n in (("a", 40), ("b", 50)):
        rows = [{"tokens": ["a", w, "plot"], "ner": ["O", "B-x", "O"], "y": w} for w in ("film", "actor") * (n // 2)]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        extract(tiny_model, tmp_path / f"{name}.jsonl", out=tmp_path / f"{name}.h5", tokens=True).close()
    paths, options = [tmp_path / "a.h5", tmp_path / "b.h5"], ProbeOptions(controls="random")
    done = run_probes(paths, ["y", "ner"], options=options, models=[tiny_model])
    parts = [(part["file"], part["random_cache"]["file"], *part["targets"]) for part in done.record["caches"]]
    assert parts == [(f"{c}.h5", f"{c}.random.h5", target) for c in "ab" for target in ("y", "ner")]
    assert done.table["random_model"].notna().tolist() == ([True] * 3 + [False] * 3) * 2
