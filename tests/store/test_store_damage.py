"""A bit that flips, in a finished file or an unfinished one, never becomes a number without a word."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

import probekit
from probekit.errors import CacheError, DiskError
from probekit.store import columns_digest, describe, fingerprint, open_cache, stored_spec, text_digest, verify
from tests.store.store_cases import SPEC, begin, make_examples, make_layout, make_states, write_all

N = 10


def whole_spec(n=N):
    """With the digests that the spec of an extraction has."""
    examples = make_examples(n)
    digests = {"texts": text_digest(examples.texts), "columns": columns_digest(examples.columns, examples.ids)}
    return SPEC | digests


@pytest.fixture(scope="module")
def good_cache(tmp_path_factory):
    path = tmp_path_factory.mktemp("good") / "c.h5"
    write_all(path, make_layout(N, token_dtype="float16"), spec=whole_spec())
    return path


@pytest.fixture
def copied(good_cache, tmp_path):
    return Path(shutil.copy(good_cache, tmp_path / "c.h5"))


def everything(path: Path) -> list[object]:
    """All that a reader can get, in a form that can be compared."""
    with open_cache(path, verify=True) as cache:
        found: list[object] = [json.dumps(cache.spec), json.dumps(cache.provenance), cache.fingerprint, cache.columns]
        found += [cache.layers, cache.poolings, sorted(cache.final_norm), list(cache.ids), cache.texts]
        found += [cache.n_tokens.tobytes(), cache.truncated.tobytes()]
        for name in cache.columns:
            values = cache.column(name)
            found += [name, str(values.dtype), values.tolist() if values.dtype == object else values.tobytes()]
        for k in cache.layers:
            found += [cache.layer(k, pooling).tobytes() for pooling in cache.poolings]
            tokens = cache.tokens(k)
            found += [np.asarray(part).tobytes() for part in (tokens.all, tokens.offsets, tokens.token_ids)]
            found += [tokens.token_special.tobytes(), tokens.token_word.tobytes()]
            found.append(cache.token_rows(k)[np.arange(len(tokens.token_ids))].tobytes())
        return found


def read_or_refuse(path: str, n_flips: int, seed: int) -> None:
    """Flip bits one by one; run in a process of its own, which a hang or a crash would end."""
    good = Path(path).read_bytes()
    expected, rng, n_found = everything(Path(path)), random.Random(seed), 0
    for _ in range(n_flips):
        raw = bytearray(good)
        at = rng.randrange(len(good))
        raw[at] ^= 1 << rng.randrange(8)
        Path(path).write_bytes(raw)
        try:
            assert everything(Path(path)) == expected, f"byte {at} changed what is read"
        except CacheError as error:
            n_found += "\n" not in str(error)
    print(n_found)


def in_a_process(code: str, *arguments: object, seconds: float = 120) -> subprocess.CompletedProcess[str]:
    root = Path(probekit.__file__).parents[1]
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        env=os.environ | {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )


def test_a_flipped_bit_is_found_or_harmless(copied):
    code = "import sys; from tests.store.test_store_damage import read_or_refuse as r; r(sys.argv[1], 300, 11)"
    done = in_a_process(code, copied)
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout) > 30


def swap(file: h5py.File, a: str, b: str) -> None:
    for prefix in ("", "checksums/"):
        first, second = file[prefix + a][()], file[prefix + b][()]
        file[prefix + a][...], file[prefix + b][...] = second, first


def layers_swapped(file):
    swap(file, "pooled/mean/001", "pooled/mean/002")


def token_layers_swapped(file):
    swap(file, "tokens/states/001", "tokens/states/002")


def poolings_swapped(file):
    file["pooled"].attrs["poolings"] = json.dumps(["last", "mean"])


def columns_renamed(file):
    file.move("examples/ok", "examples/ko")
    file.move("checksums/examples/ok", "checksums/examples/ko")
    file["examples"].attrs["columns"] = json.dumps(["label", "km/h", "text", "ko"])


def final_norm_flipped(file):
    file["pooled/mean/001"].attrs["final_norm"] = True


def columns_reordered(file):
    file["examples"].attrs["columns"] = json.dumps(["ok", "km/h", "text", "label"])


def column_left_out(file):
    file["examples"].attrs["columns"] = json.dumps(["label", "km/h", "text"])


def spec_with_its_fingerprint(file):
    spec = json.loads(file.attrs["spec"]) | {"model": "another"}
    file.attrs["spec"], file.attrs["fingerprint"] = json.dumps(spec), fingerprint(spec)


def provenance(file):
    file.attrs["provenance"] = json.dumps({"by": "somebody"})


def mark_of_a_window(file):
    file["progress/done"][1] = 2


def label_with_its_checksum(file):
    labels = file["examples/label"][()]
    labels[0] += 1
    file["examples/label"][...] = labels
    file["checksums/examples/label"][...] = np.frombuffer(hashlib.sha256(labels.tobytes()).digest(), "u1")


EDITS = [
    *(layers_swapped, token_layers_swapped, poolings_swapped, columns_renamed, final_norm_flipped, columns_reordered),
    *(column_left_out, spec_with_its_fingerprint, provenance, mark_of_a_window, label_with_its_checksum),
]


@pytest.mark.parametrize("edit", EDITS, ids=lambda edit: edit.__name__)
def test_an_edit_that_agrees_with_its_checksums_is_found(copied, edit):
    with h5py.File(copied, "r+") as file:
        edit(file)
    report = verify(copied)
    assert not report.ok
    assert "attributes and names" in report.mismatches
    with pytest.raises(CacheError, match="not as it was sealed: attributes and names"):
        open_cache(copied, verify=True)


def test_without_the_digest_of_the_whole_the_spec_still_vouches_for_the_columns(copied):
    """As in the files of earlier versions, which have none."""
    with h5py.File(copied, "r+") as file:
        del file["checksums/whole"], file["progress/created"], file["progress/checksums"]
        del file.attrs["provenance_digest"]
    report = verify(copied)
    assert report.ok
    assert report.unchecked == ("attributes and names",)
    open_cache(copied, verify=True).close()
    with h5py.File(copied, "r+") as file:
        label_with_its_checksum(file)
    assert verify(copied).mismatches == ("columns (another digest in the spec)",)
    with pytest.raises(CacheError, match="columns"):
        open_cache(copied, verify=True)


def test_a_layer_is_checked_when_it_is_read(copied):
    flip(copied, "pooled/mean/001", 7)
    with open_cache(copied, verify=True) as cache:
        cache.layer(2, "mean")
        with pytest.raises(CacheError, match=r"not as it was sealed: /pooled/mean/001"):
            cache.layer(1, "mean")
    with open_cache(copied) as cache:
        cache.layer(1, "mean")


def heap_addresses(raw: bytes) -> list[int]:
    return [at for at in range(0, len(raw), 4096) if raw[at : at + 4] == b"GCOL"]


def test_zeros_on_an_object_of_a_text_heap_end_in_an_error_and_not_in_a_hang(copied):
    raw = copied.read_bytes()
    heaps = heap_addresses(raw)
    assert heaps
    code = (
        "import sys\nfrom probekit.errors import CacheError\nfrom probekit.store import *\n"
        "for read in (open_cache, verify, describe, stored_spec):\n"
        "    try: read(sys.argv[1])\n"
        "    except CacheError as error: print(str(error).count('\\n'), error)\n"
    )
    for heap in heaps:
        size = int.from_bytes(raw[heap + 24 : heap + 32], "little")
        second = heap + 32 + (size + 7) // 8 * 8
        for at in (heap + 16, second):
            copied.write_bytes(raw[:at] + bytes(16) + raw[at + 16 :])
            done = in_a_process(code, copied, seconds=30)
            assert done.returncode == 0, done.stderr
            assert done.stdout.count("text heap") == 4, done.stdout


def test_a_text_that_points_out_of_the_heaps_is_refused(copied):
    with h5py.File(copied) as file:
        at = file["examples/text"].id.get_offset()
        states = file["pooled/mean/000"].id.get_offset()
    raw = bytearray(copied.read_bytes())
    raw[at + 4 : at + 12] = states.to_bytes(8, "little")
    copied.write_bytes(raw)
    with pytest.raises(CacheError, match="no text heap"):
        open_cache(copied)


def test_what_is_no_file_is_refused_before_it_is_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "empty").touch()
    for name, message in {"pipe": "a device or pipe", ".": "a folder", "empty": "not an HDF5 file"}.items():
        for read in (open_cache, verify, describe, stored_spec):
            with pytest.raises(CacheError, match=message):
                read(tmp_path / name)
    with pytest.raises(CacheError, match="device"):
        open_cache("/dev/zero")
    for missing in ("none", "empty/none", "x" * 300):
        for read in (open_cache, verify, describe):
            with pytest.raises(CacheError):
                read(tmp_path / missing)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read(copied):
    copied.chmod(0)
    with pytest.raises(CacheError, match=r"can't be read; got Permission denied"):
        open_cache(copied)


@pytest.mark.parametrize("cell", ["[", "[" * 100_000, "1", '[1, "a"]', '{"a": 1}'])
def test_a_column_of_words_that_holds_none(tmp_path, cell):
    examples, layout = make_examples(3), make_layout(3)
    examples.columns["w"] = np.array(['["a"]', cell, '["b"]'], dtype=object)
    with begin(tmp_path / "c.h5", layout, examples=examples, spec=SPEC | {"words": "w"}) as writer:
        writer.write_window(make_states(layout, 0))
        writer.seal()
    with open_cache(tmp_path / "c.h5") as cache, pytest.raises(CacheError, match=r"row 2, column 'w'.*list of words"):
        _ = cache.words


def test_a_spec_that_names_no_column_of_words(tmp_path):
    write_all(tmp_path / "c.h5", make_layout(3), spec=SPEC | {"words": "none"})
    with open_cache(tmp_path / "c.h5") as cache, pytest.raises(CacheError, match="column of words"):
        _ = cache.words


@pytest.mark.parametrize("column", [7, ["w"], {"a": 1}, True])
def test_a_spec_whose_words_are_no_name(tmp_path, column):
    with pytest.raises(CacheError, match="field 'words': must be the name of a column"):
        write_all(tmp_path / "c.h5", make_layout(3), spec=SPEC | {"words": column})


# Unfinished files


@pytest.fixture
def unfinished(tmp_path):
    path, layout = tmp_path / "c.h5", make_layout(N, token_dtype="float16")
    with begin(path, layout, spec=whole_spec()) as writer:
        for index in (0, 1):
            writer.write_window(make_states(layout, index))
    return path, layout


def flip(path: Path, name: str, at: int) -> None:
    with h5py.File(path) as file:
        offset = file[name].id.get_offset()
    raw = bytearray(path.read_bytes())
    raw[offset + at] ^= 4
    path.write_bytes(raw)


@pytest.mark.parametrize(
    ("name", "at", "window"),
    [("pooled/mean/001", 5, 0), ("pooled/last/002", 4 * 5 * 4 + 1, 1), ("tokens/states/000", 3, 0)],
)
def test_a_window_that_changed_is_done_again(unfinished, tmp_path, name, at, window):
    path, layout = unfinished
    flip(Path(f"{path}.partial"), name, at)
    with begin(path, layout, spec=whole_spec()) as writer:
        assert writer.damaged == [window]
        assert writer.pending() == [window, 2]
        # A kill now must not leave the mark behind.
        assert describe(path).windows_done == 1
        for index in writer.pending():
            writer.write_window(make_states(layout, index))
        writer.seal()
    write_all(tmp_path / "whole.h5", layout, spec=whole_spec())
    with open_cache(path, verify=True) as cache, open_cache(tmp_path / "whole.h5") as whole:
        assert cache.seal == whole.seal
    assert verify(path).ok


def test_a_window_that_changes_before_sealing_is_an_error_that_keeps_the_work(unfinished):
    path, layout = unfinished
    with begin(path, layout, spec=whole_spec()) as writer:
        writer.write_window(make_states(layout, 2))
        flip(Path(f"{path}.partial"), "pooled/mean/000", 4 * 5 * 4)
        # (The flip put another file in its place; the writer must hold the one that is there.)
        os.close(writer._fd)
        writer._fd = os.open(f"{path}.partial", os.O_RDWR)
        with pytest.raises(DiskError, match=r"other states than were written.*1 of 3 windows; run the same command"):
            writer.seal()
    assert not path.exists()
    with begin(path, layout, spec=whole_spec()) as writer:
        assert writer.pending() == [1]
        writer.write_window(make_states(layout, 1))
        writer.seal()
    assert verify(path).ok


@pytest.mark.parametrize("name", ["examples/label", "examples/n_tokens", "tokens/ids", "progress/windows"])
def test_an_example_that_changed_is_refused(unfinished, name):
    path, layout = unfinished
    flip(Path(f"{path}.partial"), name, 0)
    with pytest.raises(CacheError, match=r"damaged.*use --overwrite or another --out"):
        begin(path, layout, spec=whole_spec())
    with begin(path, layout, spec=whole_spec(), overwrite=True) as writer:
        assert writer.pending() == [0, 1, 2]


def test_damage_of_examples_at_sealing_is_not_told_as_a_full_disk(unfinished):
    path, layout = unfinished
    with begin(path, layout, spec=whole_spec()) as writer:
        writer.write_window(make_states(layout, 2))
        with h5py.File(f"{path}.partial") as file:
            offset = file["examples/label"].id.get_offset()
        os.pwrite(writer._fd, b"\7", offset)
        with pytest.raises(CacheError, match=r"changed since it was created: columns, /examples/label") as caught:
            writer.seal()
    assert "free some space" not in str(caught.value)


def test_random_flips_in_an_unfinished_file_never_reach_a_sealed_one(unfinished, tmp_path):
    path, layout = unfinished
    write_all(tmp_path / "whole.h5", layout, spec=whole_spec())
    expected = everything(tmp_path / "whole.h5")
    good, rng = Path(f"{path}.partial").read_bytes(), random.Random(8)
    for _ in range(60):
        raw = bytearray(good)
        raw[rng.randrange(len(raw))] ^= 1 << rng.randrange(8)
        Path(f"{path}.partial").write_bytes(raw)
        try:
            with begin(path, layout, spec=whole_spec()) as writer:
                for index in writer.pending():
                    writer.write_window(make_states(layout, index))
                writer.seal()
        except CacheError:
            continue
        assert everything(path)[2:] == expected[2:]
        path.unlink()


def test_an_unfinished_file_of_an_earlier_version_is_gone_on_with(unfinished):
    path, layout = unfinished
    with h5py.File(f"{path}.partial", "r+") as file:
        del file["checksums/whole"], file["progress/created"], file["progress/checksums"]
        for name in ("id", "text", "label", "n_tokens", "truncated"):
            file[f"checksums/examples/{name}"][...] = 0  # written at sealing only
    with begin(path, layout, spec=whole_spec()) as writer:
        assert writer.pending() == [2]
        writer.write_window(make_states(layout, 2))
        writer.seal()
    assert verify(path).ok
