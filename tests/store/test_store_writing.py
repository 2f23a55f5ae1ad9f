"""Writing into a cache: misuse, and what is there already."""

from __future__ import annotations

import os

import numpy as np
import pytest

from probekit.errors import CacheError, InputError, SpecError, StaleCacheError
from probekit.store import open_cache, stored_spec, verify
from probekit.store import writer as writer_module
from tests.store.store_cases import (
    SPEC,
    begin,
    make_examples,
    make_layout,
    make_states,
    write_all,
)


def test_a_text_that_hdf5_would_cut_off_is_refused(tmp_path):
    layout = make_layout(3)
    for bad in ("a\0b", "\ud800"):
        examples = make_examples(3)
        examples.texts[1] = bad
        with pytest.raises(InputError, match=r"x.tsv, row 2, column 'sentence'"):
            begin(tmp_path / "c.h5", layout, examples=examples)
    assert os.listdir(tmp_path) == []


def test_columns_that_hdf5_can_not_hold_are_refused(tmp_path):
    for name, values, message in (
        ("day", np.array(["2020-01-01"] * 3, dtype="M8[D]"), r"x.tsv, column 'day': must hold .*; got datetime64"),
        ("z", np.array([1j, 2, 3]), r"column 'z'.*complex128"),
        ("mixed", np.array(["a", 1, None], dtype=object), r"row 2, column 'mixed'.*got 1"),
        ("\udc80", np.arange(3), "column names must be Unicode"),
    ):
        examples = make_examples(3)
        examples.columns[name] = values
        with pytest.raises(InputError, match=message):
            begin(tmp_path / "c.h5", make_layout(3), examples=examples)
    assert os.listdir(tmp_path) == []


def test_a_closed_writer_says_so(tmp_path):
    layout = make_layout(3)
    writer = begin(tmp_path / "c.h5", layout)
    writer.close()
    writer.close()
    with pytest.raises(CacheError, match="closed"):
        writer.write_window(make_states(layout, 0))
    with pytest.raises(CacheError, match="closed"):
        writer.seal()


def test_wrong_windows_are_refused(tmp_path):
    layout = make_layout(10)
    with begin(tmp_path / "c.h5", layout) as writer:
        with pytest.raises(SpecError, match=r"windows 0..2; got 3"):
            writer.write_window(type(make_states(layout, 0))(3, {}))
        with pytest.raises(SpecError, match=r"layer 0, pooling 'mean'.*must have it"):
            writer.write_window(type(make_states(layout, 0))(1, {}))
        with pytest.raises(SpecError, match=r"must have shape \(2, 5\); got \(4, 5\)"):
            writer.write_window(type(make_states(layout, 0))(2, make_states(layout, 0).pooled))
        with pytest.raises(CacheError, match="3 to do"):
            writer.seal()


@pytest.mark.parametrize(
    "change",
    [
        {"windows": ((0, 4), (5, 10))},
        {"layers": (2, 1)},
        {"d_model": 0},
        {"pooled_dtype": "int8"},
        {"final_norm": (7,)},
    ],
)
def test_a_layout_that_contradicts_itself_is_refused(tmp_path, change):
    layout = make_layout(10)
    with pytest.raises(SpecError, match="layout"):
        begin(tmp_path / "c.h5", type(layout)(**(vars(layout) | change)))
    assert os.listdir(tmp_path) == []


def test_another_spec_never_goes_on_with_an_unfinished_file(tmp_path):
    path, layout = tmp_path / "c.h5", make_layout(10)
    with begin(path, layout) as writer:
        writer.write_window(make_states(layout, 0))
    with pytest.raises(StaleCacheError) as caught:
        begin(path, layout, spec=SPEC | {"revision": "b"})
    assert str(caught.value) == (
        "revision: the unfinished c.h5.partial was made with 'a', now 'b'; use --overwrite or another --out"
    )
    with begin(path, layout) as writer:  # untouched
        assert writer.pending() == [1, 2]
    with begin(path, layout, spec=SPEC | {"revision": "b"}, overwrite=True) as writer:
        assert writer.pending() == [0, 1, 2]


def test_a_file_with_other_windows_is_not_filled(tmp_path):
    begin(tmp_path / "c.h5", make_layout(10)).close()
    with pytest.raises(StaleCacheError, match="layout"):
        begin(tmp_path / "c.h5", make_layout(10, window=5))


