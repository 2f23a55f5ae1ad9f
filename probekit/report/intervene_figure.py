"""An intervention as a picture: what each layer above still knows, and what random directions leave it."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from probekit.output import write_whole
from probekit.report.facts import records
from probekit.report.figure import GREY, UNDATED
from probekit.report.intervene_table import done_to
from probekit.report.labels import METRIC_LABELS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BARS = (
    ("score_before", "before", "0.75"),
    ("random_fixed", "random directions, same probe", "C0"),
    ("random_refitted", "random directions, refitted", "C9"),
    ("score_fixed", "the change of the title, same probe", "C3"),
    ("score_refitted", "the change of the title, refitted", "C1"),
)
"""Columns, what the legend calls them, colours."""

WIDTH = 0.16
"""Of a bar; layers are one apart."""


def draw_intervention(table: pd.DataFrame, path: Path) -> None:
    """Draw the scores of every layer as bars into ``path`` (``.png``, ``.svg`` or ``.pdf``), the baseline dashed."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    with rc_context({"svg.hashsalt": "probekit"}):  # the same table, the same file
        figure = _figure(table)
        FigureCanvasAgg(figure)
        drawn = io.BytesIO()
        figure.savefig(drawn, format=path.suffix[1:], dpi=150, metadata=UNDATED[path.suffix])
    write_whole(path, drawn.getvalue())


def _figure(table: pd.DataFrame) -> Figure:
    from matplotlib.figure import Figure

    rows = table[table["measure"] == "probe"]
    at = np.arange(len(rows))
    figure = Figure(figsize=(max(5.6, 0.9 * len(rows) + 2), 4.2), layout="constrained")
    axes = figure.add_subplot()
    for i, (column, label, colour) in enumerate(BARS):
        axes.bar(at + (i - (len(BARS) - 1) / 2) * WIDTH, rows[column], WIDTH, label=label, color=colour)
    first = records(rows)[0]
    axes.axhline(first["baseline"], color=GREY, linestyle="--", linewidth=0.8, label="without any text")
    values = rows[[column for column, _, _ in BARS]].to_numpy(dtype=float)
    low = float(np.nanmin([values.min(), first["baseline"]]))
    high = float(np.nanmax(values))
    axes.set_ylim(low - 0.1 * max(high - low, 1e-3), high + 0.05 * max(high - low, 1e-3))
    axes.set_xticks(at, [f"{layer:.0f}" for layer in rows["layer"]])
    axes.set_xlabel("layer")
    axes.set_ylabel(METRIC_LABELS.get(str(first["metric"]), str(first["metric"])))
    axes.set_title(f"{first['target']}: {done_to(first)}", fontsize="medium", parse_math=False)
    figure.legend(loc="outside lower center", ncols=2, fontsize="small")
    return figure
