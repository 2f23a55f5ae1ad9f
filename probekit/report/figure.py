"""The curves as a picture."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from math import ceil
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from probekit.output import write_whole
from probekit.report.facts import CurveFacts, layer_facts, origin
from probekit.report.labels import LOWEST_R2

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_COLUMNS = 3
PANEL_INCHES = (5.6, 4.2)
TITLE_CHARACTERS, PANEL_TITLE_CHARACTERS, LEGEND_CHARACTERS = 60, 46, 72
"""As many fit into a panel's width."""
LEGEND_HANDLE = 7  # characters that a legend entry takes beside its text
LINE_INCHES = 0.19
N_COLOURS, MARKERS = 10, ".s^Dv*"
"""The eleventh curve has the first one's colour and another marker."""
BAND, ALL_BANDS, ONE_BAND = 0.15, 0.6, 0.4
"""Opacity of an interval; of all of them together, where there are many; of a single layer's."""
GREY = "0.4"
LINES: dict[str, dict[str, Any]] = {
    "baseline": {"linestyle": "--", "linewidth": 0.8},
    "text_baseline": {"linestyle": ":", "linewidth": 1.2},
}


def draw_curves(table: pd.DataFrame, path: Path, *, title: str = "") -> None:
    """Draw score over layer with 95% intervals, a panel per target, into ``path`` (``.png``, ``.svg`` or ``.pdf``).

    The layer chosen on validation has a ring. Dashes: the majority or mean baseline; dots: the text-only baseline. The
    legend is below the panels and names what differs between the curves, the cache first.
    """
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    with rc_context({"svg.hashsalt": "probekit"}):  # the same table, the same file
        figure = _figure(table, title)
        FigureCanvasAgg(figure)
        drawn = io.BytesIO()
        figure.savefig(drawn, format=path.suffix[1:], dpi=150, metadata=UNDATED[path.suffix])
    write_whole(path, drawn.getvalue())


UNDATED: dict[str, dict[str, Any]] = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}, ".png": {}}


