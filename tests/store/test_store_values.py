"""Values that don't fit the storage dtype, and rounding."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from probekit.errors import NonFiniteError
from probekit.store import open_cache
from tests.store.store_cases import (
    begin,
    make_layout,
    make_states,
)

DTYPES = ("float32", "float16", "bfloat16")


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
