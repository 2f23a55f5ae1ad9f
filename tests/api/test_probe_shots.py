"""Few-shot curves by command."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from probekit import extract
from probekit.api.probe import run_probes
from probekit.cli import run
from probekit.evaluate.few_shot import Shots
from probekit.evaluate.plan import ProbeOptions


@pytest.fixture(scope="module")
def cache(tmp_path_factory, tiny_model, tiny_data):
    out = tmp_path_factory.mktemp("shots") / "cache.h5"
    extract(tiny_model, tiny_data, out=out, pooling="mean,last").close()
    return out


def test_table_is_printed_and_written(cache, capsys):
    out = cache.parent / "layers.csv"
    command = ["probe", str(cache), "--target", "label,score", "--shots", "4,1", "--draws", "3", "--out", str(out)]
    assert run([*command, "--jobs", "2"]) == 0
    text = capsys.readouterr().out
    assert "label: accuracy after few rows of each class, probekit protocol, mean pooling" in text
    assert "score: R² after few rows, probekit protocol, last pooling" in text
    assert "mean ± sd of 3 draws" in text
    written = pd.read_csv(out.with_suffix(".shots.csv"))
    assert len(written) == 2 * 2 * 3 * 2  # targets x poolings x layers x shots
    options = ProbeOptions(shots=Shots((1, 4), 3))
    same = run_probes([cache], ["label", "score"], options=options).tables["shots"]
    np.testing.assert_allclose(written["mean"], same["mean"], rtol=1e-5)


def test_mteb_by_command(cache, capsys):
    assert (
        run(["probe", str(cache), "--jobs", "1", "--target", "label", "--protocol", "mteb", "--pooling", "mean"]) == 0
    )
    text = capsys.readouterr().out
    assert "mteb protocol" in text
    assert "mean ± sd of 10 draws" in text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--shots few", "--shots few: numbers from 1, with commas"),
        ("--shots 0,1", "--shots, --draws: numbers from 1"),
        ("--shots 2 --draws 0", "--shots, --draws: numbers from 1"),
        ("--shots 40", "--shots 40: class neg has"),
        ("--protocol glue", "--protocol glue: mteb, without --shots"),
        ("--protocol mteb --shots 2", "--protocol mteb: mteb, without --shots"),
    ],
)
def test_mistakes(cache, capsys, options, message):
    assert run(["probe", str(cache), "--jobs", "1", "--target", "label", *options.split()]) == 2
    out, err = capsys.readouterr()
    assert message in err
    assert out == ""
