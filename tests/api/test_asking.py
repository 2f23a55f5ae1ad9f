"""Every mistake is found before the first fit; several caches in one table stay apart; what is kept says so."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pandas as pd
import pytest

from probekit import extract, open_cache, probe_layers
from probekit.api.predict import predict
from probekit.api.probe import run_probes
from probekit.cli import run
from probekit.errors import ProbekitError, SpecError
from probekit.evaluate.few_shot import MTEB, Shots
from probekit.evaluate.names import cache_names
from probekit.evaluate.plan import ProbeOptions, task_of
from probekit.saved import card_path, save
from tests.tiny import tiny_texts

pytestmark = pytest.mark.filterwarnings("ignore::probekit.ProbekitWarning")


def write_rows(path, n=60, seed=0):
    texts, labels = tiny_texts(n, seed=seed)
    rows = []
    for i, (text, label) in enumerate(zip(texts, labels, strict=True)):
        row = {"id": f"{seed}-{i}", "text": text, "label": label, "half": None if i % 3 else label}
        row |= {"stars": i % 5 + 1, "score": i % 7 + 0.5, "moods": [label, "x"] if i % 2 else [label]}
        rows.append(row)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tiny_model):
    folder = tmp_path_factory.mktemp("asking")
    data = write_rows(folder / "rows.jsonl")
    extract(tiny_model, data, out=folder / "plain.h5").close()
    extract(tiny_model, data, out=folder / "prompted.h5", prompt="the film: {text}").close()
    extract(tiny_model, data, out=folder / "drawn.h5", random_seed=0).close()
    extract(tiny_model, write_rows(folder / "other.jsonl", seed=1), out=folder / "other.h5").close()
    words = [{"tokens": ["a", w, "plot"], "ner": ["O", "B-x", "O"], "y": w} for w in ("film", "actor") * 20]
    words[5]["ner"] = None
    (folder / "words.jsonl").write_text("".join(json.dumps(row) + "\n" for row in words))
    extract(tiny_model, folder / "words.jsonl", out=folder / "words.h5", tokens=True).close()
    return folder


class Watched:
    """Which steps begin."""

    def __init__(self):
        self.stages = []

    def stage(self, name, **_):
        self.stages.append(name)

    def advance(self, done):
        pass

    def note(self, text):
        pass


SHOTS = Shots((1,), 2)


@pytest.mark.parametrize(
    ("targets", "options", "more", "message"),
    [
        ("label", {"shots": SHOTS, "probe": ("nope",)}, {}, "--probe nope"),
        ("label", {"shots": SHOTS, "probe": ("ridge",)}, {}, "--probe ridge"),
        ("label", {"shots": SHOTS, "controls": "nope"}, {}, "--control nope"),
        ("label", {"shots": SHOTS, "controls": "random"}, {}, "--model: the states are of a local model"),
        ("label", {"shots": SHOTS}, {"random_cache": "plain.h5"}, "must be extracted with --random-seed"),
        ("label", {"shots": SHOTS, "transfer": ("drawn.h5",)}, {}, "--transfer drawn.h5: must have the random_seed"),
        ("label", {"shots": SHOTS, "transfer": ("words.h5",)}, {}, "--target label: this cache has"),
        ("label", {"transfer": ("other.h5",), "probe": ("nope",)}, {}, "--probe nope"),
        ("label", {"transfer": ("plain.h5",)}, {}, "CACHE, --transfer: different caches, none twice; got plain.h5"),
        ("label", {"shots": SHOTS, "viterbi": True}, {}, "--viterbi: is for tags of words"),
        ("label", {"shots": SHOTS, "max_words": 9}, {}, "--max-words 9: is for tags of words"),
        ("label", {"subword": "first"}, {}, "--subword first: is for tags of words"),
        ("label", {"shots": SHOTS, "seeds": 0}, {}, "--seeds 0"),
        ("label", {"shots": SHOTS, "split": 0.7}, {}, "--split 0.7"),
        ("label", {"shots": SHOTS, "split": "nope"}, {}, "--split nope"),
        ("label", {"shots": SHOTS, "group": "nope"}, {}, "--group nope"),
        ("label", {"shots": SHOTS, "task": "nope"}, {}, "--task nope"),
        ("label", {"shots": SHOTS, "probe": ("logistic", "logistic")}, {}, "--probe: names, comma-separated, none tw"),
        ("label", {"shots": SHOTS, "pooling": ("mean", "mean")}, {}, "--pooling: names, comma-separated, none twice"),
        ("label", {"shots": SHOTS, "drop_rare": -1}, {}, "--drop-rare -1"),
        ("label", {"shots": SHOTS, "drop_rare": 999}, {}, "--drop-rare 999: must leave at least two classes"),
        ("score", {"shots": SHOTS, "drop_rare": 3}, {}, "--drop-rare 3: is for classes and labels"),
        ("score", {"shots": SHOTS, "controls": "mdl"}, {}, "--control mdl: is of classes"),
        ("label", {"shots": SHOTS, "controls": "mdl", "probe": ("lda",)}, {}, "--control mdl: is of classes"),
        ("label", {"controls": "conditional", "layers": "1,2"}, {}, "--control conditional: needs layer 0"),
        ("label,score", {"shots": MTEB}, {}, "is for classes; column 'score' holds numbers"),
        ("moods", {"shots": MTEB}, {}, "is for classes; column 'moods' holds several labels per text"),
        ("label", {"shots": Shots((1, 500), 2)}, {}, "--shots 500: class"),
        ("label", {"shots": Shots((1,), 0)}, {}, "--shots, --draws"),
    ],
)
def test_mistakes_are_found_before_anything_is_fitted(folder, monkeypatch, targets, options, more, message):
    monkeypatch.chdir(folder)
    watched = Watched()
    with pytest.raises(ProbekitError) as error:
        run_probes(["plain.h5"], targets.split(","), options=ProbeOptions(**options), listener=watched, **more)
    assert message in str(error.value)
    assert watched.stages == []


@pytest.mark.parametrize(
    ("options", "more", "message"),
    [
        ({"shots": SHOTS}, {}, "--target ner: few-shot curves are of whole texts"),
        ({"transfer": ("other.h5",)}, {}, "--target ner"),
        ({"max_words": 0}, {}, "--max-words 0: at least 1"),
        ({"subword": "middle"}, {}, "--subword middle"),
        ({"probe": ("ridge",)}, {}, "--probe ridge: target 'ner' is entities"),
        ({"controls": "shuffled"}, {}, "--control shuffled: is for targets of whole texts"),
        ({"drop_rare": 3}, {}, "--drop-rare 3: is for classes and labels"),
        ({}, {"random_cache": "drawn.h5"}, "--random-cache drawn.h5: must have"),
    ],
)
def test_mistakes_about_tags(folder, monkeypatch, options, more, message):
    monkeypatch.chdir(folder)
    watched = Watched()
    with pytest.raises(ProbekitError) as error:
        run_probes(["words.h5"], ["ner"], options=ProbeOptions(**options), listener=watched, **more)
    assert message in str(error.value)
    assert watched.stages == []


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ("auto", ["auto", "auto"]),
        ("regression", ["regression", "regression"]),
        ("stars=regression", ["auto", "regression"]),
        ("classification,stars=regression", ["classification", "regression"]),
        ("label=classification,stars=regression", ["classification", "regression"]),
        ({"stars": "regression"}, ["auto", "regression"]),
    ],
)
def test_a_task_for_all_or_for_one(asked, expected):
    assert list(task_of(asked, ["label", "stars"]).values()) == expected


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ("ranking", "--task ranking: one of auto, classification, regression, multilabel, or COLUMN=TASK"),
        ("stars=", "one of auto"),
        ("stras=regression", "--task stras=regression: columns are those of --target: label, stars; got stras"),
        ("stars=regression,stars=auto", "a task once for each column; got stars"),
        ("regression,classification", "a task once for each column; got classification"),
        ({"stars": "numbers"}, "--task stars=numbers: one of auto"),
    ],
)
def test_tasks_that_can_not_be(asked, message):
    with pytest.raises(SpecError) as error:
        task_of(asked, ["label", "stars"])
    assert message in str(error.value)


def test_tasks_by_command_and_missing_labels_and_rare_classes(folder, capsys):
    out = folder / "tasks.csv"
    command = ["probe", str(folder / "plain.h5"), "--target", "half,stars", "--task", "stars=regression", "--jobs", "1"]
    assert run([*command, "--out", str(out)]) == 0
    assert "half: 40 of 60 rows have no label and are left out" in capsys.readouterr().err
    table = pd.read_csv(out)
    assert table["task"].tolist() == ["classification"] * 3 + ["regression"] * 3
    parts = table[["n_train", "n_val", "n_test"]].sum(axis=1)
    assert parts.tolist() == [20] * 3 + [60] * 3
    assert set(table["cache"]) == {"plain"}
    record = json.loads(out.with_suffix(".json").read_text())
    (cache,) = record["caches"]
    assert (cache["cache"], cache["targets"]["half"]["n_missing"]) == ("plain", 40)
    assert record["options"]["task"] == "stars=regression"
    found = probe_layers(folder / "plain.h5", "stars", task={"stars": "regression"})
    assert set(found["task"]) == {"regression"}
    assert set(probe_layers(folder / "plain.h5", "stars")["task"]) == {"classification"}


def test_names_say_what_sets_caches_apart(folder, tiny_model, tmp_path):
    shutil.copy(folder / "plain.h5", tmp_path / "plain.h5")
    paths = [folder / "plain.h5", folder / "prompted.h5", folder / "drawn.h5", folder / "other.h5"]
    caches = [open_cache(path) for path in [*paths, tmp_path / "plain.h5"]]
    assert cache_names(caches[:1]) == ["plain"]
    assert cache_names(caches[:4]) == [
        "plain",
        "prompted (prompt: the film: {text})",
        "drawn (random seed: 0)",
        "other",
    ]
    twice = cache_names([caches[0], caches[4]])
    assert twice == [f"{folder.name}/plain", f"{tmp_path.name}/plain"]
    with pytest.raises(SpecError, match=r"different caches, none twice; got plain\.h5"):
        cache_names([caches[0], caches[1], caches[0]])
    for cache in caches:
        cache.close()


def test_two_caches_of_one_model_are_two_curves_in_every_table(folder, tmp_path):
    paths = [folder / "plain.h5", folder / "prompted.h5"]
    options = ProbeOptions(shots=SHOTS, transfer=(folder / "other.h5",))
    both = run_probes(paths, ["label"], options=options)
    names = ["plain", "prompted (prompt: the film: {text})"]
    for name, path in zip(names, paths, strict=True):
        alone = run_probes([path], ["label"], options=ProbeOptions(shots=SHOTS))
        for table, single in (
            (both.table, alone.table),
            (both.tables["classes"], alone.tables["classes"]),
            (both.tables["shots"], alone.tables["shots"]),
        ):
            mine = table[table["cache"] == name].drop(columns="cache").reset_index(drop=True)
            pd.testing.assert_frame_equal(mine, single.drop(columns="cache"))
    assert [part["cache"] for part in both.record["caches"]] == names
    assert both.tables["transfer"]["trained_on"].unique().tolist() == [*names, "other"]
    saved = save(both, tmp_path / "heads")
    assert len({path.name for path in saved}) == len(list((tmp_path / "heads").glob("*.skops"))) == 2
    assert "-plain-label-" in saved[0].name
    assert "-prompted__prompt" in saved[1].name


def test_names_of_one_cache_stay_and_names_that_would_clash_do_not(folder, tmp_path, tiny_model):
    rows = [{"text": f"good film {i}", "a b": "xy"[i % 2], "a_b": "yx"[i % 2], "A_B": "xyy"[i % 3]} for i in range(40)]
    data = tmp_path / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    extract(tiny_model, data, out=tmp_path / "c.h5", layers="1").close()
    done = run_probes([tmp_path / "c.h5"], ["a b", "a_b", "A_B"], options=ProbeOptions())
    paths = save(done, tmp_path / "heads")
    assert [path.name[path.name.index("tiny-bert") :] for path in paths] == [
        "tiny-bert-a_b-mean-001-logistic.skops",
        "tiny-bert-a_b-mean-001-logistic-2.skops",
        "tiny-bert-A_B-mean-001-logistic-3.skops",
    ]
    targets = [json.loads(card_path(path).read_text())["target"] for path in paths]
    assert targets == ["a b", "a_b", "A_B"]


@pytest.mark.parametrize("refit", [True, False])
def test_the_card_says_what_the_probe_was_fitted_on(folder, tiny_model, refit):
    heads = folder / f"heads-{refit}"
    command = ["probe", str(folder / "plain.h5"), "--target", "half", "--jobs", "1", "--save-probes", str(heads)]
    assert run([*command, *([] if refit else ["--no-refit"])]) == 0
    (path,) = heads.glob("*.skops")
    card = json.loads(card_path(path).read_text())
    n_train, n_val = card["scores"]["n_train"], card["scores"]["n_val"]
    if refit:
        assert (card["fitted_on"], card["n_fitted"]) == ("train + validation", n_train + n_val)
    else:
        assert (card["fitted_on"], card["n_fitted"]) == ("train", n_train)
    before = predict(path, ["good film", "bad plot"], model=tiny_model).labels.tolist()
    for name in ("fitted_on", "n_fitted"):
        del card[name]
    card_path(path).write_text(json.dumps(card))  # as an earlier release wrote it
    assert predict(path, ["good film", "bad plot"], model=tiny_model).labels.tolist() == before


def test_sentences_without_tags_are_left_out(folder):
    done = run_probes([folder / "words.h5"], ["ner"], options=ProbeOptions())
    assert "ner: 1 of 40 rows have no label and are left out" in done.warnings
    assert set(done.table["task"]) == {"entities"}
    assert done.table[["n_train", "n_val", "n_test"]].sum(axis=1).tolist() == [39] * 3


def test_transfer_says_which_texts_the_probe_had_seen(folder, tmp_path, capsys, tiny_model):
    rows = [
        json.loads(line) | {"id": f"again {i}"}
        for i, line in enumerate((folder / "rows.jsonl").read_text().splitlines())
    ]
    (tmp_path / "again.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    extract(tiny_model, tmp_path / "again.jsonl", out=tmp_path / "again.h5").close()
    out = tmp_path / "l.csv"
    command = ["probe", str(folder / "plain.h5"), "--target", "half", "--transfer", str(tmp_path / "again.h5")]
    assert run([*command, "--jobs", "1", "--out", str(out)]) == 0
    error = capsys.readouterr().err
    table = pd.read_csv(tmp_path / "l.transfer.csv")
    pair = table[(table["trained_on"] == "plain") & (table["tested_on"] == "again")].iloc[0]
    assert pair["n_duplicate"] > 0
    said = f"{pair['n_duplicate']} of {pair['n_test']} test texts of again are in the training or validation rows of"
    assert said in error
    assert "again: half: 40 of 60 rows have no label" in error


@pytest.mark.parametrize("words", [False, True])
def test_the_random_model_reads_as_the_cache_was_read(folder, tiny_model, tmp_path, words):
    """Trap: long texts read in pieces, but cut off for the random form; spans of words read as characters."""
    if words:
        rows = [{"tokens": ["the", "very", w, "plot"], "start": 2, "end": 3, "y": w} for w in ("film", "actor") * 15]
        options = {"pool_over": "span"}
    else:
        rows = [{"text": "dull " * 30 + w, "y": w} for w in ("good", "bad") * 15]
        options = {"max_length": 12, "stride": 4, "tokens": True, "token_dtype": "float32"}
    (tmp_path / "c.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    extract(tiny_model, tmp_path / "c.jsonl", out=tmp_path / "c.h5", **options).close()
    probe_layers(tmp_path / "c.h5", "y", controls="random", model=tiny_model)
    extract(tiny_model, tmp_path / "c.jsonl", out=tmp_path / "by hand.h5", random_seed=0, **options).close()
    with open_cache(tmp_path / "c.random.h5") as made, open_cache(tmp_path / "by hand.h5") as by_hand:
        assert made.fingerprint == by_hand.fingerprint
        np.testing.assert_array_equal(made.layer(2), by_hand.layer(2))


def test_a_random_cache_that_was_read_otherwise_is_refused(folder, tiny_model):
    message = "--random-cache drawn.h5: must have the prompt of prompted.h5: the film: {text}; got None"
    with pytest.raises(SpecError) as error:
        probe_layers(folder / "prompted.h5", "label", random_cache=folder / "drawn.h5")
    assert message in str(error.value)


def test_a_random_cache_of_something_else_is_said_before_the_work(folder, tiny_model, tmp_path):
    for name in ("plain", "prompted"):
        shutil.copy(folder / f"{name}.h5", tmp_path / f"{name}.h5")
    shutil.copy(folder / "other.h5", tmp_path / "prompted.random.h5")
    watched = Watched()
    with pytest.raises(ProbekitError, match=r"--control random, .*move that file away") as error:
        run_probes(
            [tmp_path / "plain.h5", tmp_path / "prompted.h5"],
            ["label"],
            options=ProbeOptions(controls="random", shots=SHOTS),
            models=[tiny_model],
            listener=watched,
        )
    assert "--overwrite" not in str(error.value)
    assert watched.stages == []
    assert not (tmp_path / "plain.random.h5").exists()
