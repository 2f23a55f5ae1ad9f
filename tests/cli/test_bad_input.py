"""Mistakes a user makes: one line that says what, what is allowed and what it got; exit code 2; nothing written."""

from __future__ import annotations

import os
import shutil

import h5py
import numpy as np
import pytest

from probekit.cli import run
from tests.tiny import save_tiny_data


@pytest.fixture(scope="module")
def cache(tmp_path_factory, tiny_model, tiny_data):
    out = tmp_path_factory.mktemp("cache") / "cache.h5"
    assert run(["extract", str(tiny_model), str(tiny_data), "--out", str(out)]) == 0
    return out


@pytest.fixture(scope="module")
def other(tmp_path_factory, tiny_model):
    folder = tmp_path_factory.mktemp("other")
    data = save_tiny_data(folder / "train.tsv", n=40)
    assert run(["extract", str(tiny_model), str(data), "--out", str(folder / "other.h5")]) == 0
    return folder / "other.h5"


@pytest.fixture
def here(tmp_path, monkeypatch, tiny_model, tiny_data, cache, other):
    """A folder with a model, data and a finished cache under short names."""
    monkeypatch.chdir(tmp_path)
    os.symlink(tiny_model, "model")
    shutil.copy(tiny_data, "train.tsv")
    shutil.copy(cache, "cache.h5")
    shutil.copy(other, "other.h5")
    (tmp_path / "notes.xlsx").write_bytes(b"PK")
    (tmp_path / "old.csv").write_text("mine")
    (tmp_path / "heads").mkdir()
    (tmp_path / "heads" / "old.skops").write_bytes(b"mine")
    return tmp_path


def files(folder):
    return sorted((str(path.relative_to(folder)), path.stat().st_mtime_ns) for path in folder.rglob("*"))


EXTRACT = "extract model train.tsv --out new.h5"
PROBE = "probe cache.h5 --target label"
BAD = {
    "no such file": ("extract model trian.tsv --out new.h5", r"trian\.tsv.*(did you mean|train\.tsv)"),
    "unknown kind of file": ("extract model notes.xlsx --out new.h5", r"notes\.xlsx.*\.csv.*\.tsv"),
    "no such column": (f"{EXTRACT} --text txt", r"column 'txt'.*text, label, score, doc.*did you mean 'text'"),
    "no such model": ("extract ./modle train.tsv --out new.h5", r"modle.*no such file or folder"),
    "folder without a model": ("extract . train.tsv --out new.h5", r"config\.json"),
    "model not on this machine": ("extract org/nothing train.tsv --out new.h5", r"org/nothing.*hub"),
    "layer too deep": (f"{EXTRACT} --layers 40", r"--layers 40: there are layers 0\.\.2"),
    "layers that are no numbers": (f"{EXTRACT} --layers top", r"--layers.*got 'top'"),
    "unknown pooling": (f"{EXTRACT} --pooling average", r"--pooling average: one of mean, last, first, max"),
    "pooling twice": (f"{EXTRACT} --pooling mean,mean", r"--pooling.*twice"),
    "unknown dtype": (f"{EXTRACT} --dtype float8", r"--dtype.*float32.*got 'float8'"),
    "unknown storage dtype": (
        f"{EXTRACT} --store-dtype int8",
        r"--store-dtype int8: one of float32, float16, bfloat16",
    ),
    "no such device": (f"{EXTRACT} --device tpu9", r"--device.*'tpu9'"),
    "too long": (f"{EXTRACT} --max-length 9999", r"--max-length: this model reads 1 to 32 tokens; got 9999"),
    "too short": (f"{EXTRACT} --max-length 2", r"--max-length.*2 special tokens"),
    "revision of a folder": (f"{EXTRACT} --revision main", r"--revision.*hub model"),
    "batch of nothing": (f"{EXTRACT} --batch-tokens 0", r"--batch-tokens 0: at least 1"),
    "no folder for the cache": ("extract model train.tsv --out nowhere/new.h5", r"--out nowhere/new\.h5.*must exist"),
    "cache made otherwise": (
        "extract model train.tsv --out cache.h5 --max-length 9",
        r"max_length.*32, now 9.*--overwrite",
    ),
    "not a cache": ("probe train.tsv --target label", r"train\.tsv.*not a probekit cache"),
    "no such cache": ("probe cash.h5 --target label", r"cash\.h5: no such cache"),
    "no such target": ("probe cache.h5 --target lable", r"--target lable.*label.*did you mean 'label'"),
    "target twice": ("probe cache.h5 --target label,label", r"--target.*twice"),
    "layer not stored": (f"{PROBE} --layers 7", r"--layers 7.*0\.\.2"),
    "pooling not stored": (f"{PROBE} --pooling max", r"--pooling max: the cache cache\.h5 has mean"),
    "unknown probe": (f"{PROBE} --probe svm", r"--probe svm: one of logistic, ridge"),
    "probe of the wrong kind": (f"{PROBE} --probe ridge", r"--probe ridge.*classification.*logistic"),
    "text as numbers": (f"{PROBE} --task regression", r"column 'label'.*numbers"),
    "unknown task": (f"{PROBE} --task ranking", r"--task.*ranking"),
    "no such split column": (f"{PROBE} --split part", r"--split part"),
    "labels as split": (f"{PROBE} --split label", r"split column 'label'.*train.*'neg'"),
    "fraction too large": (f"{PROBE} --split 1.5", r"--split 1\.5.*0\.5"),
    "no such group": (f"{PROBE} --group author", r"--group author"),
    "no seeds": (f"{PROBE} --seeds 0", r"--seeds 0: at least 1"),
    "no jobs": (f"{PROBE} --jobs 0", r"--jobs 0: at least 1"),
    "table in the way": (f"{PROBE} --out old.csv", r"old\.csv.*--overwrite"),
    "table that its JSON would overwrite": (f"{PROBE} --out a.json", r"--out a\.json: must end in \.csv"),
    "probes in the way": (f"{PROBE} --save-probes heads", r"--save-probes heads: is not empty"),
    "other texts": (
        "extract model train.tsv --out other.h5",
        r"^error: texts: the cache other\.h5 was made from other texts;",
    ),
    "no folder for the table": (f"{PROBE} --out nowhere/a.csv", r"nowhere/a\.csv.*must exist"),
    "picture of an unknown kind": (f"{PROBE} --plot curves.doc", r"curves\.doc.*\.png"),
    "unknown option": (f"{EXTRACT} --layer 3", r"--layer"),
    "unknown command": ("extrakt model", r"extrakt"),
    "missing argument": ("extract model", r"Missing"),
    "quantised to nothing": (f"{EXTRACT} --quantize 3bit", r"--quantize 3bit: 8bit or 4bit"),
    "no name for the cache": ("extract model train.tsv", r"--out: names the cache to make"),
    "number expected": (f"{EXTRACT} --max-length many", r"--max-length.*many|--max-length.*integer"),
}


