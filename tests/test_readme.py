"""The README's commands and code, run as they stand there."""

from __future__ import annotations

import glob
import json
import re
import shlex
from pathlib import Path

import pytest

from probekit.cli import run
from probekit.spec import TABLE_COLUMNS
from tests.tiny import tiny_texts

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
HUB_MODEL = "sentence-transformers/all-MiniLM-L6-v2"


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The files that the README speaks of."""
    folder = tmp_path_factory.mktemp("readme")
    for seed, (name, n) in enumerate({"train": 80, "dev": 30, "test": 30}.items()):
        texts, labels = tiny_texts(n, seed=seed)
        rows = [f"{t}\t{y}\t{i % 5 + 0.5}\tauthor{i % 8}" for i, (t, y) in enumerate(zip(texts, labels, strict=True))]
        (folder / f"{name}.tsv").write_text("\n".join(["text\tlabel\tstars\tauthor", *rows, ""]))
    names = {"John Smith": "person", "Google": "organisation", "New York": "location"}
    lines = []
    for i in range(60):
        (name, kind), verb = list(names.items())[i % 3], ["is", "in", "at"][i % 2]
        first, *more = name.split()
        lines += [f"{first}\tB-{kind}", *(f"{word}\tI-{kind}" for word in more), f"{verb}\tO", f"film{i % 7}\tO", ""]
    (folder / "entities.conll").write_text("\n".join(lines))
    spans = [{"text": f"the {w} is fine", "start": 4, "end": 8, "type": t} for w, t in (("film", "a"), ("plot", "b"))]
    (folder / "spans.jsonl").write_text("".join(json.dumps(span) + "\n" for span in spans * 10))
    return folder


def test_code_blocks_run(folder, monkeypatch, tiny_model, capsys):
    monkeypatch.chdir(folder)
    (yaml,) = blocks("yaml")
    (folder / "heads.yaml").write_text(yaml)
    for block in blocks("bash"):
        for line in block.strip().splitlines():
            words = [str(tiny_model) if word == HUB_MODEL else word for word in shlex.split(line, comments=True)]
            command = [name for word in words for name in (sorted(glob.glob(word)) if "*" in word else [word])]
            assert command[0] == "probekit"
            assert run(command[1:]) == 0, line
    for name in ("reviews.h5", "layers.csv", "layers.json", "layers.png", "grouped.csv", "tuned", "from-file"):
        assert (folder / name).exists()
    code = "\n".join(blocks("python"))
    # (The tiny model has two layers, of which the deepest stands for layer 3, and fewer than 50 dimensions.)
    code = code.replace(HUB_MODEL, str(tiny_model)).replace("cache.layer(3,", "cache.layer(2,").replace("(50)", "(5)")
    exec(compile(code, "README.md", "exec"), {})
    assert "selected" in capsys.readouterr().out


def test_every_column_of_the_table_is_explained():
    explained = set()
    for line in README.splitlines():
        if line.startswith("| `"):
            explained |= set(re.findall(r"`([a-z0-9_]+)`", line.split("|")[1]))
    assert explained == set(TABLE_COLUMNS)
