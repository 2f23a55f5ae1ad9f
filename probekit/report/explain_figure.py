"""Explanations as pictures: bars of the words, a heat map of words x layers, the words of a data set."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Sequence
from math import ceil
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from probekit.explain.data_set import top_words
from probekit.explain.results import Explanation, LayerExplanation
from probekit.output import write_whole
from probekit.plain import plain
from probekit.report.explain_facts import (
    answers_of,
    layer_facts,
    layers_title,
    reading_key,
    shares,
    title,
)
from probekit.report.figure import UNDATED
from probekit.spec import Json

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.text import Text

DPI = 150
MOST_TEXTS, MOST_CLASSES = 12, 6
"""Of more, the first."""
FOR, AGAINST, UNREAD = "#1b7837", "#762a83", "0.55"
COLOURS = "PRGn"
"""Purple: against; green: for. They can be told apart by the colour-blind, too."""
NOTHING = "0.87"
MARKERS = "o^sDv"
LONGEST_WORD = 24
ROW_INCHES, LINE_INCHES = 0.19, 0.2
LABEL_INCHES, BARS_INCHES, PANEL_GAP_INCHES = 1.9, 2.9, 0.35
AXIS_INCHES, MARGIN_INCHES = 0.5, 0.2
CHARACTERS = 13
"""As many of a heading fit into an inch."""
SMALL = 8.0
WORDS_PER_BAND, MOST_BANDS = 60, 20
"""A heat map of more words goes on below."""
CELL_INCHES = 0.2
TOP_INCHES = 1.75
SHARE_INCHES = 1.6


def draw_explanations(explanations: Sequence[Explanation], path: Path) -> None:
    """Draw a panel for each text into ``path`` (``.png``, ``.svg`` or ``.pdf``): a bar per word, in reading order.

    Bars are by the first method; markers, by the others, are scaled so that each method's largest is as long as the
    longest bar. Of more than ``MOST_TEXTS`` texts the first are drawn, and that is said.
    """
    _save(lambda: _explanations(explanations), path)


def draw_layers(layers: LayerExplanation, path: Path) -> None:
    """Draw words x layers into ``path`` as a heat map, the text baseline below, and each layer's share on its words."""
    _save(lambda: _layers(layers), path)


def draw_words(
    table: pd.DataFrame, path: Path, answers: Sequence[Any] | None = None, *, n: int = 10, least: int = 3
) -> None:
    """Draw into ``path``, for each of ``answers``, the words that speak most for it and most against it.

    ``table``, ``n``, ``least``: as for ``explain_terminal.word_lists``. Of more than ``MOST_CLASSES`` answers the
    first are drawn, and that is said.
    """
    _save(lambda: _words(table, answers_of(table) if answers is None else answers, n, least), path)


def _save(draw: Callable[[], Figure], path: Path) -> None:
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    with rc_context({"svg.hashsalt": "probekit"}), warnings.catch_warnings():  # the same data, the same file
        # A character that the font has not is a box in the picture, and no reason to warn.
        warnings.filterwarnings("ignore", message=r"Glyph .* missing from font")
        figure = draw()
        FigureCanvasAgg(figure)
        drawn = io.BytesIO()
        figure.savefig(drawn, format=path.suffix[1:], dpi=DPI, metadata=UNDATED[path.suffix])
    write_whole(path, drawn.getvalue())


class _Page:
    """A figure of so many inches on which things are placed from the top left."""

    def __init__(self, width: float, height: float) -> None:
        from matplotlib.figure import Figure

        self.width, self.height = width, height
        self.figure = Figure(figsize=(width, height))

    def axes(self, left: float, top: float, width: float, height: float) -> Axes:
        """Axes with their left upper corner at ``left``, ``top``."""
        bottom = self.height - top - height
        place = (left / self.width, bottom / self.height, width / self.width, height / self.height)
        return self.figure.add_axes(place)

    def lines(self, left: float, top: float, lines: Sequence[str], **style: Any) -> None:
        """Text, a line below the other."""
        for i, line in enumerate(lines):
            y = 1 - (top + i * LINE_INCHES) / self.height
            self.figure.text(left / self.width, y, line, va="top", parse_math=False, **style)


