"""The table as files and on the terminal."""

from __future__ import annotations

import csv
import io
import json

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from probekit.report import draw_curves, layer_tables, table_csv, table_rows, write_table
from probekit.spec import TABLE_COLUMNS


@pytest.fixture
def table():
    rows = []
    for target, metric in (('la"bel, one', "accuracy"), ("height", "r2")):
        for layer in range(3):
            row = dict.fromkeys(TABLE_COLUMNS)
            row |= {
                "model": "org/m",
                "dataset": "d.tsv",
                "target": target,
                "metric": metric,
                "layer": layer,
                "n_layers": 2,
            }
            row |= {"task": "classification" if metric == "accuracy" else "regression", "pooling": "mean"}
            row |= {"probe": "logistic", "score": 0.5 + layer / 10, "ci_low": 0.4, "ci_high": 0.9, "val_score": 0.5}
            row |= {"selected": layer == 1, "final_norm": layer == 2, "baseline": -0.1, "delta_layer0": layer / 10}
            row |= {"text_baseline": np.nan, "control": np.nan, "n_train": 5, "n_val": 6, "n_test": 7, metric: 1 / 3}
            rows.append(row)
    return pd.DataFrame(rows, columns=list(TABLE_COLUMNS))


def test_csv_is_read_back_by_pythons_own_reader(table):
    """Trap: CSV quoting."""
    rows = list(csv.DictReader(io.StringIO(table_csv(table))))
    assert list(rows[0]) == list(TABLE_COLUMNS)
    assert rows[0]["target"] == 'la"bel, one'
    assert (rows[0]["accuracy"], rows[0]["r2"], rows[0]["control"]) == ("0.333333", "", "")
    assert len({len(row) for row in rows}) == 1


def test_json_has_the_same_rows_in_full_precision_and_no_nan(table, tmp_path):
    paths = write_table(table, {"versions": {"x": "1"}}, tmp_path / "layers.csv")
    assert [path.name for path in paths] == ["layers.csv", "layers.json"]
    record = json.loads(paths[1].read_text(encoding="utf-8"))
    assert record["versions"] == {"x": "1"}
    assert record["rows"][0]["accuracy"] == 1 / 3
    assert record["rows"][0]["control"] is None
    assert record["rows"] == table_rows(table)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["layers.csv", "layers.json"]


def test_the_same_table_gives_the_same_bytes(table, tmp_path):
    for name in ("a", "b"):
        write_table(table, {}, tmp_path / f"{name}.csv")
        draw_curves(table, tmp_path / f"{name}.png")
    for kind in ("csv", "json", "png"):
        assert (tmp_path / f"a.{kind}").read_bytes() == (tmp_path / f"b.{kind}").read_bytes()


def test_terminal_shows_every_layer_and_marks_the_chosen_one(table):
    console = Console(file=io.StringIO(), width=100)
    for part in layer_tables(table):
        console.print(part)
    text = console.file.getvalue()
    assert text.count("→ 1") == 2
    assert text.count("2*") == 2
    assert "R²" in text
    assert "best on validation: test accuracy 0.600" in text
    assert "against majority class -0.100, layer 0 0.500" in text
    assert "after the model's final norm" in text


@pytest.mark.parametrize("kind", ["png", "svg", "pdf"])
def test_picture(table, tmp_path, kind):
    draw_curves(table, tmp_path / f"curves.{kind}")
    head = (tmp_path / f"curves.{kind}").read_bytes()[:300]
    assert {"png": b"\x89PNG", "svg": b"<svg", "pdf": b"%PDF"}[kind] in head


def test_layers_that_the_test_can_not_tell_from_the_best_are_named(table):
    table["p_vs_best"] = [0.3, np.nan, 0.01] * 2
    console = Console(width=100, record=True)
    for part in layer_tables(table):
        console.print(part)
    text = console.export_text()
    assert text.count("not clearly different (p > 0.05): 0\n") == 2
