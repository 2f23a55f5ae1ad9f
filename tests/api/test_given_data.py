"""From data as people have them to a cache and a table: in memory, with parts, ids, bare tags and columns left out."""

from __future__ import annotations

import json

import pandas as pd
import pytest

from probekit import extract, open_cache, probe_layers
from probekit.cli import run
from probekit.errors import InputError, SpecError
from probekit.spec import Silent
from tests.inputs.cases import write
from tests.tiny import tiny_texts

pytestmark = pytest.mark.filterwarnings("ignore::probekit.ProbekitWarning")


class Notes(Silent):
    def __init__(self):
        self.said = []

    def note(self, text):
        self.said.append(text)


@pytest.fixture(scope="module")
def frame():
    texts, labels = tiny_texts(40)
    return pd.DataFrame({"text": texts, "label": labels})


def test_memory_and_file_give_one_cache(tiny_model, frame, tmp_path):
    frame.to_csv(tmp_path / "a.csv", index=False)
    with extract(tiny_model, tmp_path / "a.csv", out=tmp_path / "a.h5", dtype="float32") as from_file:
        fingerprint = from_file.fingerprint
        states = from_file.layer(2).tobytes()
    for number, (data, labels) in enumerate([(frame, None), (frame["text"].tolist(), frame["label"])]):
        with extract(tiny_model, data, labels=labels, out=tmp_path / f"{number}.h5", dtype="float32") as cache:
            assert cache.fingerprint == fingerprint
            assert cache.layer(2).tobytes() == states
        extract(tiny_model, data, labels=labels, out=tmp_path / "a.h5", dtype="float32").close()
    with open_cache(tmp_path / "1.h5") as cache:
        assert cache.provenance["dataset"] == "list of texts"


def test_wrong_options_are_found_before_the_data_are_looked_at(tiny_model, tmp_path):
    with pytest.raises(SpecError, match="--pooling median"):
        extract(tiny_model, [1, 2], out=tmp_path / "c.h5", pooling="median")
    with pytest.raises(InputError, match="item 1: every item must be text"):
        extract(tiny_model, [1, 2], out=tmp_path / "c.h5")
    assert list(tmp_path.iterdir()) == []


def test_what_is_left_out_is_said_by_extract(tiny_model, tmp_path):
    rows = [{"tokens": ["good", "film"], "ner_tags": [None, "O"]}, {"tokens": ["bad"], "ner_tags": ["O"]}]
    path = write(tmp_path, "a.jsonl", "\n".join(map(json.dumps, rows)))
    notes = Notes()
    extract(tiny_model, path, out=tmp_path / "c.h5", tokens=True, listener=notes).close()
    assert "column 'ner_tags' is left out: row 1 has a list with an empty (null) item" in notes.said


def test_the_command_says_it_too(tiny_model, tmp_path, capsys):
    one = write(tmp_path, "spam.csv", 'id,text,score\n0,good film,"0,5"\n1,bad film,"1,5"\n')
    two = write(tmp_path, "ham.csv", 'id,text,score\n0,dull plot,"0,5"\n1,fine plot,"1,5"\n')
    command = ["extract", str(tiny_model), str(one), str(two)]
    assert run([*command, "--out", str(tmp_path / "a.h5")]) == 0
    said = capsys.readouterr().err
    assert "no name of a part" in said
    assert "numbers have a point, not a comma as in '0,5'" in said
    assert "'spam/0', 'ham/0'" in said
    assert run([*command, "--out", str(tmp_path / "b.h5"), "--split", "spam=train,ham=test", "--id", "none"]) == 0
    assert "no name of a part" not in capsys.readouterr().err
    with open_cache(tmp_path / "b.h5") as cache:
        assert cache.column("split").tolist() == ["train", "train", "test", "test"]
        assert cache.ids.tolist() == ["0", "1", "2", "3"]
        assert cache.column("id").tolist() == [0, 1, 0, 1]
    assert run([*command, "--estimate"]) == 0
    assert "no name of a part" in capsys.readouterr().err


def test_the_name_of_a_format_is_refused(tiny_model, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write(tmp_path, "private.csv", "text\nsecret\n")
    assert run(["extract", str(tiny_model), "csv", "--out", "c.h5"]) == 2
    assert "got the name of a kind of files" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["private.csv"]


def test_bare_tags_are_probed_as_entities(tiny_model, tmp_path):
    texts, _ = tiny_texts(40)
    words = [text.split() for text in texts]
    tag = {"film": "B", "actor": "I"}
    lines = ["\n".join(f"{word}\t{tag.get(word, 'O')}" for word in sentence) for sentence in words]
    path = write(tmp_path, "a.conll", "\n\n".join(lines))
    cache = extract(tiny_model, path, out=tmp_path / "c.h5", tokens=True, dtype="float32")
    table = probe_layers(cache, "tags")
    assert set(table["metric"]) == {"entity_f1"}
    assert table["n_classes"].tolist() == [3, 3, 3]
    classes = table.attrs.get("classes")
    assert classes is None or set(classes["class"]) == {"entity"}