def _explanations(explanations: Sequence[Explanation]) -> Figure:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    drawn = explanations[:MOST_TEXTS]
    columns = min(len(drawn), 2 if max(len(one.words) for one in drawn) > WORDS_PER_BAND // 2 else 3)
    panel = LABEL_INCHES + BARS_INCHES + PANEL_GAP_INCHES
    width = max(columns * panel + 2 * MARGIN_INCHES, 6.0)
    room = panel - PANEL_GAP_INCHES
    titles = [_wrapped(title(one, named=len(explanations) > 1), room) for one in drawn]
    rows = [range(i, min(i + columns, len(drawn))) for i in range(0, len(drawn), columns)]
    heads = [max(len(titles[i]) for i in row) * LINE_INCHES + 0.05 for row in rows]
    bodies = [max(len(drawn[i].words) for i in row) * ROW_INCHES + 0.1 for row in rows]
    methods = [one.method for one in drawn[0].importances]
    notes = _wrapped(reading_key(drawn[0]), width - 2 * MARGIN_INCHES)
    if len(drawn) < len(explanations):
        notes.append(f"The first {len(drawn)} of {len(explanations):,} texts; the others are left out.")
    legend_rows = ceil((2 + len(methods)) / (2 * columns))
    top = MARGIN_INCHES + LINE_INCHES * (len(notes) + legend_rows) + 0.15
    page = _Page(width, top + sum(heads) + sum(bodies) + len(rows) * AXIS_INCHES)
    page.lines(MARGIN_INCHES, MARGIN_INCHES / 2, notes, fontsize=SMALL + 1)
    entries: dict[str, Any] = {f"{methods[0]}: for it": Patch(color=FOR), "against it": Patch(color=AGAINST)}
    for k, method in enumerate(methods[1:]):
        entries[f"{method} (scaled)"] = Line2D([], [], **_marker(k))
    page.figure.legend(
        list(entries.values()),
        list(entries),
        loc="upper left",
        bbox_to_anchor=(
            (MARGIN_INCHES - 0.1) / width,
            1 - (MARGIN_INCHES / 2 + LINE_INCHES * len(notes)) / page.height,
        ),
        ncols=2 * columns,
        fontsize=SMALL,
        frameon=False,
        borderaxespad=0.0,
    )
    for row, head, body in zip(rows, heads, bodies, strict=True):
        for k, i in enumerate(row):
            left = MARGIN_INCHES + k * panel
            page.lines(left, top, titles[i], fontsize=SMALL + 1, fontweight="bold")
            height = len(drawn[i].words) * ROW_INCHES + 0.1
            _bars(page.axes(left + LABEL_INCHES, top + head, BARS_INCHES, height), drawn[i])
        top += head + body + AXIS_INCHES
    return page.figure


def _marker(k: int) -> Json:
    return {
        **{"linestyle": "", "marker": MARKERS[k % len(MARKERS)], "markersize": 4.5},
        **{"color": "black", "markerfacecolor": "white", "markeredgewidth": 0.9},
    }


def _bars(axes: Axes, explanation: Explanation) -> None:
    n = len(explanation.words)
    first = explanation.first.words
    places = np.arange(n)
    read = np.isfinite(first)
    colours = [FOR if value > 0 else AGAINST for value in first]
    axes.barh(places[read], first[read], color=[colours[i] for i in places[read]], height=0.72)
    longest = float(np.abs(first[read]).max(initial=0.0))
    for k, other in enumerate(explanation.importances[1:]):
        axes.plot(shares(other.words)[read] * (longest or 1.0), places[read], **_marker(k))
    labels = [_short(explanation.word(i)) for i in range(n)]
    axes.set_yticks(places, labels, fontsize=SMALL)
    _no_formulas(axes)
    for i, label in enumerate(axes.get_yticklabels()):
        if not read[i]:
            label.set_color(UNREAD)
            axes.annotate(" not read", (0, i), va="center", fontsize=SMALL - 1, color=UNREAD)
        if i == explanation.of_word:
            label.set_fontweight("bold")
    axes.set_ylim(n - 0.5, -0.5)
    _zero_line(axes, longest, both=bool((first[read] < 0).any()) or len(explanation.importances) > 1)


def _zero_line(axes: Axes, longest: float, *, both: bool) -> None:
    from matplotlib.ticker import MaxNLocator

    end = 1.08 * longest or 1.0
    axes.set_xlim(-end if both else -0.02 * end, end)
    axes.axvline(0, color="0.3", linewidth=0.8)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.tick_params(axis="x", labelsize=SMALL)
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=True, axis="x", alpha=0.25)
    axes.set_axisbelow(True)
    for edge in ("top", "right", "left"):
        axes.spines[edge].set_visible(False)


