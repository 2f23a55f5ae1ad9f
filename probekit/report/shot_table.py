"""The few-shot table for a terminal."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd
from rich.console import Group
from rich.table import Table
from rich.text import Text

from probekit.report.labels import METRIC_LABELS


def shot_tables(shots: pd.DataFrame) -> Iterator[Group]:
    """Per curve a title and a rich table: layers down, shots across, mean and standard deviation in the cells."""
    for _, curve in shots.groupby(["model", "target", "pooling", "protocol"], sort=False):
        first = curve.iloc[0]
        table = Table(box=None)
        table.add_column("layer", justify="right", no_wrap=True)
        for k in curve["shots"].unique():
            table.add_column(str(k), justify="right", no_wrap=True)
        for layer, row in curve.groupby("layer", sort=False):
            table.add_row(str(layer), *(f"{m:.3f} ±{s:.3f}" for m, s in zip(row["mean"], row["sd"], strict=True)))
        per = "rows of each class" if first["metric"] == "accuracy" else "rows"
        what = METRIC_LABELS[first["metric"]]
        title = f"{first['target']}: {what} after few {per}, {first['protocol']} protocol, {first['pooling']} pooling"
        yield Group(Text(title, style="bold"), table, Text(f"mean ± sd of {first['draws']} draws", style="dim"))
