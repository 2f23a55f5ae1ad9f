"""An extraction killed anywhere and resumed gives the bytes of an undisturbed one; a cache is never reused wrongly."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import h5py
import numpy as np
import pytest

from probekit import extract, open_cache
from probekit.errors import CacheError, StaleCacheError
from probekit.spec import Silent
from probekit.store import partial_path, stored_spec
from tests.tiny import save_tiny_bert, save_tiny_data

WINDOW = 8
WARM = ["probekit.inputs", "transformers.models.bert.modeling_bert", "transformers.tokenization_utils_tokenizers"]


def small_windows():
    """Many windows for little data. Patched by hand, since it must hold in child processes too."""
    from probekit.extraction import plan

    plan.cut_windows.__kwdefaults__["window_rows"] = WINDOW


class Killed(Silent):
    """Kills the process a moment after so many reports of progress, or never."""

    def __init__(self, reports: int | None, delay: float) -> None:
        self.left, self.delay = reports, delay

    def advance(self, done):  # noqa: ARG002
        if self.left is None:
            return
        self.left -= 1
        if self.left == 0:
            threading.Timer(self.delay, os.kill, (os.getpid(), signal.SIGKILL)).start()
        if self.left < 0:  # the kill is on its way: let it hit something
            time.sleep(self.delay / 2)


def extract_killed(model: Path, data: Path, out: Path, reports: int | None = None, delay: float = 0.0) -> None:
    small_windows()
    extract(
        model, data, out=out, pooling="mean,last", batch_tokens=32, threads=1, listener=Killed(reports, delay)
    ).close()


@pytest.fixture
def windows(monkeypatch):
    from probekit.extraction import plan

    monkeypatch.setitem(plan.cut_windows.__kwdefaults__, "window_rows", WINDOW)


@pytest.fixture(scope="module")
def spawner():
    """Children forked from a server that has loaded torch but never run it: a tenth of a second each."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.extraction.test_resume", "probekit.extraction.reader", *WARM])
    return context


def contents(path):
    found = {}
    with h5py.File(path) as file:
        file.visititems(lambda name, item: found.update({name: item[()]}) if isinstance(item, h5py.Dataset) else None)
    return found


def assert_same_bytes(a, b):
    a, b = contents(a), contents(b)
    assert a.keys() == b.keys()
    for name, values in a.items():
        assert np.asarray(values).dtype == np.asarray(b[name]).dtype
        if values.dtype.kind == "O":
            assert values.tolist() == b[name].tolist(), name
        else:
            assert values.tobytes() == b[name].tobytes(), name


@pytest.mark.parametrize("n_kills", [pytest.param(20, marks=pytest.mark.slow)])
def test_kills_at_random_moments(tmp_path, tiny_model, spawner, n_kills):
    data = save_tiny_data(tmp_path / "train.tsv", n=200)
    whole, killed = tmp_path / "whole.h5", tmp_path / "killed.h5"
    assert extract_in(spawner, tiny_model, data, whole) == 0
    rng = np.random.default_rng(0)
    kills, progress = 0, []
    while kills < n_kills:
        # (The first reports come from tokenising, before there is a file.)
        code = extract_in(spawner, tiny_model, data, killed, int(rng.integers(1, 25)), float(rng.uniform(0.001, 0.02)))
        assert code in (0, -signal.SIGKILL)
        kills += code != 0
        if killed.exists():  # finished before its turn to be killed: look at it and begin again
            assert_same_bytes(whole, killed)
            open_cache(killed).close()
            killed.unlink()
        else:
            with pytest.raises(CacheError):
                open_cache(killed)
            stored = stored_spec(partial_path(killed)) if partial_path(killed).exists() else None
            progress.append(stored.windows_done if stored else 0)
    assert extract_in(spawner, tiny_model, data, killed) == 0
    assert_same_bytes(whole, killed)
    assert len(set(progress)) > 3, progress  # the kills hit different moments, and work was kept
    assert sorted(path.name for path in tmp_path.iterdir()) == ["killed.h5", "train.tsv", "whole.h5"]


def extract_in(spawner, *arguments):
    """The exit code of an extraction in a process of its own."""
    process = spawner.Process(target=extract_killed, args=arguments)
    process.start()
    process.join()
    return process.exitcode