def _short(word: str) -> str:
    word = plain(word)
    return word if len(word) <= LONGEST_WORD else word[: LONGEST_WORD - 1] + "…"


def _wrapped(text: str, inches: float) -> list[str]:
    return wrap(text, max(20, int(inches * CHARACTERS)), break_on_hyphens=False) or [""]


def _no_formulas(axes: Axes) -> None:
    """A dollar in a word is a dollar."""
    texts: list[Text] = [*axes.get_xticklabels(), *axes.get_yticklabels()]
    for text in texts:
        text.set_parse_math(False)


# Layers


def _layers(layers: LayerExplanation) -> Figure:
    from matplotlib import colormaps

    n_words, n_layers = len(layers.words), len(layers.layers)
    drawn = min(n_words, WORDS_PER_BAND * MOST_BANDS)
    n_bands = ceil(drawn / WORDS_PER_BAND)
    band = ceil(drawn / n_bands)
    by_words = layers.baseline is not None
    wide, high = max(band * CELL_INCHES, 1.5), n_layers * CELL_INCHES
    below = 2.2 * CELL_INCHES if by_words else 0.0
    left = 1.35
    width = max(left + wide + 0.2 + (SHARE_INCHES + 0.35 if by_words else 0.0) + 1.0, 6.5)
    heading = _wrapped(layers_title(layers), width - 0.4)
    notes = [line for said in layer_facts(layers) for line in _wrapped(said.text, width - 0.4)]
    if by_words:
        notes += _wrapped(
            "The row below is of the text baseline, whose colours have a scale of their own.", width - 0.4
        )
    if drawn < n_words:
        notes += [f"The first {drawn:,} of {n_words:,} words; the others are left out."]
    step = TOP_INCHES + high + below + 0.6
    top = 0.15 + LINE_INCHES * (len(heading) + len(notes))
    page = _Page(width, top + n_bands * step)
    page.lines(0.2, 0.1, heading, fontsize=SMALL + 2, fontweight="bold")
    page.lines(0.2, 0.1 + LINE_INCHES * len(heading), notes, fontsize=SMALL + 1)
    colours = colormaps[COLOURS].with_extremes(bad=NOTHING)
    finite = np.nan_to_num(layers.importance)
    most = float(np.abs(finite).max(initial=0.0)) or 1.0
    for b in range(n_bands):
        words = slice(b * band, min((b + 1) * band, drawn))
        n = words.stop - words.start
        y = top + b * step + TOP_INCHES
        axes = page.axes(left, y, n * CELL_INCHES, high)
        image = axes.imshow(
            layers.importance[:, words], cmap=colours, vmin=-most, vmax=most, aspect="auto", interpolation="none"
        )
        labels = [_short(layers.word(i)) for i in range(words.start, words.stop)]
        axes.xaxis.tick_top()
        axes.set_xticks(range(n), labels, rotation=90, fontsize=SMALL)
        axes.set_yticks(range(n_layers), [f"layer {layer}" for layer in layers.layers], fontsize=SMALL)
        axes.tick_params(length=2, pad=2)
        _no_formulas(axes)
        if layers.baseline is not None:
            _baseline_row(
                page.axes(left, y + high + 0.6 * CELL_INCHES, n * CELL_INCHES, CELL_INCHES), layers, words, colours
            )
            if b == 0:
                _share_bars(page.axes(left + wide + 0.25, y, SHARE_INCHES, high), layers)
        if b == 0:
            bar = page.axes(width - 0.85, y, 0.14, min(max(high, 1.2), 3.0))
            page.figure.colorbar(image, cax=bar).ax.tick_params(labelsize=SMALL - 1)
            bar.set_title("importance", fontsize=SMALL - 1, loc="left")
    return page.figure


