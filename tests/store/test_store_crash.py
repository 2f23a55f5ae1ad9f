"""Kills, full disks and torn ends: what was written stays, and the result is the same bytes."""

from __future__ import annotations

import errno
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import probekit
from probekit.errors import CacheError, DiskError
from probekit.store import creation, describe, open_cache, open_writer, verify
from probekit.store import writer as writer_module
from tests.store import store_cases
from tests.store.store_cases import (
    SPEC,
    killable_layout,
    make_examples,
    make_layout,
    make_states,
    write_all,
)

DISK_USAGE = shutil.disk_usage
PACKAGE_ROOT = Path(probekit.__file__).parents[1]


@pytest.fixture
def write_and_kill():
    """``(path, seconds)`` -> (exit code, seconds it ran) of a process that writes ``path``."""
    process = subprocess.Popen(
        [sys.executable, store_cases.__file__],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(PACKAGE_ROOT), "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
    )

    def run(path: Path, seconds: float) -> tuple[int, float]:
        print(seconds, path, file=process.stdin, flush=True)
        code, took = process.stdout.readline().split()
        return int(code), float(took)

    with process:
        yield run
        process.stdin.close()


def test_kill_at_any_moment_and_resume_gives_the_same_bytes(tmp_path, write_and_kill):
    whole = tmp_path / "whole.h5"
    code, duration = write_and_kill(whole, 60)
    assert code == 0
    rng = random.Random(5)
    kills = rounds = 0
    left_at = set()
    while kills < 20:
        path = tmp_path / f"killed{rounds}.h5"
        partial = Path(f"{path}.partial")
        rounds += 1
        while not path.exists():
            code, _ = write_and_kill(path, rng.uniform(0, duration))
            assert code in (0, -signal.SIGKILL)
            kills += code == -signal.SIGKILL
            if path.exists():
                assert describe(path).sealed  # never half-written under its final name
                assert verify(path).ok
                continue
            assert code == -signal.SIGKILL
            with pytest.raises(CacheError, match=r"no such cache|unfinished"):
                open_cache(path)
            if partial.exists():
                # The unfinished one is always whole enough to open.
                left_at.add(describe(path).windows_done)
        # Not only the datasets: the whole file.
        assert path.read_bytes() == whole.read_bytes()
    # The kills did fall into the work, at many places, and the work went on from there.
    assert len(left_at) > 5
    assert verify(whole).ok


def test_the_unfinished_file_has_its_name_only_once_it_is_whole(tmp_path, monkeypatch):
    path = tmp_path / "c.h5"
    seen = []
    last_step = creation._write_checksums
    monkeypatch.setattr(
        creation, "_write_checksums", lambda file: (seen.append(sorted(os.listdir(tmp_path))), last_step(file))
    )
    write_all(path, make_layout(10))
    ((building, lock),) = seen
    assert building.startswith("c.h5.partial.creating.")
    assert lock == "c.h5.partial.lock"


def test_the_space_of_a_killed_creation_is_free_again(tmp_path, monkeypatch):
    left = tmp_path / "c.h5.partial.creating"
    left.write_bytes(b"x" * 1000)
    seen = []
    monkeypatch.setattr("shutil.disk_usage", lambda path: (seen.append(left.exists()), DISK_USAGE(path))[1])
    write_all(tmp_path / "c.h5", make_layout(10))
    assert seen == [False]
    assert os.listdir(tmp_path) == ["c.h5"]


def test_windows_in_any_order_and_twice_give_the_same_file(tmp_path):
    layout = killable_layout()
    n = len(layout.windows)
    write_all(tmp_path / "a.h5", layout)
    write_all(tmp_path / "b.h5", layout, order=[3, *reversed(range(n)), 0])
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()


def test_a_kill_between_sealing_and_renaming_is_finished_by_the_next_run(tmp_path, monkeypatch):
    layout = make_layout(10)
    path = tmp_path / "c.h5"

    rename = os.replace

    def killed(source: Path, target: Path) -> None:
        if Path(target) == path:
            raise KeyboardInterrupt
        rename(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            write_all(path, layout)
    assert not path.exists()
    assert describe(path).sealed
    with pytest.raises(CacheError, match="unfinished"):
        open_cache(path)
    write_all(path, layout)
    assert verify(path).ok


def test_the_mark_follows_the_data(tmp_path, monkeypatch):
    """What a power cut could leave behind is decided by the order of writes and syncs."""
    layout = make_layout(10, poolings=("mean",))
    calls: list[object] = []
    with open_writer(tmp_path / "c.h5", spec=SPEC, provenance={}, layout=layout, examples=make_examples(10)) as writer:
        pwrite, sync = os.pwrite, writer_module.sync_data
        monkeypatch.setattr(os, "pwrite", lambda fd, data, at: (calls.append(len(data)), pwrite(fd, data, at))[1])
        monkeypatch.setattr(writer_module, "sync_data", lambda fd: (calls.append("sync"), sync(fd)))
        writer.write_window(make_states(layout, 0))
    assert calls == [4 * 5 * 4] * 3 + [32, "sync", 1, "sync"]


def test_short_writes_are_carried_on(tmp_path, monkeypatch):
    pwrite = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, at: pwrite(fd, data[:7], at))
    layout = make_layout(10, token_dtype="bfloat16")
    write_all(tmp_path / "a.h5", layout)
    monkeypatch.undo()
    write_all(tmp_path / "b.h5", layout)
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()


