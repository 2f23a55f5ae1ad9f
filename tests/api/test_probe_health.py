"""``probekit inspect --health`` from a real cache."""

from __future__ import annotations

import json

import numpy as np

from probekit import extract, open_cache
from probekit.api.inspect import diagnostics
from probekit.cli import run


def test_function_command_and_json_agree(tmp_path, tiny_model, tiny_data, capsys):
    path = tmp_path / "cache.h5"
    extract(tiny_model, tiny_data, out=path, pooling="mean,last").close()
    table = diagnostics(path).table
    assert table[["pooling", "layer"]].values.tolist() == [[p, k] for p in ("mean", "last") for k in range(3)]
    with open_cache(path) as cache:
        expected = [np.abs(cache.layer(k, p)).max() for p in ("mean", "last") for k in range(3)]
    np.testing.assert_allclose(table["max_abs"], expected)
    assert run(["inspect", str(path), "--health", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["cosine"] for row in rows] == table["cosine"].tolist()
    assert rows[0]["cka_previous"] is None
    assert run(["inspect", str(path), "--health"]) == 0
    text = capsys.readouterr().out
    assert "mean pooling" in text
    assert "eff. rank" in text