def _baseline_row(axes: Axes, layers: LayerExplanation, words: slice, colours: Any) -> None:
    """The text baseline's words; those that its answer hangs on most have a ring."""
    baseline: NDArray[np.float64] = np.asarray(layers.baseline)
    most = float(np.abs(np.nan_to_num(baseline)).max(initial=0.0)) or 1.0
    axes.imshow(baseline[None, words], cmap=colours, vmin=-most, vmax=most, aspect="auto", interpolation="none")
    rings = [i - words.start for i in layers.baseline_words if words.start <= i < words.stop]
    axes.plot(rings, [0] * len(rings), "o", color="black", markerfacecolor="none", markersize=6)
    axes.set_xticks([])
    axes.set_yticks([0], ["words alone"], fontsize=SMALL)
    axes.tick_params(length=2, pad=2)


def _share_bars(axes: Axes, layers: LayerExplanation) -> None:
    from matplotlib.ticker import PercentFormatter

    places = np.arange(len(layers.layers))
    share = np.nan_to_num(layers.share)
    axes.barh(places, share, color="0.6", height=0.72)
    axes.axvline(layers.chance, color="black", linestyle="--", linewidth=0.9)
    axes.set_ylim(len(places) - 0.5, -0.5)
    axes.set_yticks([])
    axes.set_xlim(0, 1)
    axes.xaxis.set_major_formatter(PercentFormatter(1.0))
    axes.set_xticks([0, 0.5, 1])
    axes.tick_params(axis="x", labelsize=SMALL - 1)
    axes.set_title("share on the ringed words\n(dashes: at random)", fontsize=SMALL - 1, loc="left")


# A data set


def _words(table: pd.DataFrame, answers: Sequence[Any], n: int, least: int) -> Figure:
    drawn = list(answers[:MOST_CLASSES])
    target = plain(str(table["target"].iloc[0])) if len(table) else ""
    found = [top_words(table, answer, n=n, least=least) for answer in drawn]
    sides = [[*positive, *reversed(negative)] for positive, negative in found]
    columns = max(1, min(3, len(drawn)))
    panel = LABEL_INCHES + BARS_INCHES + PANEL_GAP_INCHES
    width = columns * panel + 2 * MARGIN_INCHES
    titles = [
        _wrapped(target if answer is None else f"{target} = {plain(str(answer))}", panel - PANEL_GAP_INCHES)
        for answer in drawn
    ]
    method = plain(str(table["method"].iloc[0])) if len(table) else ""
    notes = _wrapped(
        f"Mean importance by {method} of words that occur at least {least} times; in brackets: how often.",
        width - 2 * MARGIN_INCHES,
    )
    if len(drawn) < len(answers):
        notes.append(f"The first {len(drawn)} of {len(answers):,} answers; the others are left out.")
    rows = [range(i, min(i + columns, len(drawn))) for i in range(0, len(drawn), columns)]
    heads = [max(len(titles[i]) for i in row) * LINE_INCHES + 0.05 for row in rows]
    bodies = [max(1, *(len(sides[i]) for i in row)) * ROW_INCHES + 0.1 for row in rows]
    top = MARGIN_INCHES + LINE_INCHES * len(notes)
    page = _Page(width, top + sum(heads) + sum(bodies) + len(rows) * AXIS_INCHES + 0.1)
    page.lines(MARGIN_INCHES, MARGIN_INCHES / 2, notes, fontsize=SMALL + 1)
    for row, head, body in zip(rows, heads, bodies, strict=True):
        for k, i in enumerate(row):
            left = MARGIN_INCHES + k * panel
            page.lines(left, top, titles[i], fontsize=SMALL + 1, fontweight="bold")
            if sides[i]:
                height = len(sides[i]) * ROW_INCHES + 0.1
                _word_bars(page.axes(left + LABEL_INCHES, top + head, BARS_INCHES, height), sides[i])
            else:
                page.lines(left, top + head, [f"no word occurs {least} times"], fontsize=SMALL)
        top += head + body + AXIS_INCHES
    return page.figure


def _word_bars(axes: Axes, rows: Sequence[Json]) -> None:
    values = [float(row["mean_importance"]) for row in rows]
    axes.barh(range(len(rows)), values, color=[FOR if value > 0 else AGAINST for value in values], height=0.72)
    labels = [f"{_short(str(row['word']))} ({row['n']:,})" for row in rows]
    axes.set_yticks(range(len(rows)), labels, fontsize=SMALL)
    _no_formulas(axes)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    _zero_line(axes, max(map(abs, values)), both=min(values) < 0)