def test_a_disk_that_fills_up_midway_leaves_a_resumable_file(tmp_path, monkeypatch):
    layout = make_layout(40)
    path = tmp_path / "c.h5"
    pwrite = os.pwrite
    left = [37]

    def nearly_full(fd: int, data: memoryview, at: int) -> int:
        left[0] -= 1
        if left[0] < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return pwrite(fd, data, at)

    monkeypatch.setattr(os, "pwrite", nearly_full)
    with pytest.raises(DiskError, match=r"full; free some space and run the same command again.*No space left"):
        write_all(path, layout)
    assert 0 < describe(path).windows_done < 10
    monkeypatch.undo()
    write_all(path, layout)
    write_all(tmp_path / "whole.h5", layout)
    assert path.read_bytes() == (tmp_path / "whole.h5").read_bytes()


def test_a_cache_that_will_not_fit_is_refused_before_anything_is_written(tmp_path, monkeypatch):
    usage = DISK_USAGE(tmp_path)
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(DiskError, match=r"the cache needs .*kB of disk.*got 1.0 kB free"):
        write_all(tmp_path / "c.h5", make_layout(10))
    assert os.listdir(tmp_path) == []


def test_a_quota_is_met_at_once_and_without_a_crash(tmp_path):
    """The free disk says nothing of quotas; the reservation finds out. (A file size limit stands for one here.)"""
    code = (
        "import sys, pathlib; sys.path.insert(0, sys.argv[1]); import store_cases, probekit.errors\n"
        "try: store_cases.write_slowly(pathlib.Path(sys.argv[2]))\n"
        "except probekit.errors.DiskError as error: print(error); sys.exit(7)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(Path(__file__).parent), str(tmp_path / "c.h5")],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000)),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 7, done.stderr
    assert "full" in done.stdout
    assert "nothing was written" in done.stdout
    assert os.listdir(tmp_path) == []


def test_the_size_estimate_is_above_the_size_but_not_by_much(tmp_path):
    from probekit.store.layout import estimated_bytes

    for token_dtype in (None, "float16"):
        layout = make_layout(3000, window=500, d=200, token_dtype=token_dtype)
        write_all(tmp_path / f"{token_dtype}.h5", layout)
        size = (tmp_path / f"{token_dtype}.h5").stat().st_size
        assert size <= estimated_bytes(layout, make_examples(3000), store_text=True) <= 1.2 * size


@pytest.mark.parametrize("length", [1, 500, 2100, 3990, 4090, 5000])
def test_the_size_estimate_holds_for_long_texts(tmp_path, length):
    from probekit.store.layout import estimated_bytes

    examples = replace(make_examples(2000), texts=[f"{i:x>{length}}" for i in range(2000)])
    layout = make_layout(2000, window=500, poolings=("mean",))
    open_writer(tmp_path / "c.h5", spec=SPEC, provenance={}, layout=layout, examples=examples).close()
    assert (tmp_path / "c.h5.partial").stat().st_size <= estimated_bytes(layout, examples, store_text=True)


def test_one_changed_byte_is_found_and_named(tmp_path):
    layout = make_layout(10, token_dtype="float16")
    path = tmp_path / "c.h5"
    write_all(path, layout)
    good = path.read_bytes()
    targets = {
        "/pooled/last/001": np.ascontiguousarray(open_cache(path).layer(1, "last")).tobytes(),
        "/tokens/states/002": open_cache(path).tokens(2).all.tobytes(),
        "/examples/text": "Zürich 3".encode(),
        "/examples/label": (np.arange(10, dtype=np.int64) % 3).tobytes(),
    }
    for name, raw in targets.items():
        at = good.index(raw) + 1
        path.write_bytes(good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :])
        report = verify(path)
        assert not report.ok
        assert report.mismatches == (name,)


def test_a_file_cut_anywhere_is_a_clear_error(tmp_path):
    path = tmp_path / "c.h5"
    write_all(path, make_layout(10))
    good = path.read_bytes()
    for length in {0, 1, 8, 100, *range(512, len(good), 1009), len(good) - 1}:
        path.write_bytes(good[:length])
        for read in (open_cache, verify, describe):
            with pytest.raises(CacheError, match=r"c\.h5"):
                read(path)


def test_changed_metadata_never_crashes(tmp_path):
    """Any byte may be wrong: the file opens, or it is a CacheError."""
    path = tmp_path / "c.h5"
    write_all(path, make_layout(10))
    good = path.read_bytes()
    rng = random.Random(3)
    for _ in range(150):
        at = rng.randrange(min(len(good), 30_000))
        path.write_bytes(good[:at] + bytes([rng.randrange(256)]) + good[at + 1 :])
        try:
            with open_cache(path) as cache:
                _ = cache.layer(0, "mean").sum(), cache.ids, cache.texts
            verify(path)
        except CacheError:
            continue
