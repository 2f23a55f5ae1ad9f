"""What goes in comes out, whatever the shapes, dtypes and the order of the windows."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import tempfile
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from probekit.errors import CacheError, InputError, NonFiniteError, SpecError, StaleCacheError
from probekit.store import describe, open_cache, open_writer, stored_spec, verify
from probekit.store import writer as writer_module
from tests.store.store_cases import SPEC, make_examples, make_layout, make_states, whole_pooled, whole_tokens, write_all

DTYPES = ("float32", "float16", "bfloat16")


def rounded(values: np.ndarray, dtype: str) -> np.ndarray:
    """The independent reference: PyTorch's own rounding."""
    if dtype == "float32":
        return values
    back = torch.from_numpy(values).to(getattr(torch, dtype))
    return back.numpy() if dtype == "float16" else back.float().numpy()


def begin(path, layout, **options):
    spec = options.pop("spec", SPEC)
    examples = options.pop("examples", None) or make_examples(len(layout.n_tokens))
    return open_writer(path, spec=spec, provenance={}, layout=layout, examples=examples, **options)


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_round_trip(data):
    n = data.draw(st.integers(1, 30))
    layout = make_layout(
        n,
        window=data.draw(st.integers(1, 31)),
        layers=sorted(data.draw(st.sets(st.integers(0, 120), min_size=1, max_size=4))),
        poolings=data.draw(st.sampled_from([("mean",), ("last", "mean"), ("mean_skip_first", "first", "max")])),
        dtype=data.draw(st.sampled_from(DTYPES)),
        token_dtype=data.draw(st.sampled_from([None, *DTYPES])),
        d=data.draw(st.integers(1, 70)),
    )
    order = data.draw(st.permutations(range(len(layout.windows))))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "c.h5"
        write_all(path, layout, order=order)
        examples = make_examples(n)
        with open_cache(path) as cache:
            assert cache.layers == layout.layers
            assert cache.poolings == layout.poolings
            assert cache.final_norm == set(layout.final_norm)
            assert (cache.n_examples, cache.d_model) == (n, layout.d_model)
            assert list(cache.ids) == list(examples.ids)
            assert cache.texts == examples.texts
            assert cache.columns == tuple(examples.columns)
            for name, values in examples.columns.items():
                np.testing.assert_array_equal(cache.column(name), values)
                assert cache.column(name).dtype == values.dtype
            np.testing.assert_array_equal(cache.n_tokens, layout.n_tokens)
            np.testing.assert_array_equal(cache.truncated, layout.truncated)
            for pooling in layout.poolings:
                for layer in layout.layers:
                    stored = cache.layer(layer, pooling)
                    expected = rounded(whole_pooled(layout, pooling, layer), layout.pooled_dtype)
                    assert stored.dtype == expected.dtype
                    assert not stored.flags.writeable
                    np.testing.assert_array_equal(stored, expected)
            if layout.tokens:
                edges = np.cumsum([0, *layout.n_tokens])
                states = cache.tokens(layout.layers[0])
                expected = rounded(whole_tokens(layout, layout.layers[0]), layout.tokens.dtype)
                np.testing.assert_array_equal(states.all, expected)
                for i, part in enumerate(states):
                    own = slice(edges[i], edges[i + 1])
                    np.testing.assert_array_equal(part, expected[own])
                    np.testing.assert_array_equal(states.ids(i), layout.tokens.ids[own])
                    np.testing.assert_array_equal(states.special(i), layout.tokens.special[own])
                    np.testing.assert_array_equal(states.word(i), layout.tokens.word[own])
        assert verify(path).ok


