"""What goes in comes out, whatever the shapes, dtypes and the order of the windows."""

from __future__ import annotations

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

from probekit.errors import CacheError, SpecError
from probekit.store import describe, open_cache, stored_spec, verify
from tests.store.store_cases import (
    SPEC,
    begin,
    make_examples,
    make_layout,
    make_states,
    whole_pooled,
    whole_tokens,
    write_all,
)

DTYPES = ("float32", "float16", "bfloat16")


def rounded(values: np.ndarray, dtype: str) -> np.ndarray:
    """The independent reference: PyTorch's own rounding."""
    if dtype == "float32":
        return values
    back = torch.from_numpy(values).to(getattr(torch, dtype))
    return back.numpy() if dtype == "float16" else back.float().numpy()


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
    spec = SPEC | {"prompt": "x" * 90_000 + "{text}", "note": "y" * 300_000}
    write_all(tmp_path / "c.h5", make_layout(3), spec=spec)
    assert stored_spec(tmp_path / "c.h5").spec == spec


def test_stored_spec(tmp_path):
    path = tmp_path / "c.h5"
    assert stored_spec(path) is None
    layout = make_layout(10)
    with begin(path, layout) as writer:
        writer.write_window(make_states(layout, 0))
        partial = stored_spec(f"{path}.partial")
        assert (partial.sealed, partial.windows_done, partial.n_windows, len(partial.layers)) == (False, 1, 3, 3)
        assert stored_spec(path) is None
    (tmp_path / "other.h5").write_text("label,text\n")
    with pytest.raises(CacheError, match="not a probekit cache"):
        stored_spec(tmp_path / "other.h5")


def test_store_loads_no_torch():
    code = "import sys, probekit.store; sys.exit(any(m in sys.modules for m in ('torch', 'transformers', 'sklearn')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
