"""The health of the features for a terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import pandas as pd
from rich.console import RenderableType
from rich.text import Text

from probekit.report.labels import number
from probekit.report.layout import ByWidth, Cells, stacked_tables

COLUMNS: dict[str, tuple[str, Callable[[float], str]]] = {
    "max_abs": ("max |x|", lambda value: f"{value:,.4g}"),
    "n_nonfinite": ("non-finite", lambda value: f"{value:,}"),
    "top_dimension": ("top dim", lambda value: f"{value:.1%}"),
    "effective_rank": ("eff. rank", lambda value: f"{value:,.1f}"),
    "cosine": ("cosine", number),
    "cka_previous": ("CKA", number),
}
"""Headings, and how a number is written."""

CAPTION = (
    "top dim: its share of the variance; eff. rank: directions that carry the variance; "
    "cosine: of random pairs of texts; CKA: likeness to the layer above this row"
)


def health_tables(health: pd.DataFrame) -> Iterator[RenderableType]:
    """A title and a rich table per pooling, a row per layer."""
    for pooling, rows in health.groupby("pooling", sort=False):
        yield ByWidth(partial(_health_table, rows, f"{pooling} pooling"))


def _health_table(rows: pd.DataFrame, title: str, width: int) -> Iterator[RenderableType]:
    layers = Cells("layer", [str(layer) for layer in rows["layer"]])
    columns = [
        Cells(heading, ["–" if pd.isna(value) else write(value) for value in rows[name]])
        for name, (heading, write) in COLUMNS.items()
    ]
    yield Text(title, style="bold")
    yield from stacked_tables([layers], columns, width)
    yield Text(CAPTION, style="dim")
