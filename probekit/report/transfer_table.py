"""The transfer matrix for a terminal."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd
from rich.console import Group
from rich.table import Table
from rich.text import Text

from probekit.report.labels import METRIC_LABELS


def transfer_tables(transfer: pd.DataFrame) -> Iterator[Group]:
    """Per target, pooling and probe a title and a rich matrix: fitted on down, tested on across; chosen layers."""
    for _, curve in transfer.groupby(["target", "pooling", "probe"], sort=False):
        first = curve.iloc[0]
        table = Table(box=None)
        table.add_column("fitted on")
        table.add_column("layer", justify="right")
        for name in curve["tested_on"].unique():
            table.add_column(Text(str(name)), justify="right")
        for name, row in curve[curve["selected"]].groupby("trained_on", sort=False):
            table.add_row(Text(str(name)), str(row["layer"].iloc[0]), *(f"{score:.3f}" for score in row["score"]))
        metric = METRIC_LABELS[first["metric"]]
        title = f"{first['target']}: {metric} on each data set, {first['probe']} probe, {first['pooling']} pooling"
        caption = "each row at the layer that is best on its own validation rows"
        yield Group(Text(title, style="bold"), table, Text(caption, style="dim"))
