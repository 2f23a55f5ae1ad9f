"""The data beside the checkout, with their traps."""

from __future__ import annotations

import subprocess

import numpy as np
import pytest

from probekit.inputs.read import read_examples
from tests.inputs.cases import DATA, needs_data

pytestmark = needs_data


@pytest.mark.parametrize("part", ["train", "dev", "test"])
def test_sst2_keeps_every_row(part):
    path = DATA / "sst2" / f"{part}.tsv"
    # A header line more, and a line end at the end less.
    lines = int(subprocess.run(["wc", "-l", path], capture_output=True, check=True, text=True).stdout.split()[0])
    examples = read_examples([path])
    assert len(examples) == lines
    assert [*examples.columns] == ["label"]
    assert examples.columns["label"].dtype == np.int64
    assert set(examples.columns["label"]) == {0, 1}
    raw = path.read_text(encoding="utf-8").split("\n")[1:]
    assert [f"{text}\t{label}" for text, label in zip(examples.texts, examples.columns["label"], strict=True)] == raw


def test_sst2_bare_quotes_are_text():
    examples = read_examples([DATA / "sst2" / "train.tsv"])
    grep = subprocess.run(["grep", "-c", '"', DATA / "sst2" / "train.tsv"], capture_output=True, check=False, text=True)
    quoted = [text for text in examples.texts if '"' in text]
    assert len(quoted) == int(grep.stdout)
    for text in quoted:
        assert subprocess.run(["grep", "-qF", "--", text, DATA / "sst2" / "train.tsv"], check=False).returncode == 0


def test_sst2_splits_together():
    examples = read_examples([DATA / "sst2" / f"{part}.tsv" for part in ("train", "dev", "test")])
    assert examples.source == "train.tsv, dev.tsv, test.tsv"
    names, counts = np.unique(examples.columns["split"], return_counts=True)
    assert dict(zip(names, counts.tolist(), strict=True)) == {"train": 6920, "dev": 872, "test": 1821}
    assert examples.ids.tolist() == [str(row) for row in range(9613)]


def test_emobank():
    examples = read_examples([DATA / "emobank" / "emobank.csv"])
    assert len(examples) == 10_062
    assert examples.text_column == "text"
    assert len(set(examples.ids)) == 10_062
    assert {name: values.dtype.kind for name, values in examples.columns.items()} == {
        "split": "O",
        "V": "f",
        "A": "f",
        "D": "f",
    }
    assert examples.ids[0] == "110CYL068_1036_1079"
    assert examples.texts[0] == 'Remember what she said in my last letter? "'
    assert [examples.columns[name][0] for name in "VAD"] == [3.0, 3.0, 3.2]
    assert all(np.isfinite(examples.columns[name]).all() for name in "VAD")