def test_plain_h5py_reads_the_same_bytes(tmp_path):
    layout = make_layout(11, token_dtype="bfloat16")
    write_all(tmp_path / "c.h5", layout)
    with h5py.File(tmp_path / "c.h5") as file, open_cache(tmp_path / "c.h5") as cache:
        assert file.attrs["format"] == "probekit"
        assert file.attrs["fingerprint"] == cache.fingerprint
        dataset = file["pooled/mean/002"]
        assert dataset[()].tobytes() == cache.layer(2, "mean").tobytes() == whole_pooled(layout, "mean", 2).tobytes()
        assert bool(dataset.attrs["final_norm"])
        assert not file["pooled/mean/001"].attrs["final_norm"]
        assert file["tokens/states/000"].attrs["dtype"] == "bfloat16"
        bits = torch.from_numpy(whole_tokens(layout, 0)).to(torch.bfloat16).view(torch.int16).numpy().view(np.uint16)
        np.testing.assert_array_equal(file["tokens/states/000"][()], bits)
        assert list(file["examples/id"].asstr()) == list(cache.ids)
        assert list(file["progress/done"]) == [1, 1, 1]


def test_a_layer_is_a_map_of_the_file_and_not_a_copy(tmp_path):
    write_all(tmp_path / "c.h5", make_layout(300, d=64))
    with open_cache(tmp_path / "c.h5") as cache:
        layer = cache.layer(1, "mean")
    assert isinstance(layer, np.memmap)  # and joblib hands it to workers by name
    assert layer.flags.aligned
    assert layer.sum() == layer.sum()  # valid after close


def test_layer_numbers(tmp_path):
    write_all(tmp_path / "c.h5", make_layout(5, layers=(0, 4, 8), poolings=("mean",)))
    with open_cache(tmp_path / "c.h5") as cache:
        np.testing.assert_array_equal(cache.layer(-1), cache.layer(8, "mean"))
        np.testing.assert_array_equal(cache.layer(-3), cache.layer(0))
        for wrong in (1, 9, -4):
            with pytest.raises(SpecError, match=rf"layer {wrong}: this cache has layers 0, 4, 8"):
                cache.layer(wrong)
        with pytest.raises(SpecError, match=r"pooling: this cache has mean; got last"):
            cache.layer(0, "last")
        with pytest.raises(SpecError, match=r"km/h, text, ok, id, n_tokens, truncated; did you mean 'label'"):
            cache.column("lable")
        with pytest.raises(SpecError, match="--tokens"):
            cache.tokens(0)


def test_every_cache_has_the_ids_and_counts_as_columns(tmp_path):
    layout = make_layout(7)
    write_all(tmp_path / "c.h5", layout)
    with open_cache(tmp_path / "c.h5") as cache:
        assert list(cache.column("id")) == [f"id{i}" for i in range(7)]
        np.testing.assert_array_equal(cache.column("n_tokens"), layout.n_tokens)
        np.testing.assert_array_equal(cache.column("truncated"), layout.truncated)
        assert "id" not in cache.columns


def test_the_input_s_own_column_comes_first(tmp_path):
    layout, examples = make_layout(3), make_examples(3)
    examples.columns["n_tokens"] = np.array([7, 8, 9])
    examples.columns["id "] = examples.columns["."] = examples.columns[""] = examples.columns["%"] = np.arange(3.0)
    examples.columns["big"] = np.array([-(2**63), 2**63 - 1, 2**53 + 1])
    with begin(tmp_path / "c.h5", layout, examples=examples) as writer:
        writer.write_window(make_states(layout, 0))
        writer.seal()
    with open_cache(tmp_path / "c.h5") as cache:
        for name, values in examples.columns.items():
            np.testing.assert_array_equal(cache.column(name), values)
        np.testing.assert_array_equal(cache.n_tokens, layout.n_tokens)
        with pytest.raises(SpecError) as caught:
            cache.column("nn")
        assert str(caught.value).count("n_tokens") == 1


def test_with_two_poolings_one_must_be_named(tmp_path):
    write_all(tmp_path / "c.h5", make_layout(5))
    with open_cache(tmp_path / "c.h5") as cache, pytest.raises(SpecError, match="mean, last"):
        cache.layer(0)


