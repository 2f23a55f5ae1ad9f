"""A split column may say more than the part's name."""

from __future__ import annotations

import pytest

from probekit.errors import InputError
from probekit.splits import read_parts


def test_values_with_more_words():
    values = ["train_0", "Validation_matched", "test-mismatched", "dev1", "TRAINING", " valid "]
    parts = read_parts(values, "split")
    assert {part: rows.tolist() for part, rows in parts.items()} == {"train": [0, 4], "val": [1, 3, 5], "test": [2]}


@pytest.mark.parametrize("value", ["train_test", "unsupervised", "latest", "", "0", "constraint"])
def test_values_that_are_no_part(value):
    with pytest.raises(InputError, match=rf"split column 'split': values are train.*; got '{value}'"):
        read_parts(["train", value], "split")
