"""A cache that changes under its reader: one line, not another file's states and not a signal."""

from __future__ import annotations

import os
import pickle
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

import probekit
from probekit.errors import CacheError
from probekit.store import WordStates, open_cache, word_matrix
from tests.store.store_cases import SPEC, make_layout, write_all


@pytest.fixture
def cached(tmp_path):
    write_all(tmp_path / "c.h5", make_layout(300, window=100, d=64, token_dtype="float16"))
    return tmp_path / "c.h5"


def replace_by(path: Path, **changes: object) -> None:
    """Another cache takes the name, as a rename does it."""
    write_all(path.with_name("other.h5"), make_layout(300, window=100, d=64, token_dtype="float16"), **changes)
    os.replace(path.with_name("other.h5"), path)


@pytest.mark.parametrize("verify", [True, False])
def test_a_pickled_cache_does_not_open_another_file(cached, verify):
    with open_cache(cached, verify=verify) as cache:
        pickled = pickle.dumps(cache)
    pickle.loads(pickled).close()
    replace_by(cached, spec=SPEC | {"revision": "b"})
    with pytest.raises(CacheError, match="replaced"):
        pickle.loads(pickled).layer(1, "mean")


def test_a_pickled_cache_does_not_open_another_file_of_the_same_fingerprint(cached):
    """Nothing in the made-up spec says what the labels are."""
    with open_cache(cached) as cache:
        pickled, fingerprint = pickle.dumps(cache), cache.fingerprint
    write_all(cached, make_layout(300, window=100, d=32, token_dtype="float16"), overwrite=True)
    with open_cache(cached) as cache:
        assert cache.fingerprint == fingerprint
    with pytest.raises(CacheError, match="replaced"):
        pickle.loads(pickled).layer(1, "mean")


def test_a_pickled_cache_opens_the_same_cache_made_again(cached):
    with open_cache(cached, verify=True) as cache:
        pickled, expected = pickle.dumps(cache), cache.layer(1, "mean").copy()
    replace_by(cached)
    with pickle.loads(pickled) as again:
        np.testing.assert_array_equal(again.layer(1, "mean"), expected)


def test_a_half_copied_file_is_found_by_a_worker(cached):
    """Of full length already, as some copying programs have it."""
    with open_cache(cached, verify=True) as cache:
        pickled = pickle.dumps(cache)
        offset = cache._structure.blocks["/pooled/mean/001"].offset
    raw = cached.read_bytes()
    cached.write_bytes(raw[: offset + 1000] + bytes(len(raw) - offset - 1000))
    with pytest.raises(CacheError):
        pickle.loads(pickled).layer(1, "mean")


def test_a_file_that_is_replaced_while_a_layer_is_read(cached, monkeypatch):
    with open_cache(cached) as cache:
        preadv = os.preadv

        def slow(fd, buffers, offset):
            replace_by(cached, spec=SPEC | {"revision": "b"}) if not (cached.parent / "done").exists() else None
            (cached.parent / "done").touch()
            return preadv(fd, buffers, offset)

        expected = cache.layer(1, "mean").copy()
        monkeypatch.setattr(os, "preadv", slow)
        # The descriptor still is that of the old file: its states, or an error, but nothing of the new one.
        with suppress(CacheError):
            np.testing.assert_array_equal(cache.layer(1, "mean", mapped=False), expected)


CUTTERS = {
    "layer": "cache.layer(1, 'mean', mapped=False)",
    "layer of a checked cache": "cache.layer(1, 'mean')",
    "token rows": "cache.token_rows(1)[np.arange(400, 600)]",
    "words": "WordStates(cache.token_rows(1), matrix).rows(np.arange(100))",
    "labels": "cache.column('label')",
}


@pytest.mark.parametrize("read", CUTTERS.values(), ids=CUTTERS)
def test_a_file_that_is_cut_while_it_is_read_is_one_line(cached, read):
    code = f"""
import os, sys
import numpy as np
from probekit.errors import CacheError
from probekit.store import WordStates, open_cache, word_matrix
from probekit.store import pread
cache = open_cache(sys.argv[1], verify={"checked" in read or "layer(1, 'mean')" in read})
tokens = cache.tokens(0)
matrix = word_matrix(tokens, [9] * len(cache), "mean")
# The cut comes after all looks at the file's size, in the middle of the reading.
preadv = os.preadv
def cut(fd, buffers, offset):
    os.truncate(sys.argv[1], min(20000, os.path.getsize(sys.argv[1])))
    return preadv(fd, buffers, offset)
os.preadv = cut
try:
    {read}
except CacheError as error:
    print(error)
    sys.exit(3)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(cached)],
        env=os.environ | {"PYTHONPATH": str(Path(probekit.__file__).parents[1])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 3, (done.returncode, done.stderr[-500:])
    assert done.stdout.count("\n") == 1
    assert "cut off" in done.stdout or "replaced" in done.stdout


def test_rows_of_the_file_are_those_of_the_map(cached):
    with open_cache(cached) as cache:
        tokens, rows = cache.tokens(2), cache.token_rows(2)
        for which in ([5], [0, 1, 2, 900, 901, 3, 3], [], [len(rows) - 1, 0]):
            index = np.array(which, dtype=np.int64)
            np.testing.assert_array_equal(rows[index], tokens.stored[index])
        matrix = word_matrix(tokens, [9] * len(cache), "mean")
        which = np.random.default_rng(0).permutation(matrix.shape[0])[:500]
        np.testing.assert_array_equal(
            WordStates(rows, matrix).rows(which), WordStates(np.array(tokens.stored), matrix).rows(which)
        )


def test_a_copy_is_the_map_s_bytes(cached):
    with open_cache(cached) as cache, open_cache(cached, verify=True) as checked:
        mapped = cache.layer(1, "last")
        for copy in (cache.layer(1, "last", mapped=False), checked.layer(1, "last")):
            assert not isinstance(copy, np.memmap)
            assert not copy.flags.writeable
            np.testing.assert_array_equal(copy, mapped)


def test_probe_finds_labels_that_were_shuffled(tmp_path, tiny_model, tiny_data):
    from probekit.cli import run

    out = tmp_path / "c.h5"
    probekit.extract(tiny_model, tiny_data, out=out).close()
    shutil.copy(out, tmp_path / "good.h5")
    with open_cache(out) as cache:
        offset = cache._structure.blocks["/pooled/mean/001"].offset
    raw = bytearray(out.read_bytes())
    raw[offset + 2] ^= 64
    out.write_bytes(raw)
    command = ["probe", str(out), "--target", "label", "--jobs", "1"]
    assert run(command) == 2
    assert run([*command, "--no-verify"]) == 0
    assert run([*command[:1], str(tmp_path / "good.h5"), *command[2:]]) == 0
