"""What a prediction takes: texts, lines and blanks, one probe or a folder of them; and other values of Python's."""

from __future__ import annotations

import csv
import io
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from probekit import extract, predict, probe_layers, tag_texts
from probekit.api.probe import run_probes
from probekit.cli import run
from probekit.errors import InputError, SpecError
from probekit.evaluate.plan import ProbeOptions
from probekit.saved import save

OLD = Path(__file__).parent.parent / "old"
LABEL = "heads/old_model-label-mean-000-logistic.skops"
SCORE = "heads/old_model-score-mean-000-ridge.skops"


@pytest.fixture
def here(tmp_path, monkeypatch):
    shutil.copytree(OLD, tmp_path / "old")
    monkeypatch.chdir(tmp_path / "old")
    return tmp_path / "old"


class Stdin:
    def __init__(self, data):
        self.buffer = io.BytesIO(data)


def answers(capsys):
    return list(csv.DictReader(io.StringIO(capsys.readouterr().out)))


def test_one_text_and_several_in_python(here):
    one = predict(LABEL, "very good film", model="model")
    assert one.labels.tolist() == ["pos"]
    assert one.probability.shape == (1, 2)
    for several in (["good", "dull"], ("good", "dull"), np.array(["good", "dull"]), pd.Series(["good", "dull"])):
        found = predict(LABEL, several, model="model")
        assert found.labels.tolist() == predict(LABEL, ["good", "dull"], model="model").labels.tolist()
        assert len(found.labels) == 2
    for nothing in ([], [" "], "", ["", "\t"]):
        with pytest.raises(InputError):
            predict(LABEL, nothing, model="model")
    for wrong in (5, [5], [None], ["a", float("nan")], ["a\0"], ["\udce9"], None):
        with pytest.raises(InputError, match="text"):
            predict(LABEL, wrong, model="model")


def test_a_blank_text_has_no_answer(here):
    whole = predict(LABEL, ["good film", "bad plot"], model="model")
    found = predict(LABEL, ["", "good film", " \t", "bad plot"], model="model")
    assert found.labels.tolist() == [None, *whole.labels[:1], None, *whole.labels[1:]]
    np.testing.assert_array_equal(found.probability[[1, 3]], whole.probability)
    assert np.isnan(found.probability[[0, 2]]).all()
    numbers = predict(SCORE, ["good film", " "], model="model")
    assert numbers.labels.dtype.kind == "f"
    assert np.isnan(numbers.labels).tolist() == [False, True]


