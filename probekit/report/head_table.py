"""The table of trained heads for a terminal: each beside the probe of the same states."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import pandas as pd
from rich.console import RenderableType
from rich.text import Text

from probekit.report.facts import origin, records
from probekit.report.labels import METRIC_LABELS, known, number
from probekit.report.layout import ByWidth, Cells, stacked_tables
from probekit.spec import Json


def head_table(heads: pd.DataFrame) -> Iterator[RenderableType]:
    """Per target a title and a rich table: the probes and the heads, best on validation in bold."""
    for target, rows in heads.groupby("target", sort=False):
        yield ByWidth(partial(_of_target, str(target), rows))


def _of_target(target: str, heads: pd.DataFrame, width: int) -> Iterator[RenderableType]:
    rows = records(heads)
    metric = METRIC_LABELS.get(str(rows[0]["metric"])) or str(rows[0]["metric"])
    best = max(row["val_score"] for row in rows)
    several = heads["cache"].nunique() > 1
    names = [Cells("head", [_name(row, several) for row in rows], "left", max(12, width // 2))]
    columns = [
        Cells("layer", [str(row["layer"]) for row in rows]),
        Cells(metric, [number(row["score"]) for row in rows]),
        Cells("95% interval", [f"{number(row['ci_low'])} to {number(row['ci_high'])}" for row in rows], "left"),
        Cells("validation", [number(row["val_score"]) for row in rows]),
        Cells("training", [number(row["train_score"]) for row in rows]),
        Cells("epoch", [f"{row['epoch']:g}" if known(row["epoch"]) else "" for row in rows]),
        Cells("trained numbers", [f"{row['n_trained']:,.0f}" for row in rows]),
    ]
    yield Text(f"{target}: {origin(heads)}", style="bold")
    yield from stacked_tables(
        names, columns, width, styles=["bold green" if r["val_score"] == best else "" for r in rows]
    )
    for row in rows:
        if known(row["centre_of_gravity"]):
            yield Text(f"{row['probe']}: the mean layer of the mix by its weights is {row['centre_of_gravity']:.2f}")
    first = rows[0]
    against = [f"without any text {number(first['baseline'])}"]
    if known(first["text_baseline"]):
        against.append(f"the words alone {number(first['text_baseline'])}")
    yield Text("; ".join(against), style="dim")


def _name(row: Json, several: bool) -> str:
    return f"{row['probe']} ({row['cache']})" if several else str(row["probe"])
