"""Several processes on one cache where locks do nothing, and locks that fail: one wins and the others are content."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

import probekit
from probekit.errors import CacheError, DiskError
from probekit.store import creation, describe, disk, open_cache, verify
from tests.store.store_cases import SPEC, begin, make_layout, make_states, write_all

WRITE = """
import sys, time, random
import filelock
filelock.FileLock.acquire = lambda self, *a, **k: None
from tests.store.store_cases import *
from probekit.extraction.job import _is_finished
from probekit.errors import CacheError
from pathlib import Path
path, layout = Path(sys.argv[1]), make_layout(60, window=6)
while time.time() < float(sys.argv[2]): pass
try:
    with begin(path, layout) as writer:
        for index in writer.pending():
            time.sleep(random.random() / 100)
            writer.write_window(make_states(layout, index))
        writer.seal()
except CacheError:
    if not _is_finished(path, SPEC): raise
"""


@pytest.mark.parametrize("_round", [0, *(pytest.param(k, marks=pytest.mark.slow) for k in (1, 2, 3))])
def test_three_processes_without_locks_end_with_one_whole_cache(tmp_path, _round):
    path = tmp_path / "c.h5"
    root = Path(probekit.__file__).parents[1]
    command = [sys.executable, "-c", WRITE, str(path), str(time.time() + 3)]
    env = os.environ | {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    processes = [subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    errors = [process.communicate(timeout=100)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0], errors
    assert verify(path).ok
    write_all(tmp_path / "whole.h5", make_layout(60, window=6))
    with open_cache(path) as cache, open_cache(tmp_path / "whole.h5") as whole:
        assert cache.seal == whole.seal
    assert sorted(os.listdir(tmp_path)) == ["c.h5", "whole.h5"]


@pytest.fixture
def no_locks(monkeypatch):
    monkeypatch.setattr(disk.FileLock, "acquire", lambda _: None)


def test_a_writer_whose_file_was_finished_by_another_is_content(tmp_path, no_locks):
    path, layout = tmp_path / "c.h5", make_layout(10)
    with begin(path, layout) as slow:
        slow.write_window(make_states(layout, 0))
        with begin(path, layout) as fast:
            assert fast.pending() == [1, 2]
            for index in (1, 2):
                fast.write_window(make_states(layout, index))
            fast.seal()
        before = path.stat().st_mtime_ns
        for index in slow.pending():
            slow.write_window(make_states(layout, index))
        slow.seal()
    assert path.stat().st_mtime_ns == before
    assert verify(path).ok


def test_a_writer_whose_file_was_taken_away_says_so(tmp_path, no_locks):
    path, layout = tmp_path / "c.h5", make_layout(10)
    with begin(path, layout) as writer:
        Path(f"{path}.partial").unlink()
        with pytest.raises(CacheError, match="replaced or removed while it was written"):
            writer.write_window(make_states(layout, 0))


def test_who_creates_second_goes_on_with_the_first_one_s_file(tmp_path, no_locks, monkeypatch):
    path, layout = tmp_path / "c.h5", make_layout(10)
    publish = creation._publish

    def after_another(building, partial, stale):
        monkeypatch.setattr(creation, "_publish", publish)
        monkeypatch.setattr(creation, "_building_path", lambda partial: partial.with_name("of another process"))
        monkeypatch.setattr(creation, "_runs", lambda _: True)  # as this process is to another one
        with begin(path, layout) as first:
            first.write_window(make_states(layout, 1))
        publish(building, partial, stale)

    monkeypatch.setattr(creation, "_publish", after_another)
    with begin(path, layout) as second:
        assert second.pending() == [0, 2]
    assert os.listdir(tmp_path) == ["c.h5.partial"]


def test_a_file_system_without_hard_links(tmp_path, monkeypatch):
    def refused(*_):
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", refused)
    write_all(tmp_path / "c.h5", make_layout(10))
    assert verify(tmp_path / "c.h5").ok


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_that_can_not_lock(tmp_path, monkeypatch, number):
    def refused(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refused)
    write_all(tmp_path / "c.h5", make_layout(10))
    assert verify(tmp_path / "c.h5").ok
    assert os.listdir(tmp_path) == ["c.h5"]


def test_a_lock_file_that_can_not_be_removed_is_no_error(tmp_path, monkeypatch):
    unlink = Path.unlink

    def refused(self, missing_ok=False):
        if self.name.endswith(".lock"):
            raise OSError(errno.EROFS, "read-only")
        unlink(self, missing_ok=missing_ok)

    monkeypatch.setattr(Path, "unlink", refused)
    write_all(tmp_path / "c.h5", make_layout(10))
    assert verify(tmp_path / "c.h5").ok


def test_a_lock_file_that_can_not_be_removed_does_not_hide_the_error(tmp_path, monkeypatch):
    def refused(*_, **__):
        raise OSError(errno.EIO, "input/output error")

    layout = make_layout(10)
    writer = begin(tmp_path / "c.h5", layout)
    monkeypatch.setattr(os, "pwrite", refused)
    monkeypatch.setattr(Path, "unlink", refused)
    with writer, pytest.raises(DiskError, match="can't be written"):
        writer.write_window(make_states(layout, 0))


def test_what_killed_creations_left_is_removed_and_a_running_one_is_not(tmp_path):
    path = tmp_path / "c.h5"
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    host = creation._host()
    stem = f"{path.name}.partial.creating"
    left = [tmp_path / name for name in (stem, f"{stem}.{host}-{ended.pid}", f"{stem}.{host}-x")]
    kept = [tmp_path / name for name in (f"{stem}.{host}-{os.getppid()}", f"{stem}.00000000-{ended.pid}")]
    old = tmp_path / f"{stem}.11111111-1"
    for file in (*left, *kept, old):
        file.touch()
    os.utime(old, (1, 1))
    begin(path, make_layout(4)).close()
    assert sorted(os.listdir(tmp_path)) == sorted([*(file.name for file in kept), "c.h5.partial"])


def test_an_unfinished_file_replaced_by_overwrite(tmp_path):
    path, layout = tmp_path / "c.h5", make_layout(10)
    begin(path, layout, spec=SPEC | {"revision": "b"}).close()
    with begin(path, layout, overwrite=True):
        assert describe(path).spec == SPEC
