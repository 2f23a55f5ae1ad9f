"""Which rows are read together."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from probekit.errors import SpecError
from probekit.extraction.plan import make_plan
from probekit.layers import choose_layers, parse_layers

LENGTHS = st.lists(st.integers(1, 60), min_size=1, max_size=80).map(lambda rows: np.array(rows, dtype=np.int32))


@given(LENGTHS, st.integers(1, 200), st.booleans(), st.integers(1, 30))
def test_windows_cover_all_rows_in_order_and_batches_part_each_window(n_tokens, batch_tokens, padded, window_rows):
    plan = make_plan(n_tokens, batch_tokens=batch_tokens, padded=padded, window_rows=window_rows)
    assert [start for start, _ in plan.windows] == [0, *(stop for _, stop in plan.windows[:-1])]
    assert plan.windows[-1][1] == len(n_tokens)
    for (start, stop), batches in zip(plan.windows, plan.batches, strict=True):
        assert 0 < stop - start <= window_rows
        rows = np.concatenate(batches)
        assert sorted(rows.tolist()) == list(range(start, stop))
        assert (np.diff(n_tokens[rows]) >= 0).all()
        for batch in batches:
            sizes = n_tokens[batch]
            cost = len(batch) * sizes.max() if padded else sizes.sum()
            assert len(batch) == 1 or cost <= batch_tokens


@given(LENGTHS, st.integers(1, 200))
def test_the_plan_depends_on_the_data_alone(n_tokens, batch_tokens):
    first, second = (make_plan(n_tokens.copy(), batch_tokens=batch_tokens) for _ in range(2))
    assert first.windows == second.windows
    for a, b in zip(first.batches, second.batches, strict=True):
        assert [x.tolist() for x in a] == [x.tolist() for x in b]


def test_windows_are_bounded_in_tokens_and_bytes():
    plan = make_plan(np.full(3000, 512, dtype=np.int32), batch_tokens=4096)
    assert max(stop - start for start, stop in plan.windows) * 512 <= 256 * 1024
    plan = make_plan(np.full(3000, 5, dtype=np.int32), batch_tokens=4096, bytes_per_row=4 * 1024**2)
    assert max(stop - start for start, stop in plan.windows) <= 128


def test_layers_as_people_write_them():
    assert choose_layers(parse_layers("all"), 3) == (0, 1, 2, 3)
    assert choose_layers(parse_layers("0, 2,-1"), 3) == (0, 2, 3)
    assert choose_layers(parse_layers("0:3:2"), 3) == (0, 2)
    assert choose_layers(parse_layers("-2:"), 3) == (2, 3)
    for wrong in ("", "x", "1.5", "0:1:2:3", "4", "-5", "3:3", "0:4:0"):
        with pytest.raises(SpecError, match="--layers"):
            choose_layers(parse_layers(wrong), 3)


def test_no_batch_crosses_the_length_limit():
    n_tokens = np.array([3, 9, 4, 8, 5, 12, 2], dtype=np.int32)
    plan = make_plan(n_tokens, batch_tokens=1000, length_limit=5)
    assert [n_tokens[batch].tolist() for batch in plan.batches[0]] == [[2, 3, 4, 5], [8, 9, 12]]
    assert [n_tokens[batch].tolist() for batch in make_plan(n_tokens, batch_tokens=1000).batches[0]] == [
        sorted(n_tokens)
    ]
