"""The per-class table for a terminal."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import pandas as pd
from rich.console import RenderableType
from rich.text import Text

from probekit.report.facts import titled_curves
from probekit.report.labels import number
from probekit.report.layout import GAP, ByWidth, Cells, stacked_tables, width_of

SHORTEST_NAME = 10
"""A class name has so many characters of a line at least."""


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
