"""Whatever a command meets, it is one line: known kinds in their own words, others with the way to the traceback."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from probekit.cli import run
from probekit.cli.boundary import explain_error

OLD = Path(__file__).parent.parent / "old"


@pytest.fixture
def here(tmp_path, monkeypatch):
    shutil.copytree(OLD, tmp_path / "old")
    monkeypatch.chdir(tmp_path / "old")
    return tmp_path / "old"


def raising(error):
    def fail(*_arguments, **_options):
        raise error

    return fail


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (EOFError("no data left"), 1, "an unexpected EOFError: no data left; --debug shows"),
        (ZeroDivisionError("a\nb\x1b[31m"), 1, "an unexpected ZeroDivisionError: a b\\u001b[31m; --debug shows"),
        (RecursionError("too deep"), 1, "an unexpected RecursionError: too deep"),
        (MemoryError(), 1, "there is not enough memory"),
        (PermissionError(13, "Permission denied", "x.h5"), 2, "error: x.h5: Permission denied"),
        (OSError(5, "Input/output error", "x.h5"), 1, "error: x.h5: Input/output error"),
        (BrokenPipeError(32, "Broken pipe"), 1, "Broken pipe"),
        (SystemExit(0), 1, "an unexpected SystemExit"),
        (KeyboardInterrupt(), 130, "error: interrupted"),
    ],
)
def test_every_kind_of_error(here, capsys, monkeypatch, error, code, line):
    monkeypatch.setattr("probekit.evaluate.run.fit_layer", raising(error))
    assert run(["probe", "cache.h5", "--target", "label", "--jobs", "1"]) == code
    said = [said for said in capsys.readouterr().err.splitlines() if said != "probing ..."]
    assert len(said) == 1
    assert line in said[0]
    if "unexpected" in line:
        assert "probekit probe cache.h5 --target label --jobs 1, while probing:" in said[0]


def test_debug_shows_the_unexpected_too(here, monkeypatch):
    monkeypatch.setattr("probekit.evaluate.run.fit_layer", raising(EOFError()))
    with pytest.raises(EOFError):
        run(["probe", "cache.h5", "--target", "label", "--jobs", "1", "--debug"])


def test_debug_from_the_shell_keeps_the_exit_code(here):
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-m", "probekit", "inspect", "nothing.h5", "--debug"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("Traceback")
    assert "CacheError: nothing.h5: no such cache file" in done.stderr


def test_a_long_message_and_a_long_command_stay_a_line():
    line, code = explain_error(ValueError("x" * 10_000), ["probe", "y" * 10_000], ["probe"])
    assert code == 1
    assert len(line) < 700
