"""The tables beside the layer table, for a terminal: by class, few-shot, transfer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import pandas as pd
from rich.console import RenderableType
from rich.text import Text

from probekit.report.facts import records, titled_curves
from probekit.report.labels import number
from probekit.report.layout import GAP, ByWidth, Cells, stacked_tables, width_of
from probekit.spec import Json

LONGEST_HEADING = 16
SHORTEST_NAME = 10
"""Names of classes and data sets go on below beyond it, where there is no more room."""


def class_tables(classes: pd.DataFrame) -> Iterator[RenderableType]:
    """A title and a rich table per curve: precision, recall, F1 and support of every class at the selected layer."""
    for curve, title in titled_curves(classes, "classes"):
        yield ByWidth(partial(_class_table, curve, title))


def _class_table(curve: pd.DataFrame, title: str, width: int) -> Iterator[RenderableType]:
    headings = {"precision": "precision", "recall": "recall", "f1": "F1"}
    scores = [Cells(heading, [number(value) for value in curve[name]]) for name, heading in headings.items()]
    support = Cells("support", [f"{n:,}" for n in curve["support"]])
    fold = max(SHORTEST_NAME, width - width_of([*scores, support]) - GAP)
    names = Cells("class", [str(name) for name in curve["class"]], "left", fold)
    yield Text(title, style="bold")
    yield from stacked_tables([names], [*scores, support], width)


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


SIDE_TABLES: dict[str, Callable[[pd.DataFrame], Iterator[RenderableType]]] = {
    "classes": class_tables,
    "shots": shot_tables,
    "transfer": transfer_tables,
}
"""By the name that is in the file's name, too."""
