"""Files that the first release made: they open, they predict, and the same inputs still give the same cache.

``tests/old`` was written by the code before "Never a wrong number" (format 1); nothing in it may be made anew.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import probekit
from probekit.cli import run
from probekit.store import verify

OLD = Path(__file__).parent / "old"
FINGERPRINT = "7a188d38f523f30344200b46c2eb71a2a28de73e95d404ff6db11f108ce9d932"
LABELS = OLD / "heads" / "old_model-label-mean-000-logistic.skops"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    shutil.copytree(OLD, tmp_path / "old")
    monkeypatch.chdir(tmp_path / "old")
    return tmp_path / "old"


def test_an_old_cache_opens_and_is_whole(folder):
    assert verify("cache.h5").ok
    with probekit.open_cache("cache.h5") as cache:
        assert cache.fingerprint == FINGERPRINT
        assert len(cache) == 60


def test_the_same_request_finds_the_old_cache(folder, capsys):
    before = Path("cache.h5").read_bytes()
    assert run(["extract", "model", "train.tsv", "--out", "cache.h5", "--dtype", "float32", "--tokens"]) == 0
    assert "nothing to do" in capsys.readouterr().err
    assert Path("cache.h5").read_bytes() == before


def test_a_new_extraction_has_the_old_fingerprint_and_values(folder):
    assert run(["extract", "model", "train.tsv", "--out", "new.h5", "--dtype", "float32", "--tokens"]) == 0
    with probekit.open_cache("cache.h5") as old, probekit.open_cache("new.h5") as new:
        assert new.fingerprint == old.fingerprint == FINGERPRINT
        assert new.spec == old.spec
        for layer in old.layers:
            # (Another processor rounds otherwise; on the one that wrote the old file they are equal to the bit.)
            np.testing.assert_allclose(new.layer(layer), old.layer(layer), atol=1e-6)
            np.testing.assert_allclose(new.tokens(layer).all, old.tokens(layer).all, atol=2e-3)


def test_an_old_probe_predicts(folder):
    found = probekit.predict(LABELS, ["very good film", "bad plot"], model="model")
    assert found.labels.tolist() == ["pos", "neg"]
    assert found.probability is not None
    np.testing.assert_allclose(found.probability[:, 0], [0.001346, 0.998911], atol=2e-5)


def test_an_old_cache_is_probed_as_before(folder):
    assert run(["probe", "cache.h5", "--target", "label,score", "--out", "new.csv", "--jobs", "1"]) == 0
    old, new = pd.read_csv("layers.csv"), pd.read_csv("new.csv")
    assert list(new.columns[: len(old.columns)]) == list(old.columns)
    pd.testing.assert_frame_equal(new[old.columns], old, rtol=1e-4, atol=1e-5)
