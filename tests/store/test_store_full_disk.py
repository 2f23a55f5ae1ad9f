"""A disk that refuses a write while the file is created: one error, no noise, and never a finished bad file."""

from __future__ import annotations

import errno
import itertools
import os
import subprocess
import sys
from pathlib import Path

import pytest

import probekit
from probekit.errors import DiskError
from probekit.store import verify
from tests.store.store_cases import begin, make_layout, write_all

CHILD = """
import os, resource, signal, sys
from pathlib import Path
from probekit.errors import DiskError
from probekit.store import creation
from tests.store.store_cases import make_layout, write_all
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
# As on a file system that can't set room aside, where a full disk shows in the middle.
creation.reserve = lambda fd, n_bytes: None
path, layout = Path(sys.argv[1]), make_layout(40, window=10, token_dtype="float16")
hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
for limit in range(0, int(sys.argv[2]), int(sys.argv[3])):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        write_all(path, layout)
        result = "finished"
    except DiskError as error:
        result = str(error)
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    left = sorted(name for name in os.listdir(path.parent))
    print(limit, left, result, sep="\\t")
    for name in left:
        (path.parent / name).unlink()
"""


def test_a_write_that_fails_anywhere_is_one_error(tmp_path):
    whole = tmp_path / "whole.h5"
    write_all(whole, make_layout(40, window=10, token_dtype="float16"))
    size = whole.stat().st_size
    (tmp_path / "there").mkdir()
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(tmp_path / "there" / "c.h5"), str(size + 3000), "1499"],
        env=os.environ | {"PYTHONPATH": str(Path(probekit.__file__).parents[1]), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-1000:]
    assert done.stderr == ""
    results = [line.split("\t") for line in done.stdout.splitlines()]
    finished = [int(limit) for limit, _, result in results if result == "finished"]
    assert finished
    assert min(finished) >= size  # else something of the file would be missing
    for limit, left, result in results:
        if int(limit) < size:
            assert "the disk or quota is full" in result
            assert "creating" not in left
    assert verify(whole).ok


@pytest.mark.parametrize("for_good", [True, False], ids=["from then on", "once"])
@pytest.mark.parametrize("call", ["pwrite", "fsync", "ftruncate", "posix_fallocate", "link"])
def test_a_call_that_fails_once_or_for_good(tmp_path, monkeypatch, call, for_good):
    """Each of the calls in turn, until a creation needs no more of them."""
    real, layout = getattr(os, call), make_layout(6, token_dtype="float16")
    for failing in range(100):
        count = itertools.count()

        def sometimes(*arguments, count=count, failing=failing):
            n = next(count)
            if n == failing or (for_good and n > failing):
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            return real(*arguments)

        with monkeypatch.context() as patch:
            patch.setattr(os, call, sometimes)
            try:
                begin(tmp_path / "c.h5", layout).close()
            except DiskError:
                # (Whole, if only the folder could not be synced.)
                assert set(os.listdir(tmp_path)) <= {"c.h5.partial"}
                for left in tmp_path.iterdir():
                    left.unlink()
                continue
            # Links may be missing: then the file is renamed.
            assert call == "link" or next(count) <= failing
        write_all(tmp_path / "c.h5", layout)
        assert verify(tmp_path / "c.h5").ok
        assert failing > 0 or call == "link"
        return
    pytest.fail("no end of it")
