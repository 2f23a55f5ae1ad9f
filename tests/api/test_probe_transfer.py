"""Transfer between caches by command."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from probekit import extract
from probekit.cli import run
from tests.tiny import save_tiny_data


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tiny_model, tiny_data):
    folder = tmp_path_factory.mktemp("transfer")
    extract(tiny_model, tiny_data, out=folder / "a.h5", pooling="mean,last").close()
    save_tiny_data(folder / "b.tsv", 90)
    extract(tiny_model, folder / "b.tsv", out=folder / "b.h5", pooling="mean,last").close()
    extract(tiny_model, folder / "b.tsv", out=folder / "last.h5", pooling="last").close()
    extract(tiny_model, folder / "b.tsv", out=folder / "random.h5", pooling="mean,last", random_seed=1).close()
    return folder


def test_matrix_is_printed_and_written(folder, capsys):
    out = folder / "layers.csv"
    command = ["probe", str(folder / "a.h5"), "--target", "label,score", "--transfer", str(folder / "b.h5")]
    assert run([*command, "--out", str(out), "--jobs", "1"]) == 0
    text = capsys.readouterr().out
    assert "label: accuracy on each data set, logistic probe, last pooling" in text
    assert "fitted on" in text
    table, matrix = pd.read_csv(out), pd.read_csv(folder / "layers.transfer.csv")
    assert len(matrix) == 2 * 2 * 4 * 3  # targets x poolings x pairs x layers
    own = matrix[(matrix["trained_on"] == "a") & (matrix["tested_on"] == "a")]
    np.testing.assert_allclose(own["score"], table["score"])
    assert own["selected"].tolist() == table["selected"].tolist()


@pytest.mark.parametrize(
    ("other", "message"),
    {
        "last.h5": "--transfer last.h5: must have the layers and poolings of a.h5",
        "random.h5": "--transfer random.h5: must have the random_seed of a.h5: None; got 1",
        "a.h5": "--transfer: different caches, none twice",
    }.items(),
)
def test_mistakes(folder, capsys, other, message):
    assert (
        run(["probe", str(folder / "a.h5"), "--jobs", "1", "--target", "label", "--transfer", str(folder / other)]) == 2
    )
    assert message in capsys.readouterr().err
