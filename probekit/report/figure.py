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
from probekit.report.curves import curves
from probekit.report.labels import LOOKED_UP, LOWEST_R2, METRIC_LABELS, TRIVIAL, WORDS_ALONE
from probekit.spec import OF_WORDS

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PANEL = ("target", "task")
"""One metric to a panel: a column may be classes in one cache and numbers in another."""
WITHIN_PANEL = ("cache", "model", "pooling", "probe", "group", "n_groups_crossing")
"""What tells the curves of one panel apart."""
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
BASELINES: dict[str, dict[str, Any]] = {
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

    panels = [panel for _, panel in table.groupby(list(PANEL), sort=False)]
    columns = min(MOST_COLUMNS, len(panels))
    rows = ceil(len(panels) / columns)
    titles = wrap(title or _origin(table), TITLE_CHARACTERS * columns)
    named = [name for name in WITHIN_PANEL if any(panel[name].nunique(dropna=False) > 1 for panel in panels)]
    looks = _looks(panels, named)
    entries = _legend(table, looks)
    texts = [wrap(text, LEGEND_CHARACTERS * columns) or [""] for text in entries]
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


def _origin(table: pd.DataFrame) -> str:
    """Which data, and of which model (several are in the legend)."""
    data, models = (list(dict.fromkeys(table[name].astype(str))) for name in ("dataset", "model"))
    return "; ".join([*models, *data] if len(models) == 1 else data)


def _label(first: pd.Series, named: Sequence[str]) -> str:
    """What tells a curve from the others: its values of the columns that differ, or nothing."""
    return ", ".join([str(first[name]) for name in named if "group" not in name] + _groups(first, named))


def _looks(panels: Sequence[pd.DataFrame], named: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Colour and marker of each label: a curve looks the same in every panel."""
    labels = dict.fromkeys(_label(curve.iloc[0], named) for panel in panels for curve in curves(panel))
    return {label: (f"C{i % N_COLOURS}", MARKERS[i // N_COLOURS % len(MARKERS)]) for i, label in enumerate(labels)}


def _legend(table: pd.DataFrame, looks: Mapping[str, tuple[str, str]]) -> dict[str, Artist]:
    """What each entry says and looks like: the curves, then what all of them share."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    unnamed = f"{' or '.join(dict.fromkeys(table['probe'].astype(str)))} probe"
    entries: dict[str, Artist] = {
        label or unnamed: Line2D([], [], color=colour, marker=marker) for label, (colour, marker) in looks.items()
    }
    leaking = table[table["n_groups_crossing"].fillna(0) > 0]
    for group in dict.fromkeys(leaking["group"]):
        entries[f"LEAK: groups of {group} are in more than one part"] = Line2D([], [], linestyle="")
    entries["best on validation"] = Line2D([], [], color=GREY, marker="o", markerfacecolor="white", linestyle="")
    entries["95% interval"] = Patch(color=GREY, alpha=BAND, linewidth=0)
    entries[" or ".join(dict.fromkeys(TRIVIAL[task] for task in table["task"]))] = _grey("baseline")
    tasks = table[table["text_baseline"].notna()]["task"]
    if len(tasks):
        words = dict.fromkeys(LOOKED_UP if task in OF_WORDS else WORDS_ALONE for task in tasks)
        entries[" or ".join(words)] = _grey("text_baseline")
    return entries


def _grey(baseline: str) -> Artist:
    from matplotlib.lines import Line2D

    return Line2D([], [], color=GREY, **BASELINES[baseline])


def _draw_panel(axes: Axes, table: pd.DataFrame, named: Sequence[str], looks: Mapping[str, tuple[str, str]]) -> None:
    from matplotlib.ticker import MaxNLocator

    of_panel = [(curve, *looks[_label(curve.iloc[0], named)]) for curve in curves(table)]
    for curve, colour, marker in of_panel:
        of_interval = curve["layer"], curve["ci_low"], curve["ci_high"]
        if len(curve) == 1:
            axes.vlines(*of_interval, color=colour, alpha=ONE_BAND, linewidth=3)
        else:
            axes.fill_between(*of_interval, color=colour, alpha=min(BAND, ALL_BANDS / len(of_panel)), linewidth=0)
        axes.plot(curve["layer"], curve["score"], color=colour, marker=marker, markersize=5)
        chosen = curve[curve["selected"]]
        axes.plot(chosen["layer"], chosen["score"], "o", color=colour, markersize=9, markerfacecolor="white")
    for name, line in BASELINES.items():
        one = table[name].nunique() == 1
        for curve, colour, _ in of_panel[:1] if one else of_panel:
            axes.axhline(curve[name].iloc[0], color=GREY if one else colour, **line)
    low, high = _limits(table)
    metric = table["metric"].iloc[0]
    below = metric == "r2" and table["score"].min() < low
    axes.set_title("\n".join(wrap(str(table["target"].iloc[0]), PANEL_TITLE_CHARACTERS)), parse_math=False)
    axes.set_xlabel("layer (0: embeddings)")
    axes.set_ylabel(METRIC_LABELS[metric] + (f" (below {LOWEST_R2:g} not shown)" if below else ""))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if table["layer"].nunique() == 1:
        axes.set_xticks(table["layer"].unique())
    axes.grid(visible=True, alpha=0.25)
    axes.set_ylim(low, high)


def _groups(first: pd.Series, named: Sequence[str]) -> list[str]:
    if "group" not in named:
        return []
    if pd.isna(first["group"]):
        return ["no groups"]
    return [f"{first['group']} leaking" if first["n_groups_crossing"] else f"new {first['group']}"]


def _limits(table: pd.DataFrame) -> tuple[float, float]:
    values = table[["score", "ci_low", "ci_high", *BASELINES]].to_numpy(dtype=float)
    finite = values[np.isfinite(values)]
    if not len(finite):  # no score at all
        return 0.0, 1.0
    low, high = float(finite.min()), float(finite.max())
    if table["metric"].iloc[0] == "r2" and high > LOWEST_R2:
        low = max(low, LOWEST_R2)
    margin = 0.05 * max(high - low, 1e-3)
    return low - margin, high + margin
