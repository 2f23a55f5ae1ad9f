"""How far the methods are to be trusted over many texts, for a terminal."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import pandas as pd
from rich.console import RenderableType
from rich.text import Text

from probekit.report.labels import number
from probekit.report.layout import ByWidth, Cells, one_table
from probekit.spec import Json


def trust_lines(table: pd.DataFrame, *, of_numbers: bool) -> Iterator[RenderableType]:
    """A row for each method of ``data_set.trust_table``, under a sentence that says what it is."""
    if not len(table):
        return
    rows = [{str(name): value for name, value in row.items()} for row in table.to_dict("records")]
    what = "number" if of_numbers else "probability of the answer"
    yield Text(f"What the {what} loses without the fifth of the words that matter most, and when only they are left")
    yield ByWidth(partial(_table, rows))
    for row in rows:
        if not row["lower"] > 0:
            method = row["method"]
            said = f"Careful: by {method} the words that matter most matter no more than words at random."
            yield Text(said, style="yellow")


def _table(rows: list[Json], _width: int) -> Iterator[RenderableType]:
    def column(heading: str, name: str) -> Cells:
        return Cells(heading, [number(row[name]) for row in rows])

    yield one_table(
        [
            Cells("method", [row["method"] for row in rows], "left"),
            column("without", "comprehensiveness"),
            column("random", "random_comprehensiveness"),
            column("only", "sufficiency"),
            column("random", "random_sufficiency"),
            Cells("texts", [f"{row['n_texts']:,}" for row in rows]),
        ],
        [""] * len(rows),
    )
