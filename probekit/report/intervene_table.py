"""The table of an intervention for a terminal, and what it says in words."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import partial

import pandas as pd
from rich.console import RenderableType
from rich.text import Text

from probekit.report.facts import records
from probekit.report.labels import METRIC_LABELS, known, number
from probekit.report.layout import ByWidth, Cells, stacked_tables
from probekit.spec import Json

MEASURES = {"next-token loss": "next-token loss", "answer": "own answer, AUROC"}
"""What the rows are called that are of no layer."""


def intervene_table(table: pd.DataFrame, verdict: Sequence[str]) -> Iterator[RenderableType]:
    """A title, a row per layer and what the model says itself, then the verdict."""
    yield ByWidth(partial(_drawn, table, verdict))


def _drawn(table: pd.DataFrame, verdict: Sequence[str], width: int) -> Iterator[RenderableType]:
    rows = records(table)
    first = rows[0]
    yield Text(f"{first['target']}: {done_to(first)}, {first['model']}", style="bold")
    removed, random = (f"{100 * first[name]:.1f}%" for name in ("variance_removed", "random_variance"))
    if not known(first["steer"]):
        took = "takes" if first["rank"] == 1 else f"are {first['rank']} directions and take"
        yield Text(f"it {took} {removed} of the variance of the pooled states, random ones {random}", style="dim")
    metric = METRIC_LABELS.get(str(first["metric"])) or str(first["metric"])
    columns = [
        Cells("before", [number(row["score_before"]) for row in rows]),
        Cells("same probe", [number(row["score_fixed"]) for row in rows]),
        Cells("refitted", [_or_blank(row["score_refitted"]) for row in rows]),
        Cells("random", [number(row["random_fixed"]) for row in rows]),
        Cells("random refitted", [_or_blank(row["random_refitted"]) for row in rows]),
        Cells("beyond random", [f"{row['beyond_random']:+.3f}" for row in rows]),
        Cells("95% interval", [_interval(row, "ci_low", "ci_high") for row in rows], "left"),
    ]
    if known(first["steer"]):
        columns += [
            Cells("mean answer moves", [_or_blank(row["shift"], "+.3f") for row in rows]),
            Cells("random", [_or_blank(row["random_shift"], "+.3f") for row in rows]),
            Cells("95% of the difference", [_interval(row, "shift_low", "shift_high") for row in rows], "left"),
        ]
    names = [Cells(f"layer ({metric})", [_name(row) for row in rows], "left", max(16, width // 3))]
    yield from stacked_tables(names, columns, width)
    for i, sentence in enumerate(verdict):
        yield Text(sentence, style="dim" if i and i == len(verdict) - 1 else "bold" if i == 0 else "")
    held = f"without any text {number(first['baseline'])}; random: mean of {first['n_random']}"
    yield Text(f"{held}; {first['n_train']} training, {first['n_test']} test rows", style="dim")


def done_to(row: Json) -> str:
    """What was done, in a few words."""
    layer = row["erased_at"]
    if known(row["steer"]):
        along = "the probe's direction" if row["erase"] == "direction" else "the class means"
        return f"{row['steer']:+g} along {along} added to every token at layer {layer}"
    how = {"leace": "LEACE", "direction": "the probe's own direction", "mean-difference": "the difference of means"}
    return f"{how[str(row['erase'])]} taken out of every token at layer {layer}"


def _name(row: Json) -> str:
    if row["measure"] in MEASURES:
        return MEASURES[str(row["measure"])]
    return f"{row['layer']:.0f}" + (" (changed here)" if row["layer"] == row["erased_at"] else "")


def _or_blank(value: float, how: str = ".3f") -> str:
    return format(value, how) if known(value) and math.isfinite(value) else ""


def _interval(row: Json, low: str, high: str) -> str:
    if not known(row[low]):
        return ""
    return f"{row[low]:+.3f} to {row[high]:+.3f}"