def _figure(table: pd.DataFrame, title: str) -> Figure:
    from matplotlib.figure import Figure

    curves = layer_facts(table)
    one_metric = dict.fromkeys((curve.target, curve.task.name) for curve in curves)
    panels = [[c for c in curves if (c.target, c.task.name) == of_panel] for of_panel in one_metric]
    columns = min(MOST_COLUMNS, len(panels))
    rows = ceil(len(panels) / columns)
    titles = wrap(title or origin(table), TITLE_CHARACTERS * columns)
    named = [name for name in curves[0].parts if any(len({c.parts[name] for c in panel}) > 1 for panel in panels)]
    looks = _looks(curves, named)
    entries = _legend(curves, looks)
    texts = [wrap(text, LEGEND_CHARACTERS * columns, break_on_hyphens=False) or [""] for text in entries]
    beside = max(1, LEGEND_CHARACTERS * columns // (max(len(line) for text in texts for line in text) + LEGEND_HANDLE))
    n_lines = len(titles) + ceil(len(entries) / beside) * max(map(len, texts)) + 1
    width, height = PANEL_INCHES
    figure = Figure(figsize=(width * columns, height * rows + LINE_INCHES * n_lines), layout="constrained")
    for i, panel in enumerate(panels):
        _draw_panel(figure.add_subplot(rows, columns, i + 1), panel, named, looks)
    figure.suptitle("\n".join(titles), fontsize="medium", parse_math=False)
    legend = figure.legend(
        list(entries.values()),
        ["\n".join(text) for text in texts],
        loc="outside lower center",
        ncols=beside,
        fontsize="small",
    )
    for entry in legend.get_texts():
        entry.set_parse_math(False)  # a dollar in a name is a dollar
    return figure


def _label(curve: CurveFacts, named: Sequence[str]) -> str:
    """What tells a curve from the others: the parts of its title that differ, or nothing."""
    return ", ".join(curve.parts[name] for name in named)


def _looks(curves: Sequence[CurveFacts], named: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Colour and marker of each label: a curve looks the same in every panel."""
    labels = dict.fromkeys(_label(curve, named) for curve in curves)
    return {label: (f"C{i % N_COLOURS}", MARKERS[i // N_COLOURS % len(MARKERS)]) for i, label in enumerate(labels)}


def _legend(curves: Sequence[CurveFacts], looks: Mapping[str, tuple[str, str]]) -> dict[str, Artist]:
    """What each entry says and looks like: the curves, then what all of them share."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    unnamed = " or ".join(dict.fromkeys(curve.parts["probe"] for curve in curves))
    entries: dict[str, Artist] = {
        label or unnamed: Line2D([], [], color=colour, marker=marker) for label, (colour, marker) in looks.items()
    }
    entries |= {curve.leak: Line2D([], [], linestyle="") for curve in curves if curve.leak}
    entries["best on validation"] = Line2D([], [], color=GREY, marker="o", markerfacecolor="white", linestyle="")
    entries["95% interval"] = Patch(color=GREY, alpha=BAND, linewidth=0)
    for column, line in LINES.items():
        names = dict.fromkeys(held.name for curve in curves for held in curve.against if held.column == column)
        if names:
            entries[" or ".join(names)] = Line2D([], [], color=GREY, **line)
    return entries


def _draw_panel(
    axes: Axes, panel: Sequence[CurveFacts], named: Sequence[str], looks: Mapping[str, tuple[str, str]]
) -> None:
    from matplotlib.ticker import MaxNLocator

    for curve in panel:
        rows, (colour, marker) = curve.rows, looks[_label(curve, named)]
        of_interval = rows["layer"], rows["ci_low"], rows["ci_high"]
        if len(rows) == 1:
            axes.vlines(*of_interval, color=colour, alpha=ONE_BAND, linewidth=3)
        else:
            axes.fill_between(*of_interval, color=colour, alpha=min(BAND, ALL_BANDS / len(panel)), linewidth=0)
        axes.plot(rows["layer"], rows["score"], color=colour, marker=marker, markersize=5)
        chosen = rows[rows["selected"]]
        axes.plot(chosen["layer"], chosen["score"], "o", color=colour, markersize=9, markerfacecolor="white")
    for column, line in LINES.items():
        held = {_label(curve, named): one.value for curve in panel for one in curve.against if one.column == column}
        if len(set(held.values())) == 1:
            axes.axhline(next(iter(held.values())), color=GREY, **line)
        else:
            for label, value in held.items():
                axes.axhline(value, color=looks[label][0], **line)
    table = pd.concat([curve.rows for curve in panel])
    low, high = _limits(table)
    below = table["metric"].iloc[0] == "r2" and table["score"].min() < low
    axes.set_title("\n".join(wrap(panel[0].target, PANEL_TITLE_CHARACTERS)), parse_math=False)
    axes.set_xlabel("layer (0: embeddings)")
    axes.set_ylabel(panel[0].metric + (f" (below {LOWEST_R2:g} not shown)" if below else ""))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if table["layer"].nunique() == 1:
        axes.set_xticks(table["layer"].unique())
    axes.grid(visible=True, alpha=0.25)
    axes.set_ylim(low, high)


def _limits(table: pd.DataFrame) -> tuple[float, float]:
    values = table[["score", "ci_low", "ci_high", *LINES]].to_numpy(dtype=float)
    finite = values[np.isfinite(values)]
    if not len(finite):  # no score at all
        return 0.0, 1.0
    low, high = float(finite.min()), float(finite.max())
    if table["metric"].iloc[0] == "r2" and high > LOWEST_R2:
        low = max(low, LOWEST_R2)
    margin = 0.05 * max(high - low, 1e-3)
    return low - margin, high + margin
