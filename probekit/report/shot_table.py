"""The few-shot table for a terminal."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import pandas as pd
from rich.console import RenderableType
from rich.text import Text

from probekit.report.facts import titled_curves
from probekit.report.labels import number
from probekit.report.layout import ByWidth, Cells, stacked_tables


def shot_tables(shots: pd.DataFrame) -> Iterator[RenderableType]:
    """Per curve a title and a rich table: layers down, shots across, mean and standard deviation in the cells."""
    for curve, title in titled_curves(shots, "shots"):
        yield ByWidth(partial(_shot_table, curve, title))


def _shot_table(curve: pd.DataFrame, title: str, width: int) -> Iterator[RenderableType]:
    layers = Cells("layer", [str(layer) for layer in curve["layer"].unique()])
    columns = [
        Cells(str(k), [f"{number(m)} ±{number(s)}" for m, s in zip(rows["mean"], rows["sd"], strict=True)])
        for k, rows in curve.groupby("shots", sort=False)
    ]
    yield Text(title, style="bold")
    yield from stacked_tables([layers], columns, width)
    yield Text(f"mean ± sd of {curve['draws'].iloc[0]} draws", style="dim")
