"""A cache from a stranger: refused before anything in it is read."""

from __future__ import annotations

import json
import shutil

import h5py
import numpy as np
import pytest

from probekit.errors import CacheError
from probekit.store import describe, open_cache, stored_spec, verify
from tests.store.store_cases import make_layout, write_all


@pytest.fixture(scope="module")
def good_cache(tmp_path_factory):
    path = tmp_path_factory.mktemp("good") / "c.h5"
    write_all(path, make_layout(10, token_dtype="float16"))
    return path


def replace(file: h5py.File, name: str, make) -> None:
    attrs = dict(file[name].attrs)
    del file[name]
    make(name)
    for key, value in attrs.items():
        file[name].attrs[key] = value


def soft_link(file):
    file["pooled/mean/009"] = h5py.SoftLink("/pooled/mean/000")


def external_link(file):
    file["pooled/mean/009"] = h5py.ExternalLink("/etc/passwd", "/")


def external_group(file):
    file["extra"] = h5py.ExternalLink("other.h5", "/")


def external_storage(file):
    replace(
        file,
        "pooled/mean/001",
        lambda name: file.create_dataset(name, (10, 5), "<f4", external=[("/etc/passwd", 0, 200)]),
    )


def virtual_dataset(file):
    source = h5py.VirtualLayout((10, 5), "<f4")
    source[:] = h5py.VirtualSource("/etc/passwd", "x", (10, 5))
    replace(file, "pooled/mean/001", lambda name: file.create_virtual_dataset(name, source))


def compressed_bomb(file):
    replace(
        file,
        "pooled/mean/001",
        lambda name: file.create_dataset(name, (10**9, 5), "<f4", chunks=(1000, 5), compression="gzip"),
    )


def never_allocated(file):
    replace(file, "pooled/mean/001", lambda name: file.create_dataset(name, (10**12, 5), "<f4"))


def object_references(file):
    replace(file, "examples/label", lambda name: file.create_dataset(name, (10,), h5py.ref_dtype))


def variable_length_numbers(file):
    replace(file, "examples/label", lambda name: file.create_dataset(name, (10,), h5py.vlen_dtype("<i4")))


def compound(file):
    replace(file, "examples/label", lambda name: file.create_dataset(name, (10,), [("a", "<i4"), ("b", "<f8")]))


def hard_link_cycle(file):
    file["pooled/mean/loop"] = file["/"]


def second_name(file):
    file["pooled/mean/003"] = file["pooled/mean/000"]


def attribute_reference(file):
    file["pooled/mean/000"].attrs.create("dtype", file["pooled"].ref, dtype=h5py.ref_dtype)


def attribute_array(file):
    file.attrs["spec"] = np.zeros(1000)


def wrong_shape(file):
    replace(file, "pooled/mean/001", lambda name: file.create_dataset(name, data=np.zeros((9, 5), "<f4")))


def wrong_dtype(file):
    replace(file, "pooled/mean/001", lambda name: file.create_dataset(name, data=np.zeros((10, 5), ">f4")))


def missing_dataset(file):
    del file["examples/id"]


def missing_layer(file):
    del file["pooled/mean/001"]


def edited_spec(file):
    file.attrs["spec"] = json.dumps(json.loads(file.attrs["spec"]) | {"model": "another"})


def newer_format(file):
    file.attrs["format_version"] = 2


def spec_without_a_fingerprint(file):
    file.attrs["spec"] = '{"a": 1e999, "b": NaN}'


def numbers_for_ids(file):
    replace(file, "examples/id", lambda name: file.create_dataset(name, data=np.arange(10)))


def text_for_counts(file):
    text = np.array(["1"] * 10, dtype=object)
    replace(file, "examples/n_tokens", lambda name: file.create_dataset(name, data=text, dtype=h5py.string_dtype()))


def fractional_windows(file):
    windows = np.full((3, 2), np.nan)
    replace(file, "progress/windows", lambda name: file.create_dataset(name, data=windows))


def done_in_two_dimensions(file):
    replace(file, "progress/done", lambda name: file.create_dataset(name, data=np.zeros((3, 2), "u1")))


def other_format(file):
    file.attrs["format"] = "someone else's"


HOSTILE = [
    (soft_link, "a link to elsewhere"),
    (external_link, "a link to elsewhere"),
    (external_group, "a link to elsewhere"),
    (external_storage, "stored in another file"),
    (virtual_dataset, "contiguous"),
    (compressed_bomb, "contiguous"),
    (never_allocated, "more than the file holds"),
    (object_references, "neither number nor text"),
    (variable_length_numbers, "neither number nor text"),
    (compound, "neither number nor text"),
    (hard_link_cycle, "second name"),
    (second_name, "second name"),
    (attribute_reference, "neither one number nor text"),
    (attribute_array, "neither one number nor text"),
    (wrong_shape, "must have shape"),
    (wrong_dtype, "no valid dtype"),
    (missing_dataset, "damaged"),
    (missing_layer, "damaged"),
    (edited_spec, "does not match its fingerprint"),
    (newer_format, "a newer probekit; this one reads format 1; got 2"),
    (spec_without_a_fingerprint, "damaged"),
    (numbers_for_ids, "/examples/id has no valid dtype"),
    (text_for_counts, "/examples/n_tokens has no valid dtype"),
    (fractional_windows, "/progress/windows has no valid dtype"),
    (done_in_two_dimensions, "/progress/done must have shape"),
    (other_format, "is not a probekit cache"),
]


@pytest.mark.parametrize(("spoil", "message"), HOSTILE, ids=lambda value: getattr(value, "__name__", ""))
def test_hostile_files_are_refused(good_cache, tmp_path, spoil, message):
    path = tmp_path / "c.h5"
    shutil.copy(good_cache, path)
    with h5py.File(path, "r+") as file:
        spoil(file)
    for read in (open_cache, verify, describe, stored_spec):
        with pytest.raises(CacheError, match=message):
            read(path)


def test_texts_that_claim_more_than_the_file_are_refused(good_cache, tmp_path):
    """Many references to one long string would fill the memory: a bomb of a few kB."""
    path = tmp_path / "c.h5"
    shutil.copy(good_cache, path)
    with h5py.File(path) as file:
        at = file["examples/text"].id.get_offset()
    raw = bytearray(path.read_bytes())
    raw[at : at + 4] = (2**31).to_bytes(4, "little")
    path.write_bytes(raw)
    with pytest.raises(CacheError, match="longer than the file"):
        open_cache(path)


def test_foreign_files(tmp_path):
    with pytest.raises(CacheError, match="no such cache"):
        open_cache(tmp_path / "none.h5")
    with pytest.raises(CacheError, match="must be a file"):
        open_cache(tmp_path)
    (tmp_path / "a.csv").write_text("a,b\n1,2\n")
    with pytest.raises(CacheError, match="not an HDF5 file"):
        open_cache(tmp_path / "a.csv")
    with h5py.File(tmp_path / "plain.h5", "w") as file:
        file["x"] = 1
    with pytest.raises(CacheError, match="is not a probekit cache"):
        open_cache(tmp_path / "plain.h5")


def test_broken_token_offsets_are_refused(good_cache, tmp_path):
    path = tmp_path / "c.h5"
    shutil.copy(good_cache, path)
    with h5py.File(path, "r+") as file:
        file["tokens/offsets"][3] = 10**15
    with open_cache(path) as cache, pytest.raises(CacheError, match="offsets"):
        cache.tokens(0)