def test_a_finished_cache_stays_until_the_new_one_is_sealed(tmp_path):
    path, layout = tmp_path / "c.h5", make_layout(10)
    write_all(path, layout)
    before = path.read_bytes()
    with pytest.raises(CacheError, match="finished already"):
        begin(path, layout)
    with pytest.raises(StaleCacheError, match=r"max_length: the finished c\.h5 was made with None, now 8"):
        begin(path, layout, spec=SPEC | {"max_length": 8})
    with begin(path, layout, spec=SPEC | {"max_length": 8}, overwrite=True) as writer:
        for i in writer.pending():
            writer.write_window(make_states(layout, i))
        assert path.read_bytes() == before
        writer.seal()
    assert stored_spec(path).spec["max_length"] == 8
    assert os.listdir(tmp_path) == ["c.h5"]


def test_what_came_under_the_final_name_meanwhile_is_kept(tmp_path):
    path, layout = tmp_path / "c.h5", make_layout(3)
    with begin(path, layout) as writer:
        writer.write_window(make_states(layout, 0))
        path.write_text("my thesis")
        with pytest.raises(CacheError, match="was put here while"):
            writer.seal()
    assert path.read_text() == "my thesis"
    path.unlink()
    with begin(path, layout) as writer:
        assert writer.pending() == []
        writer.seal()
    assert verify(path).ok


def test_two_writers_without_a_working_lock_make_one_cache(tmp_path):
    """(On network file systems that say yes to every lock.)"""
    path, layout = tmp_path / "c.h5", make_layout(3)
    with begin(path, layout) as writer:
        writer.write_window(make_states(layout, 0))
        write_all(tmp_path / "other.h5", layout)
        (tmp_path / "other.h5").rename(path)
        writer.seal()
    assert verify(path).ok


def test_a_cache_finished_by_another_just_before_the_lock_is_not_overwritten(tmp_path, monkeypatch):
    path, layout = tmp_path / "c.h5", make_layout(3)
    locked = writer_module.locked

    def after_the_other(partial):
        monkeypatch.undo()
        write_all(path, layout)
        return locked(partial)

    monkeypatch.setattr(writer_module, "locked", after_the_other)
    with pytest.raises(CacheError, match="finished already"):
        begin(path, layout)
    assert os.listdir(tmp_path) == ["c.h5"]


@pytest.mark.parametrize("name", ["c.h5", "c.h5.partial"])
def test_a_foreign_file_is_not_overwritten_unasked(tmp_path, name):
    path, layout = tmp_path / "c.h5", make_layout(4)
    (tmp_path / name).write_text("my thesis")
    with pytest.raises(CacheError, match="use --overwrite or another --out"):
        begin(path, layout)
    assert (tmp_path / name).read_text() == "my thesis"
    assert os.listdir(tmp_path) == [name]
    write_all(path, layout, overwrite=True)
    assert stored_spec(path).sealed


def test_bad_places(tmp_path):
    layout = make_layout(4)
    with pytest.raises(CacheError, match="the folder does not exist"):
        begin(tmp_path / "no" / "c.h5", layout)
    with pytest.raises(CacheError, match="must be a file; got a folder"):
        begin(tmp_path, layout, overwrite=True)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(CacheError, match="must be a file; got a device"):
        begin(tmp_path / "pipe", layout, overwrite=True)
    with pytest.raises(CacheError, match="final name"):
        begin(tmp_path / "c.h5.partial", layout)


def test_a_link_is_followed(tmp_path):
    (tmp_path / "big").mkdir()
    (tmp_path / "c.h5").symlink_to(tmp_path / "big" / "real.h5")
    write_all(tmp_path / "c.h5", make_layout(4))
    assert (tmp_path / "c.h5").is_symlink()
    assert stored_spec(tmp_path / "big" / "real.h5").sealed


def test_only_one_writer(tmp_path):
    path, layout = tmp_path / "c.h5", make_layout(4)
    with begin(path, layout), pytest.raises(CacheError, match="another process is writing"):
        begin(path, layout)
    begin(path, layout).close()
    assert os.listdir(tmp_path) == ["c.h5.partial"]


def test_an_unfinished_cache_is_not_opened(tmp_path):
    path, layout = tmp_path / "c.h5", make_layout(10)
    with begin(path, layout) as writer:
        writer.write_window(make_states(layout, 0))
    for name in (path, f"{path}.partial"):
        with pytest.raises(CacheError, match=r"unfinished.*again.*1 of 3 windows"):
            open_cache(name)
    with pytest.raises(CacheError, match="unfinished"):
        verify(f"{path}.partial")