def test_ctrl_c_keeps_the_windows_and_says_how_to_go_on(tmp_path, tiny_model, windows, capsys, monkeypatch):
    from probekit.cli import run
    from probekit.cli.progress import Bars

    data = save_tiny_data(tmp_path / "train.tsv", n=100)
    whole, stopped = tmp_path / "whole.h5", tmp_path / "stopped.h5"
    command = ["extract", str(tiny_model), str(data), "--batch-tokens", "32", "--threads", "1", "--out"]
    assert run([*command, str(whole)]) == 0
    advance, calls = Bars.advance, []

    def interrupted(self, done):
        calls.append(done)
        if self._stage == "extracting" and len(calls) > 30:
            raise KeyboardInterrupt
        advance(self, done)

    with monkeypatch.context() as patch:
        patch.setattr(Bars, "advance", interrupted)
        assert run([*command, str(stopped)]) == 130
    (error,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: interrupted")]
    kept = stored_spec(partial_path(stopped)).windows_done
    assert 0 < kept < 13
    assert f"{kept} of 13 windows are kept in {partial_path(stopped)}; run the same command again" in error
    assert not stopped.exists()
    assert run([*command, str(stopped)]) == 0
    assert f"{13 - kept} of 13 windows to do" in capsys.readouterr().err
    assert_same_bytes(whole, stopped)


def test_the_same_request_finds_its_cache_without_torch(tmp_path, tiny_model, tiny_data):
    out = tmp_path / "cache.h5"
    extract(tiny_model, tiny_data, out=out).close()
    before = out.stat()
    code = (
        "import sys; from probekit.cli import run\n"
        "assert run(sys.argv[1:]) == 0\n"
        "assert not {'torch', 'transformers', 'sklearn'} & set(sys.modules), 'slow imports'"
    )
    command = ["extract", str(tiny_model), str(tiny_data), "--out", str(out)]
    done = subprocess.run([sys.executable, "-c", code, *command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "nothing to do" in done.stderr
    assert out.stat().st_mtime_ns == before.st_mtime_ns


CHANGES = {
    "max_length": {"max_length": 9},
    "poolings": {"pooling": "max"},
    "layers": {"layers": "0,1"},
    "store_dtype": {"store_dtype": "float16"},
    "dtype": {"dtype": "float16"},
    "batch_tokens": {"batch_tokens": 77},
    "store_text": {"store_text": False},
}


@pytest.mark.parametrize("field", CHANGES)
@pytest.mark.parametrize("finished", [True, False])
def test_another_request_never_reuses_a_cache(tmp_path, tiny_model, tiny_data, field, finished):
    out = tmp_path / "cache.h5"
    extract(tiny_model, tiny_data, out=out, dtype="float32").close()
    if not finished:
        out.rename(partial_path(out))
    where = out if finished else partial_path(out)
    before = where.read_bytes()
    with pytest.raises(StaleCacheError, match=rf"^{field}: .*--overwrite"):
        extract(tiny_model, tiny_data, **({"out": out, "dtype": "float32"} | CHANGES[field]))
    assert where.read_bytes() == before
    with extract(
        tiny_model, tiny_data, **({"out": out, "dtype": "float32", "overwrite": True} | CHANGES[field])
    ) as cache:
        assert cache.spec[field] != stored_value(before, tmp_path, field)


def stored_value(raw, folder, field):
    (folder / "old.h5").write_bytes(raw)
    return stored_spec(folder / "old.h5").spec[field]


def test_other_texts_labels_or_weights_never_reuse_a_cache(tmp_path, tiny_model, tiny_data):
    out = tmp_path / "cache.h5"
    extract(tiny_model, tiny_data, out=out).close()
    text = tiny_data.read_text()
    edits = {"texts": text.replace("good", "fine", 1), "columns": text.replace("\tpos", "\tneg", 1)}
    for field, edited in edits.items():
        changed = tmp_path / "train.tsv"
        changed.write_text(edited)
        with pytest.raises(StaleCacheError, match=f"^{field}: "):
            extract(tiny_model, changed, out=out)
    namesake = tmp_path / tiny_model.parent.name / tiny_model.name
    namesake.parent.mkdir()
    other = save_tiny_bert(namesake, seed=1)
    with pytest.raises(StaleCacheError, match=r"^revision: "):
        extract(other, tiny_data, out=out)


def test_a_renamed_data_file_is_still_the_same_data(tmp_path, tiny_model, tiny_data):
    out = tmp_path / "cache.h5"
    extract(tiny_model, tiny_data, out=out).close()
    renamed = tmp_path / "elsewhere.tsv"
    renamed.write_bytes(tiny_data.read_bytes())
    stamp = out.stat().st_mtime_ns
    extract(tiny_model, renamed, out=out).close()
    assert out.stat().st_mtime_ns == stamp