def test_blank_texts_on_the_command_line(here, capsys, monkeypatch):
    monkeypatch.setattr("sys.stdin", Stdin(b"good film\n\nbad plot\n   \n"))
    assert run(["predict", LABEL, "--model", "model", "-"]) == 0
    out, err = capsys.readouterr()
    rows = list(csv.DictReader(io.StringIO(out)))
    assert [row["id"] for row in rows] == ["1", "2", "3", "4"]
    assert [(row["prediction"], row["p_pos"]) for row in rows][1::2] == [("", ""), ("", "")]
    assert "2 of 4 texts are blank and have no answer (counted from 1: 2, 4)" in err
    Path("d.csv").write_text("id,review,x\nseven,good film,1\neight,,2\n")
    assert run(["predict", SCORE, "--model", "model", "d.csv", "--column", "review", "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["id"] for row in rows] == ["seven", "eight"]
    assert rows[1]["prediction"] is None


def test_only_line_feeds_end_a_line(here, capsys, monkeypatch):
    data = "good\u2028film\r\nbad\x0cplot\x85 \x1c dull\nfine".encode()
    monkeypatch.setattr("sys.stdin", Stdin(data))
    assert run(["predict", LABEL, "--model", "model", "-"]) == 0
    assert [row["id"] for row in answers(capsys)] == ["1", "2", "3"]


@pytest.mark.parametrize("data", ["café\n".encode("latin-1"), b"good\n\0\n", "good".encode("utf-16")])
def test_lines_that_are_no_text(here, capsys, monkeypatch, data):
    monkeypatch.setattr("sys.stdin", Stdin(data))
    assert run(["predict", LABEL, "--model", "model", "-"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "standard input, line" in line
    assert "must be UTF-8 text" in line


def test_the_text_column_is_named_by_its_option(here, capsys):
    Path("d.csv").write_text("title,body\na,b\n")
    assert run(["predict", LABEL, "--model", "model", "d.csv"]) == 2
    assert "name the text column with --column" in capsys.readouterr().err


def set_val_score(path, score):
    card = json.loads(Path(path).with_suffix(".json").read_text())
    card["scores"]["val_score"] = score
    Path(path).with_suffix(".json").write_text(json.dumps(card))


def test_a_folder_of_probes(here, capsys):
    other = LABEL.replace("000", "001")
    for suffix in (".skops", ".json"):
        shutil.copy(Path(LABEL).with_suffix(suffix), Path(other).with_suffix(suffix))
    for best, scores in ((other, (0.2, 0.3)), (LABEL, (0.3, 0.2)), (other, (None, -5))):
        set_val_score(LABEL, scores[0])
        set_val_score(other, scores[1])
        assert run(["predict", "heads", "--target", "label", "--model", "model", "--text", "good"]) == 0
        out, err = capsys.readouterr()
        assert f"using {Path(best).name}: layer 0" in err
        assert "the best of 2" in err
        assert len(out.splitlines()) == 2
    assert run(["predict", "heads", "--model", "model", "--text", "good"]) == 2
    line = capsys.readouterr().err
    assert "name one with --target; got label, score" in line
    assert predict("heads", "good", target="label", model="model").labels.shape == (1,)
    with pytest.raises(SpecError, match="--target nope: heads has probes of label, score"):
        predict("heads", "good", target="nope", model="model")
    Path("empty").mkdir()
    with pytest.raises(SpecError, match="a folder with none"):
        predict("empty", "good", model="model")
    assert run(["predict", LABEL, SCORE, "--model", "model", "--text", "good"]) == 2
    assert "or their folder (heads)" in capsys.readouterr().err


def test_blank_texts_are_tagged_with_nothing(tmp_path, tiny_model):
    rows = [{"tokens": ["good", "film"], "tags": ["B-x", "O"]}, {"tokens": ["bad", "plot"], "tags": ["O", "B-x"]}] * 10
    (tmp_path / "w.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    extract(tiny_model, tmp_path / "w.jsonl", out=tmp_path / "w.h5", tokens=True).close()
    (path,) = save(run_probes([tmp_path / "w.h5"], ["tags"], options=ProbeOptions()), tmp_path / "heads")
    blank, found = tag_texts(path.parent, [" ", "good film"], model=tiny_model)
    assert (blank.text, blank.words, blank.tags, blank.entities) == (" ", (), (), ())
    assert len(found.words) == 2
    assert [tagged.text for tagged in tag_texts(path, "good film", model=tiny_model)] == ["good film"]


@pytest.mark.filterwarnings("ignore::probekit.ProbekitWarning")
def test_lists_and_numpys_numbers_as_arguments(here):
    plain = probe_layers("cache.h5", "label,score", layers="0,1", seeds=2)
    listed = probe_layers(
        "cache.h5",
        ["label", "score"],
        layers=np.array([0, 1]),
        seeds=np.int64(2),
        jobs=np.int32(1),
        pooling=["mean"],
    )
    pd.testing.assert_frame_equal(listed, plain)
    assert probe_layers("cache.h5", "label", layers=np.int64(2))["layer"].tolist() == [2]
    assert probe_layers("cache.h5", "label", layers=[-1], controls=["length"])["length_baseline"].notna().all()


@pytest.mark.parametrize(
    "wrong",
    [
        {"target": 5},
        {"target": [5]},
        {"target": []},
        {"target": None},
        {"layers": []},
        {"layers": [0.5]},
        {"layers": None},
        {"seeds": "2"},
        {"seeds": 1.5},
        {"seeds": True},
        {"jobs": None},
        {"probe": 5},
        {"pooling": [None]},
        {"controls": [1]},
        {"max_words": "many"},
    ],
)
def test_wrong_values_in_python_are_our_errors(here, wrong):
    with pytest.raises(SpecError):
        probe_layers("cache.h5", **{"target": "label", **wrong})


@pytest.mark.parametrize(
    "command",
    [
        ["probe", "cache.h5"],
        ["probe", "cache.h5", "--target", "label", "--jobs", "0"],
        ["probe", "cache.h5", "--target", "label,label"],
        ["probe", "cache.h5", "--target", "label", "--out", "nowhere/a.csv"],
        ["probe", "cache.h5", "--target", "label", "--shots", "x"],
        ["predict", "heads"],
        ["predict", "heads/none.skops", "--text", "a"],
        ["predict", LABEL, SCORE, "--text", "a"],
    ],
)
def test_a_mistake_in_the_options_loads_nothing_heavy(here, command):
    heavy = "{'torch', 'transformers', 'sklearn', 'pandas', 'h5py', 'numpy'}"
    code = f"import sys; from probekit.cli import run; assert run({command}) == 2; print({heavy} & set(sys.modules))"
    environment = {"PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout == "set()\n"
