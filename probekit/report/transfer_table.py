"""The transfer matrix for a terminal."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import pandas as pd
from rich.console import RenderableType
from rich.text import Text

from probekit.report.facts import records, titled_curves
from probekit.report.labels import number
from probekit.report.layout import ByWidth, Cells, stacked_tables
from probekit.spec import Json

LONGEST_HEADING = 16
SHORTEST_NAME = 10
"""Names of data sets go on below beyond it."""


def transfer_tables(transfer: pd.DataFrame) -> Iterator[RenderableType]:
    """Per target, pooling and probe a title and a rich matrix: fitted on down, tested on across; chosen layers."""
    for curve, title in titled_curves(transfer, "transfer"):
        yield ByWidth(partial(_transfer_table, curve, title))


def _transfer_table(curve: pd.DataFrame, title: str, width: int) -> Iterator[RenderableType]:
    chosen = curve[curve["selected"]]
    names = [str(name) for name in chosen["trained_on"].unique()]
    beside = [
        Cells("fitted on", names, "left", max(SHORTEST_NAME, width // 3)),
        Cells("layer", [str(rows["layer"].iloc[0]) for _, rows in chosen.groupby("trained_on", sort=False)]),
    ]
    seen = chosen[chosen["n_duplicate"] > 0]
    columns = [
        Cells(str(name), [_cell(row) for row in records(rows)], fold=LONGEST_HEADING)
        for name, rows in chosen.groupby("tested_on", sort=False)
    ]
    yield Text(title, style="bold")
    yield from stacked_tables(beside, columns, width)
    for row in records(seen):
        rows = f"{row['n_duplicate']:,.0f} of the {row['n_test']:,} test rows of {row['tested_on']}"
        yield Text(f"* {rows} are texts that the probe of {row['trained_on']} was fitted on: no other texts")
    yield Text("each row at the layer that is best on its own validation rows", style="dim")


def _cell(row: Json) -> str:
    """The score, with a star if the probe knew some of the test's texts."""
    return number(row["score"]) + ("*" if row["n_duplicate"] > 0 else "")
