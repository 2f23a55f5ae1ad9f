"""How much work a window is, and that an unfinished cache keeps the windows it was begun with."""

from __future__ import annotations

import json

import h5py
import numpy as np
import pytest

from probekit import extract, open_cache
from probekit.extraction.plan import affordable_tokens, make_plan, plan_batches
from probekit.store import describe, partial_path, windows_of
from tests.tiny import save_tiny_data

MINILM, SMOLLM = 6 * 1_774_464, 30 * 3_540_096
"""Weights of their blocks."""


def test_a_small_job_is_one_window_and_a_slow_one_many():
    sizes = np.full(1000, 25, dtype=np.int32)
    plans = {}
    for name, n in {"minilm": MINILM, "smollm": SMOLLM}.items():
        tokens = affordable_tokens(n, device="cpu", batch_tokens=2048)
        plans[name] = make_plan(sizes, batch_tokens=2048, window_tokens=tokens)
    assert len(plans["minilm"].windows) == 1
    assert {stop - start for start, stop in plans["smollm"].windows[:-1]} == {141}


def test_no_window_is_smaller_than_a_batch():
    assert affordable_tokens(70_000_000_000, device="cpu", batch_tokens=2048) == 2048
    assert affordable_tokens(0, device="cpu", batch_tokens=2048) > 10**9
    assert affordable_tokens(SMOLLM, device="cuda", batch_tokens=2048) > 10**6
    assert affordable_tokens(SMOLLM, device="xpu", batch_tokens=1) == affordable_tokens(
        SMOLLM, device="cpu", batch_tokens=1
    )


def test_given_windows_are_read_in_the_batches_of_a_plan_of_their_own():
    sizes = np.random.default_rng(0).integers(1, 60, 500).astype(np.int32)
    plan = make_plan(sizes, batch_tokens=300, window_rows=70)
    again = plan_batches(sizes, plan.windows, batch_tokens=300)
    assert again.windows == plan.windows
    for mine, other in zip(again.batches, plan.batches, strict=True):
        assert [batch.tolist() for batch in mine] == [batch.tolist() for batch in other]


@pytest.fixture
def window_rows(monkeypatch):
    from probekit.extraction import plan

    def to(n):
        monkeypatch.setitem(plan.cut_windows.__kwdefaults__, "window_rows", n)

    return to


def test_an_unfinished_cache_with_other_windows_is_gone_on_with(tmp_path, tiny_model, window_rows):
    data, out, whole = save_tiny_data(tmp_path / "d.tsv", n=40), tmp_path / "c.h5", tmp_path / "whole.h5"
    window_rows(16)
    extract(tiny_model, data, out=whole, batch_tokens=64).close()
    extract(tiny_model, data, out=out, batch_tokens=64).close()
    out.rename(partial_path(out))
    with h5py.File(partial_path(out), "r+") as file:
        spec = dict(file.attrs)["spec"]
        file["progress/done"][1] = file["progress/sealed"][0] = 0
        file["pooled/mean/001"][16:32] = 0
    window_rows(9)
    assert windows_of(out, json.loads(spec)) == ((0, 16), (16, 32), (32, 40))
    with extract(tiny_model, data, out=out, batch_tokens=64) as cache, open_cache(whole) as other:
        assert cache.seal == other.seal
        np.testing.assert_array_equal(cache.layer(1, "mean"), other.layer(1, "mean"))
    assert describe(out).n_windows == 3


def test_windows_of_something_else_are_not_taken(tmp_path, tiny_model):
    data, out = save_tiny_data(tmp_path / "d.tsv", n=10), tmp_path / "c.h5"
    assert windows_of(out, {}) is None
    extract(tiny_model, data, out=out).close()
    out.rename(partial_path(out))
    assert windows_of(out, {"model": "another"}) is None
    partial_path(out).write_bytes(b"something else")
    assert windows_of(out, {}) is None
