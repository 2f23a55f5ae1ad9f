"""The layer table for a terminal: a row and a bar per layer, and what it says in words."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import partial

import pandas as pd
from rich.console import RenderableType
from rich.text import Text

from probekit.report.bars import Scale, scale_of
from probekit.report.facts import CurveFacts, layer_facts, records
from probekit.report.labels import number
from probekit.report.layout import GAP, ByWidth, Cells, one_table, width_of
from probekit.spec import Json

BAR_WIDTH = 24
"""At most; where there is less room, less."""


def layer_tables(table: pd.DataFrame, *, how: Mapping[tuple[str, str], str] | None = None) -> Iterator[RenderableType]:
    """Per curve a title, a table with a bar per layer, the verdict and what the score is held against.

    ``how``: by target and task, a phrase that says how the column was read.
    """
    for facts in layer_facts(table, how):
        yield ByWidth(partial(_layer_table, facts))


def _layer_table(facts: CurveFacts, width: int) -> Iterator[RenderableType]:
    yield Text(facts.title, style="bold")
    if facts.read_as:
        yield Text(facts.read_as)
    selected = [bool(chosen) for chosen in facts.rows["selected"]]
    yield one_table(_fitting(facts, selected, width), ["bold green" if chosen else "" for chosen in selected])
    for i, sentence in enumerate(facts.verdict):
        yield Text(sentence, style="" if i else "bold")
    yield Text("\n".join(facts.notes), style="dim")


def _fitting(facts: CurveFacts, selected: Sequence[bool], width: int) -> list[Cells]:
    """The columns that there is room for: bars go first, then validation, words in the interval, the interval."""
    rows = records(facts.rows)
    names = [f"{row['layer']}{'*' if row['final_norm'] else ''}" for row in rows]
    layer = Cells("layer", [("→ " if chosen else "") + name for chosen, name in zip(selected, names, strict=True)])
    score = Cells(facts.metric, [number(row["score"]) for row in rows])
    interval = Cells("95% interval", [_interval(row, " to ") for row in rows], "left")
    short = Cells("95%", [_interval(row, "..") for row in rows], "left")
    val = Cells("validation", [number(row["val_score"]) for row in rows])
    scale = scale_of([row["score"] for row in rows], rows[0]["baseline"], is_r2=rows[0]["metric"] == "r2")
    room = min(BAR_WIDTH, width - width_of([layer, score, interval, val]) - GAP)
    if room >= scale.narrowest:
        return [layer, score, interval, val, _bars(rows, scale, selected, room)]
    for columns in ([layer, score, interval, val], [layer, score, interval], [layer, score, short]):
        if width_of(columns) <= width:
            return columns
    return [layer, score]


def _interval(row: Json, between: str) -> str:
    ends = [row["ci_low"], row["ci_high"]]
    return number(math.nan) if any(map(math.isnan, ends)) else between.join(map(number, ends))


def _bars(rows: Sequence[Json], scale: Scale, selected: Sequence[bool], width: int) -> Cells:
    styles = ["green" if chosen else "blue" for chosen in selected]
    bars = [Text(scale.bar(row["score"], width), style) for row, style in zip(rows, styles, strict=True)]
    return Cells(scale.heading(width), bars, "left")
