"""The per-class table for a terminal."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd
from rich.console import Group
from rich.table import Table
from rich.text import Text


def class_tables(classes: pd.DataFrame) -> Iterator[Group]:
    """A title and a rich table per curve: precision, recall, F1 and support of every class at the selected layer."""
    for _, curve in classes.groupby(["model", "target", "pooling", "probe"], sort=False):
        first = curve.iloc[0]
        table = Table(box=None)
        table.add_column("class")
        for name in ("precision", "recall", "F1", "support"):
            table.add_column(name, justify="right", no_wrap=True)
        for row in curve.to_dict("records"):
            scores = [f"{row[name]:.3f}" for name in ("precision", "recall", "f1")]
            table.add_row(Text(str(row["class"])), *scores, f"{row['support']:,}")
        title = (
            f"{first['target']} by class: {first['probe']} probe, {first['pooling']} pooling, layer {first['layer']}"
        )
        yield Group(Text(title, style="bold"), table)
