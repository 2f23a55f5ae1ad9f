"""Poolings against plain NumPy, over any lengths."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from probekit.pooling import POOLINGS
from tests.numpy_poolings import NUMPY_POOLINGS


@pytest.mark.parametrize("name", POOLINGS)
@given(st.data())
def test_equals_numpy(name, data):
    lengths = data.draw(st.lists(st.integers(1, 9), min_size=1, max_size=8))
    floats = st.floats(-60_000, 60_000, width=32)
    hidden = data.draw(arrays.arrays(np.float32, (sum(lengths), 3), elements=floats))
    got = POOLINGS[name](torch.from_numpy(hidden), torch.tensor(lengths)).numpy()
    parts = np.split(hidden.astype(np.float64), np.cumsum(lengths)[:-1])
    np.testing.assert_allclose(got, [NUMPY_POOLINGS[name](part) for part in parts], rtol=1e-5, atol=0.02)


def test_mean_skip_first_differs_from_mean_by_the_first_token_alone():
    hidden = torch.tensor([[1000.0], [1.0], [3.0], [500.0], [7.0]])
    lengths = torch.tensor([3, 2])
    assert POOLINGS["mean_skip_first"](hidden, lengths).flatten().tolist() == [2.0, 7.0]
    hidden[0], hidden[3] = -1.0, -9.0
    assert POOLINGS["mean_skip_first"](hidden, lengths).flatten().tolist() == [2.0, 7.0]


def test_the_registry_is_complete():
    assert set(NUMPY_POOLINGS) == set(POOLINGS)