@pytest.mark.parametrize("name", BAD)
def test_one_line_exit_2_nothing_written(here, capsys, name):
    command, message = BAD[name]
    before = files(here)
    code = run(command.split())
    out, err = capsys.readouterr()
    lines = [line for line in err.splitlines() if line.startswith("error: ")]
    assert (code, out) == (2, ""), err
    assert len(lines) == 1
    assert "Traceback" not in err
    import re

    assert re.search(message, lines[0]), lines[0]
    assert files(here) == before


@pytest.mark.parametrize(
    ("content", "message"),
    {
        "empty text": (b"text\tlabel\ngood film\tpos\n\tneg\n", r"row 2.*column 'text'"),
        "empty file": (b"", r"data\.tsv"),
        "header only": (b"text\tlabel\n", r"data\.tsv.*row"),
        "not UTF-8": ("text\tlabel\ncaf\xe9\tpos\n".encode("latin-1"), r"data\.tsv.*UTF-8"),
        "ragged": (b"text\tlabel\ngood\tpos\nbad\n", r"data\.tsv.*3"),
        "duplicate ids": (b"id\ttext\n7\tgood\n7\tbad\n", r"id.*7"),
        "NUL": (b"text\tlabel\ngo\0od\tpos\n", r"NUL"),
    }.values(),
    ids=["empty text", "empty file", "header only", "not UTF-8", "ragged", "duplicate ids", "NUL"],
)
def test_bad_data(here, capsys, content, message):
    import re

    (here / "data.tsv").write_bytes(content)
    before = files(here)
    code = run(["extract", "model", "data.tsv", "--out", "new.h5"])
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert code == 2
    assert re.search(message, line), line
    assert files(here) == before


def test_labels_that_are_all_missing_are_said_at_probing(here, capsys):
    (here / "data.tsv").write_text("text\tlabel\ngood\t\nbad\t\nfine\t\n")
    assert run(["extract", "model", "data.tsv", "--out", "new.h5"]) == 0
    capsys.readouterr()
    assert run(["probe", "new.h5", "--target", "label"]) == 2
    assert "column 'label': at least one row with a label; got none in 3 rows" in capsys.readouterr().err


def test_debug_shows_the_traceback(here):
    from probekit.errors import CacheError

    with pytest.raises(CacheError):
        run(["inspect", "nothing.h5", "--debug"])


def test_verify_finds_a_changed_byte(here, capsys):
    assert run(["verify", "cache.h5"]) == 0
    assert "all as they were sealed" in capsys.readouterr().out
    with h5py.File("cache.h5") as file:
        offset = file["pooled/mean/001"].id.get_offset()
    with open("cache.h5", "r+b") as raw:
        raw.seek(offset + 5)
        raw.write(b"\xff")
    assert run(["verify", "cache.h5"]) == 2
    assert "changed: /pooled/mean/001" in capsys.readouterr().err


def test_a_value_that_does_not_fit_is_an_error_with_layer_and_row(here, capsys, tiny_model):
    import torch
    from transformers import BertModel

    model = BertModel.from_pretrained(tiny_model)
    with torch.no_grad():
        model.encoder.layer[0].output.LayerNorm.weight.fill_(np.float32(1e6))
    shutil.copytree(tiny_model, "huge")
    model.save_pretrained("huge")
    assert run(["extract", "huge", "train.tsv", "--out", "new.h5", "--store-dtype", "float16"]) == 1
    err = capsys.readouterr().err
    assert "layer 1, pooling 'mean', row 1" in err
    assert "float16 ends at 65504" in err


def test_an_estimate_writes_nothing(here, capsys):
    before = files(here)
    assert run(["extract", "model", "train.tsv", "--estimate"]) == 0
    out = capsys.readouterr().out
    assert "60 (0 would be cut)" in out
    assert "tokens/s in a trial" in out
    assert "about 0 min 0" in out
    assert files(here) == before