def test_tokens_only(tmp_path):
    layout = make_layout(9, poolings=(), token_dtype="float16")
    write_all(tmp_path / "c.h5", layout)
    with open_cache(tmp_path / "c.h5") as cache:
        assert cache.tokens(-1).all.shape == (layout.n_tokens.sum(), 5)
        with pytest.raises(SpecError, match="token states only"):
            cache.layer(0)


def test_a_pickled_cache_opens_again(tmp_path):
    write_all(tmp_path / "c.h5", make_layout(5))
    with open_cache(tmp_path / "c.h5") as cache, pickle.loads(pickle.dumps(cache)) as again:
        np.testing.assert_array_equal(again.layer(1, "mean"), cache.layer(1, "mean"))


def test_a_replaced_file_is_not_read_with_old_offsets(tmp_path):
    path = tmp_path / "c.h5"
    write_all(path, make_layout(5))
    with open_cache(path) as cache:
        write_all(path, make_layout(9), overwrite=True, spec=SPEC | {"max_length": 8})
        with pytest.raises(CacheError, match="replaced"):
            cache.layer(0, "mean")


def test_a_removed_file_says_so(tmp_path):
    path = tmp_path / "c.h5"
    write_all(path, make_layout(5))
    with open_cache(path) as cache:
        path.unlink()
        with pytest.raises(CacheError, match="replaced or removed"):
            cache.layer(0, "mean")


def test_a_relative_path_outlives_a_change_of_folder(tmp_path, monkeypatch):
    write_all(tmp_path / "c.h5", make_layout(5))
    monkeypatch.chdir(tmp_path)
    with open_cache("c.h5") as cache:
        monkeypatch.chdir("/")
        assert cache.layer(0, "mean").shape == (5, 5)
        with pickle.loads(pickle.dumps(cache)) as again:
            assert again.n_examples == 5


def test_plain_h5py_may_have_the_file_open_too(tmp_path):
    path = tmp_path / "c.h5"
    write_all(path, make_layout(5))
    with open_cache(path) as cache, h5py.File(path) as file:
        np.testing.assert_array_equal(file["pooled/mean/000"], cache.layer(0, "mean"))


def test_a_file_system_without_locks(tmp_path, monkeypatch):
    path = tmp_path / "c.h5"
    opened = h5py.File

    def without_locks(*args, locking=None, **options):
        if locking is not False:
            raise OSError("unable to lock file, errno = 37")
        return opened(*args, locking=locking, **options)

    monkeypatch.setattr(h5py, "File", without_locks)
    write_all(path, make_layout(5))
    assert verify(path).ok


def test_a_closed_cache_says_so(tmp_path):
    write_all(tmp_path / "c.h5", make_layout(5))
    cache = open_cache(tmp_path / "c.h5")
    cache.close()
    with pytest.raises(CacheError, match="closed"):
        cache.layer(0, "mean")


def test_texts_can_be_left_out(tmp_path):
    write_all(tmp_path / "c.h5", make_layout(5), store_text=False)
    with open_cache(tmp_path / "c.h5") as cache, pytest.raises(CacheError, match="--no-store-text"):
        _ = cache.texts
    assert "日本".encode() not in (tmp_path / "c.h5").read_bytes()


def test_describe(tmp_path):
    layout = make_layout(10, token_dtype="float16", dtype="bfloat16")
    path = tmp_path / "c.h5"
    with begin(path, layout) as writer:
        writer.write_window(make_states(layout, 2, split_batches=3))
        writer.write_window(make_states(layout, 0))
        summary = describe(path)
        assert (summary.sealed, summary.windows_done, summary.n_windows, summary.rows_done) == (False, 2, 3, 6)
        assert summary.split_windows == 1
        assert writer.pending() == [1]
        writer.write_window(make_states(layout, 1))
        writer.seal()
    summary = describe(path)
    assert (summary.sealed, summary.rows_done, summary.n_examples) == (True, 10, 10)
    assert summary.total_tokens == layout.n_tokens.sum()
    assert summary.n_truncated == layout.truncated.sum()
    assert (summary.pooled_dtype, summary.token_dtype) == ("bfloat16", "float16")
    assert summary.columns == {"label": "int64", "km/h": "float64", "text": "text", "ok": "bool"}
    assert summary.file_bytes == path.stat().st_size
    assert summary.has_text


