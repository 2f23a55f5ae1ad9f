"""The curves as a picture."""

from __future__ import annotations

import io
from math import ceil
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from probekit.output import write_whole
from probekit.report.labels import METRIC_LABELS, TRIVIAL
from probekit.spec import OF_WORDS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WITHIN_PANEL = ["model", "pooling", "probe", "group", "n_groups_crossing"]
"""What tells the curves of one target apart."""
LOWEST_R2 = -1.0  # far below zero there is nothing to read off
MOST_COLUMNS = 3
CHARACTERS_PER_PANEL = 60


def draw_curves(table: pd.DataFrame, path: Path, *, title: str = "") -> None:
    """Draw score over layer with 95% intervals, a panel per target, into ``path`` (``.png``, ``.svg`` or ``.pdf``).

    The layer chosen on validation has a ring. Dashes: the majority or mean baseline; dots: the text-only baseline.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    targets = list(dict.fromkeys(table["target"]))
    columns = min(MOST_COLUMNS, len(targets))
    rows = ceil(len(targets) / columns)
    figure = Figure(figsize=(5.6 * columns, 4.2 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    for i, target in enumerate(targets):
        _draw_panel(figure.add_subplot(rows, columns, i + 1), table[table["target"] == target])
    figure.suptitle(fill(title or _origin(table), CHARACTERS_PER_PANEL * columns), fontsize="medium")
    metadata = {"Date": None} if path.suffix == ".svg" else None  # the same table, the same file
    drawn = io.BytesIO()
    figure.savefig(drawn, format=path.suffix[1:], dpi=150, metadata=metadata)
    write_whole(path, drawn.getvalue())


def _origin(table: pd.DataFrame) -> str:
    """Which data, and of which model (several are in the legend)."""
    data, models = (list(dict.fromkeys(table[name].astype(str))) for name in ("dataset", "model"))
    return "; ".join([*models, *data] if len(models) == 1 else data)


def _draw_panel(axes: Axes, table: pd.DataFrame) -> None:
    from matplotlib.ticker import MaxNLocator

    named = [column for column in WITHIN_PANEL if table[column].nunique(dropna=False) > 1]
    for k, (_, curve) in enumerate(table.groupby(WITHIN_PANEL, sort=False, dropna=False)):
        colour = f"C{k}"
        first = curve.iloc[0]
        label = ", ".join([str(first[name]) for name in named if "group" not in name] + _groups(first, named))
        axes.fill_between(curve["layer"], curve["ci_low"], curve["ci_high"], color=colour, alpha=0.15, linewidth=0)
        axes.plot(curve["layer"], curve["score"], color=colour, marker=".", label=label or str(first["probe"]))
        chosen = curve[curve["selected"]]
        axes.plot(chosen["layer"], chosen["score"], "o", color=colour, markersize=9, markerfacecolor="white")
        axes.axhline(first["baseline"], color=colour, linestyle="--", linewidth=0.8)
        if np.isfinite(first["text_baseline"]):
            axes.axhline(first["text_baseline"], color=colour, linestyle=":", linewidth=1.2)
    axes.set_title(str(table["target"].iloc[0]))
    axes.set_xlabel("layer (0: embeddings)")
    axes.set_ylabel(METRIC_LABELS[table["metric"].iloc[0]])
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(visible=True, alpha=0.25)
    axes.set_ylim(*_limits(table))
    axes.plot([], [], "o", color="grey", markerfacecolor="white", label="best on validation")
    axes.fill_between([], [], [], color="grey", alpha=0.15, linewidth=0, label="95% interval")
    axes.plot([], [], color="grey", linestyle="--", linewidth=0.8, label=TRIVIAL[table["task"].iloc[0]])
    if table["text_baseline"].notna().any():
        of_words = table["task"].iloc[0] in OF_WORDS
        words = "each word looked up" if of_words else "words alone (TF-IDF)"
        axes.plot([], [], color="grey", linestyle=":", linewidth=1.2, label=words)
    axes.legend(fontsize="small")


def _groups(first: pd.Series, named: list[str]) -> list[str]:
    if "group" not in named:
        return []
    if pd.isna(first["group"]):
        return ["no groups"]
    return [f"{first['group']} leaking" if first["n_groups_crossing"] else f"new {first['group']}"]


def _limits(table: pd.DataFrame) -> tuple[float, float]:
    low = float(np.nanmin(table[["ci_low", "baseline", "text_baseline"]].to_numpy(dtype=float)))
    high = float(np.nanmax(table["ci_high"]))
    if table["metric"].iloc[0] == "r2":
        low = max(low, LOWEST_R2)
    margin = 0.05 * max(high - low, 1e-3)
    return low - margin, high + margin
