"""Small inputs that went wrong in use, kept beside the checkout: each has the outcome that its README names."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from probekit import open_cache
from probekit.cli import run
from tests.packaged import minilm

CASES = Path(__file__).parent.parent.parent / "shared" / "cases"
pytestmark = pytest.mark.skipif(not CASES.exists(), reason="no ../shared/cases beside the checkout")


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    environment = os.environ | {"MINILM": str(minilm())}
    subprocess.run([sys.executable, CASES / "make_models.py", folder], check=True, env=environment, capture_output=True)
    return folder


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def extract(model, *data, options=()):
    command = ["extract", str(model), *(str(CASES / name) for name in data), "--out", "c.h5", "--layers", "-1"]
    return run([*command, *options])


def error(capsys):
    """The one line on stderr that says what was wrong."""
    out, err = capsys.readouterr()
    (line,) = [line for line in err.splitlines() if line.startswith("error: ")]
    assert "Traceback" not in out + err
    return line


REFUSED = {
    "w_module_prefix": (r"weights", ()),
    "w_layer_missing": (r"weights.*layer\.5", ()),
    "t_no_tokenizer": (r"tokenizer", ()),
    "adapter_beside_base": (r"adapter", ()),
    "w_lfs_pointer": (r"LFS", ()),
    "w_truncated": (r"w_truncated", ()),
    "w_size_mismatch": (r"w_size_mismatch", ()),
    "chat_raise": (r"a system message is needed", ("--chat-template",)),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_broken_model_is_refused_in_one_line(here, models, capsys, name):
    import re

    message, options = REFUSED[name]
    assert extract(models / name, "s80.tsv", options=options) == 2
    assert re.search(message, error(capsys))
    assert not list(here.glob("c.h5*"))


@pytest.mark.parametrize("name", ["c_pad_minus_one", "c_return_dict_false"])
def test_what_works_in_transformers_works_here(here, models, name):
    assert extract(models / name, "s80.tsv", options=["--dtype", "float32"]) == 0
    with open_cache("c.h5") as found:
        states = found.layer(-1)
        Path("c.h5").rename("found.h5")
    assert extract(minilm(), "s80.tsv", options=["--dtype", "float32"]) == 0
    with open_cache("c.h5") as plain:
        np.testing.assert_allclose(states, plain.layer(-1), atol=1e-5)


def test_a_template_with_a_clock(here, models, capsys):
    assert extract(models / "chat_date", "s80.tsv", options=["--chat-template"]) == 0
    before = Path("c.h5").read_bytes()
    import time

    time.sleep(1.1)
    assert extract(models / "chat_date", "s80.tsv", options=["--chat-template"]) == 0
    assert "nothing to do" in capsys.readouterr().err
    assert Path("c.h5").read_bytes() == before


def test_a_token_beyond_the_vocabulary(here, models, capsys):
    assert extract(models / "t_added_tokens", "added_token.csv") == 2
    line = error(capsys)
    assert "[ent]" in line
    assert "added_token.csv" in line


@pytest.fixture(scope="module")
def probe(models, tmp_path_factory):
    folder = tmp_path_factory.mktemp("probe")
    cache, heads = folder / "c.h5", folder / "heads"
    assert run(["extract", str(minilm()), str(CASES / "s80.tsv"), "--out", str(cache), "--layers", "-1"]) == 0
    assert run(["probe", str(cache), "--target", "label", "--save-probes", str(heads), "--jobs", "1"]) == 0
    return heads


def predicted(probe, name):
    with (CASES / name).open("rb") as lines:
        command = [sys.executable, "-m", "probekit", "predict", str(probe), "-", "--model", str(minilm())]
        root = str(Path(__file__).parent.parent)
        environment = os.environ | {"PYTHONPATH": root}
        return subprocess.run(command, stdin=lines, capture_output=True, text=True, check=False, env=environment)


def test_lines_end_at_line_feeds_alone(probe):
    done = predicted(probe, "separators.txt")
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 1 + 3


def test_lines_that_are_no_utf8(probe):
    done = predicted(probe, "latin1.txt")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("error: ")
    assert "UTF-8" in done.stderr


def test_parquet_of_a_hub_dataset(here):
    files = [f"glue_parquet/{part}.parquet" for part in ("train", "validation", "test")]
    assert extract(minilm(), *files) == 0
    with open_cache("c.h5") as cache:
        labels, parts = cache.column("label"), cache.column("split")
        assert set(labels[parts == "test"]) == {""}
        assert not set(labels[parts == "train"]) & {"", "0", "1"}
    assert run(["probe", "c.h5", "--target", "label", "--out", "t.csv", "--jobs", "1"]) == 0
    assert pd.read_csv("t.csv")["n_classes"].tolist() == [2]


def test_ids_that_restart(here):
    assert extract(minilm(), "ids_restart/train.csv", "ids_restart/test.csv") == 0
    with open_cache("c.h5") as cache:
        assert len(set(cache.ids)) == len(cache)


def test_parts_by_folder(here):
    assert extract(minilm(), "by_folder/train/data.tsv", "by_folder/test/data.tsv") == 0
    with open_cache("c.h5") as cache:
        assert set(cache.column("split")) == {"train", "test"}
    assert run(["probe", "c.h5", "--target", "label", "--jobs", "1"]) == 0


def test_a_tsv_that_pandas_quoted(here):
    assert extract(minilm(), "pandas_quotes.tsv") == 0
    with open_cache("c.h5") as cache:
        assert cache.texts[0] == 'He said "hi" to me'


def test_a_label_with_a_blank_behind_it(here, capsys):
    assert extract(minilm(), "label_trailing_space.csv") == 0
    assert run(["probe", "c.h5", "--target", "label", "--out", "t.csv", "--jobs", "1"]) == 0
    said = capsys.readouterr().err
    assert pd.read_csv("t.csv")["n_classes"].tolist() == [2] or ("'pos'" in said and "'pos '" in said)


def test_decimal_commas(here, capsys):
    assert extract(minilm(), "comma_decimals.csv") == 0
    capsys.readouterr()
    assert run(["probe", "c.h5", "--target", "score", "--jobs", "1"]) == 2
    line = error(capsys)
    assert "point" in line
    assert "comma" in line


def test_tags_without_some_of_their_tags(here, capsys):
    assert extract(minilm(), "tags_with_null.jsonl") == 0
    said = capsys.readouterr().err
    assert "ner_tags" in said
    assert "null" in said


def test_bare_bio_tags_are_entities(here):
    assert extract(minilm(), "bare_bio.conll", options=["--tokens"]) == 0
    assert run(["probe", "c.h5", "--target", "tags", "--out", "t.csv", "--jobs", "1"]) == 0
    assert pd.read_csv("t.csv")["metric"].tolist() == ["entity_f1"]


def test_blanks_are_treated_as_the_template_treats_them(here, models):
    from transformers import AutoTokenizer

    texts = ["a fine film", "  a dull one  "]
    pd.DataFrame({"text": texts}).to_json("t.jsonl", orient="records", lines=True)
    command = ["extract", str(models / "chat_trim"), "t.jsonl", "--out", "c.h5", "--layers", "-1", "--tokens"]
    assert run([*command, "--chat-template"]) == 0
    tokenizer = AutoTokenizer.from_pretrained(models / "chat_trim")
    with open_cache("c.h5") as cache:
        for i, text in enumerate(texts):
            message = [{"role": "user", "content": text}]
            expected = tokenizer.apply_chat_template(message, add_generation_prompt=True, tokenize=False)
            ids = tokenizer(expected, add_special_tokens=False)["input_ids"]
            assert cache.tokens(-1).ids(i).tolist() == ids