def test_a_very_long_spec_fits(tmp_path):
    spec = SPEC | {"prompt": "x" * 300_000}
    write_all(tmp_path / "c.h5", make_layout(3), spec=spec)
    assert stored_spec(tmp_path / "c.h5").spec == spec


def test_stored_spec(tmp_path):
    path = tmp_path / "c.h5"
    assert stored_spec(path) is None
    layout = make_layout(10)
    with begin(path, layout) as writer:
        writer.write_window(make_states(layout, 0))
        partial = stored_spec(f"{path}.partial")
        assert (partial.sealed, partial.windows_done, partial.n_windows, partial.n_layers) == (False, 1, 3, 3)
        assert stored_spec(path) is None
    (tmp_path / "other.h5").write_text("label,text\n")
    with pytest.raises(CacheError, match="not a probekit cache"):
        stored_spec(tmp_path / "other.h5")


def test_store_loads_no_torch():
    code = "import sys, probekit.store; sys.exit(any(m in sys.modules for m in ('torch', 'transformers', 'sklearn')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# --- values that do not fit


@pytest.mark.parametrize(("dtype", "value"), [("float16", 65505.0), ("float16", -1e30), ("bfloat16", 3.4e38)])
@pytest.mark.parametrize("allow", [False, True])
def test_a_value_too_large_is_an_error_and_never_inf(tmp_path, dtype, value, allow):
    layout = make_layout(10, dtype=dtype)
    with begin(tmp_path / "c.h5", layout, allow_nonfinite=allow) as writer:
        states = make_states(layout, 1)
        states.pooled["last", 2][1, 3] = value
        with pytest.raises(NonFiniteError, match=r"layer 2, pooling 'last', row 6 \(id 'id5'\).*" + dtype):
            writer.write_window(states)
        assert writer.pending() == [0, 1, 2]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nonfinite_values(tmp_path, dtype, value):
    layout = make_layout(10, dtype=dtype, poolings=("mean",))
    states = make_states(layout, 2)
    states.pooled["mean", 1][1, 0] = value
    with begin(tmp_path / "c.h5", layout) as writer, pytest.raises(NonFiniteError, match=r"layer 1.*id 'id9'.*got"):
        writer.write_window(states)
    with begin(tmp_path / "d.h5", layout, allow_nonfinite=True) as writer:
        for i in (0, 1):
            writer.write_window(make_states(layout, i))
        writer.write_window(states)
        writer.seal()
    with open_cache(tmp_path / "d.h5") as cache:
        np.testing.assert_array_equal(cache.layer(1)[9, 0], value)


def test_a_nonfinite_token_state_names_its_example(tmp_path):
    layout = make_layout(10, token_dtype="float16")
    states = make_states(layout, 1)
    states.tokens[2][int(layout.n_tokens[4])] = 70000  # the first token of example 5
    with (
        begin(tmp_path / "c.h5", layout) as writer,
        pytest.raises(NonFiniteError, match=r"layer 2, tokens, position 0, row 6 \(id 'id5'\)"),
    ):
        writer.write_window(states)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=200))
def test_bfloat16_rounds_as_torch_does(bits):
    from probekit.store.encoding import from_bfloat16, to_bfloat16

    values = np.array(bits, dtype=np.uint32).view(np.float32)
    out = np.empty(len(values), dtype=np.uint16)
    to_bfloat16(values, out)
    np.testing.assert_array_equal(from_bfloat16(out), torch.from_numpy(values).bfloat16().float().numpy())


# --- misuse


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


# --- what is there already


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
    locked = writer_module._locked

    def after_the_other(partial):
        monkeypatch.undo()
        write_all(path, layout)
        return locked(partial)

    monkeypatch.setattr(writer_module, "_locked", after_the_other)
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
