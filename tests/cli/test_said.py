"""What a reader must be told comes through: where the tables go nowhere, where a run is interrupted, in the picture."""

from __future__ import annotations

import io
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from probekit import open_cache
from probekit.cli import run
from probekit.cli.progress import Bars
from tests.tiny import save_tiny_data

ROOT = str(Path(__file__).parent.parent.parent)


@pytest.fixture
def here(tmp_path, monkeypatch, tiny_model):
    monkeypatch.chdir(tmp_path)
    save_tiny_data(tmp_path / "train.tsv")
    assert run(["extract", str(tiny_model), "train.tsv", "--out", "c.h5", "--dtype", "float32"]) == 0
    return tmp_path


def test_warnings_come_through_where_nobody_reads_the_tables(here):
    command = f"{sys.executable} -m probekit probe c.h5 --target score --jobs 1 --out t.csv | true"
    environment = os.environ | {"PYTHONPATH": ROOT}
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=True, env=environment)
    assert "warning: score, mean, ridge:" in done.stderr
    assert "wrote t.csv" in done.stderr


def test_an_interrupted_bar_stays_where_it_is(monkeypatch):
    shown = io.StringIO()
    monkeypatch.setattr("probekit.cli.progress.screen", lambda **_: Console(file=shown, force_terminal=True, width=100))
    with pytest.raises(KeyboardInterrupt), Bars() as bars:  # noqa: PT012
        bars.stage("extracting", total=100, unit="tokens")
        bars.advance(20)
        raise KeyboardInterrupt
    assert "20%" in shown.getvalue()
    assert "100%" not in shown.getvalue()


def test_a_leak_is_in_the_picture(here, tiny_model):
    lines = Path("train.tsv").read_text().splitlines()
    parts = ["split", *(["train", "train", "dev", "test"] * 15)]
    Path("leak.tsv").write_text("\n".join(f"{line}\t{part}" for line, part in zip(lines, parts, strict=True)) + "\n")
    assert run(["extract", str(tiny_model), "leak.tsv", "--out", "l.h5"]) == 0
    for name, group in (("leak.svg", ["--group", "doc"]), ("none.svg", [])):
        assert run(["probe", "l.h5", "--target", "label", "--plot", name, "--jobs", "1", *group]) == 0
    drawn = {}
    for name in ("leak.svg", "none.svg"):
        drawn[name] = re.findall(r"LEAK: (\d+) groups of doc are in more than one part", Path(name).read_text())
    assert drawn == {"leak.svg": ["20"], "none.svg": []}


def test_workers_say_that_the_cache_was_replaced(here, tiny_model):
    """Raised while a task is unpickled, it would end the pool and be taken for a lack of memory."""
    import pickle

    with open_cache("c.h5", verify=True) as cache:
        sent = pickle.dumps(cache.layer)
    save_tiny_data(here / "other.tsv", n=40)
    assert run(["extract", str(tiny_model), "other.tsv", "--out", "d.h5", "--dtype", "float32"]) == 0
    shutil.move("d.h5", "c.h5")
    from probekit.errors import CacheError

    ask = pickle.loads(sent)
    with pytest.raises(CacheError, match="replaced or removed"):
        ask(1)


def test_true_and_false_in_any_spelling_are_two_classes_beside_gaps(here, tiny_model):
    lines = Path("train.tsv").read_text().splitlines()
    words = np.array(["True", "FALSE", "true", "false", ""])
    cells = ["liked", *words[np.arange(60) % 5]]
    Path("gaps.tsv").write_text("\n".join(f"{a}\t{b}" for a, b in zip(lines, cells, strict=True)) + "\n")
    assert run(["extract", str(tiny_model), "gaps.tsv", "--out", "g.h5"]) == 0
    with open_cache("g.h5") as cache:
        assert set(cache.column("liked")) == {"true", "false", ""}


def test_layers_that_are_not_there_name_those_of_the_cache(here, capsys):
    assert run(["probe", "c.h5", "--target", "label", "--layers", "99"]) == 2
    assert re.search(r"--layers 99: there are layers 0\.\.2; this cache has 0, 1, 2", capsys.readouterr().err)
