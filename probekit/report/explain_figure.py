"""Explanations as pictures: bars of the words, a heat map of words x layers, the words of a data set."""

from __future__ import annotations

import io
import warnings
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import pairwise
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from probekit.explanation.data_set import top_words
from probekit.explanation.results import Explanation, LayerExplanation
from probekit.output import write_whole
from probekit.plain import plain
from probekit.report.explain_facts import (
    answers_of,
    by_size,
    layer_facts,
    layers_title,
    reading_key,
    shares,
    times,
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
MOST_TEXTS, MOST_CLASSES, MOST_BARS = 12, 6, 120
"""Of more texts and classes the first, of more words the most important."""
FOR, AGAINST, UNREAD = "#1b7837", "#762a83", "0.55"
COLOURS = "PRGn"
"""Purple: against; green: for. They can be told apart by the colour-blind, too."""
NOTHING = "0.87"
MARKERS = "o^sDv"
LONGEST_WORD = 24
ROW_INCHES, LINE_INCHES = 0.19, 0.2
LABEL_INCHES, BARS_INCHES, PANEL_GAP_INCHES = 1.9, 2.9, 0.35
PANEL_INCHES = LABEL_INCHES + BARS_INCHES + PANEL_GAP_INCHES
LEGEND_INCHES = 1.9
AXIS_INCHES, MARGIN_INCHES = 0.55, 0.2
SMALL = 8.0
WORDS_PER_BAND, MOST_BANDS = 60, 20
"""A heat map of more words goes on below."""
CELL_INCHES = 0.2
NAME_INCHES, SHARE_INCHES, SCALE_INCHES, BELOW_INCHES = 1.35, 2.2, 1.0, 0.75


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

    def legend(self, left: float, top: float, entries: Mapping[str, Any], beside: int) -> None:
        """What each of ``entries`` looks like."""
        self.figure.legend(
            list(entries.values()),
            list(entries),
            loc="upper left",
            bbox_to_anchor=(left / self.width, 1 - top / self.height),
            ncols=beside,
            fontsize=SMALL,
            frameon=False,
            borderpad=0.0,
            borderaxespad=0.0,
        )

    def lines(self, left: float, top: float, lines: Sequence[str], **style: Any) -> None:
        """Text, a line below the other."""
        for i, line in enumerate(lines):
            y = 1 - (top + i * LINE_INCHES) / self.height
            self.figure.text(left / self.width, y, line, va="top", parse_math=False, **style)


@dataclass(frozen=True)
class _Panel:
    """A title over ``n`` rows that ``draw`` draws."""

    title: str
    n: int
    draw: Callable[[Axes], None]


def _explanations(explanations: Sequence[Explanation]) -> Figure:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    drawn = explanations[:MOST_TEXTS]
    shown = [_most_important(one) for one in drawn]
    columns = min(len(drawn), 2 if max(map(len, shown)) > WORDS_PER_BAND // 2 else 3)
    width = max(columns * PANEL_INCHES + 2 * MARGIN_INCHES, 6.5)
    methods = [one.method for one in drawn[0].importances]
    notes = [reading_key(drawn[0])]
    if len(methods) > 1:
        notes[0] += " Markers are scaled: each method's largest is as long as the longest bar."
    if len(drawn) < len(explanations):
        notes.append(f"The first {len(drawn)} of {len(explanations):,} texts; the others are left out.")
    panels = []
    for one, words in zip(drawn, shown, strict=True):
        of = f"; the {len(words)} most important of {len(one.words):,} words" if len(words) < len(one.words) else ""
        named = title(one, named=len(explanations) > 1) + of
        panels.append(_Panel(named, len(words), partial(_bars, explanation=one, shown=words)))
    entries: dict[str, Any] = {f"{methods[0]}: for it": Patch(color=FOR), "against it": Patch(color=AGAINST)}
    for k, method in enumerate(methods[1:]):
        entries[method] = Line2D([], [], **_marker(k))
    return _panels(panels, columns, width, notes, entries)


def _most_important(explanation: Explanation) -> list[int]:
    """Words that are drawn, in reading order: all, or where they are very many, the most important."""
    n = len(explanation.words)
    return list(range(n)) if n <= MOST_BARS else sorted(by_size(explanation.first.words)[:MOST_BARS])


def _panels(
    panels: Sequence[_Panel], columns: int, width: float, notes: Sequence[str], entries: Mapping[str, Any]
) -> Figure:
    """Notes, a legend of ``entries``, and the panels, each in the column that is shortest so far."""
    lines = [line for note in notes for line in _wrapped(note, width - 2 * MARGIN_INCHES)]
    titles = [_wrapped(panel.title, PANEL_INCHES - PANEL_GAP_INCHES, weight="bold") for panel in panels]
    beside = max(1, int(width / LEGEND_INCHES))
    start = MARGIN_INCHES + LINE_INCHES * (len(lines) + ceil(len(entries) / beside))
    below, places = [start] * columns, []
    for panel, of_title in zip(panels, titles, strict=True):
        column = int(np.argmin(below))
        places.append((MARGIN_INCHES + column * PANEL_INCHES, below[column]))
        below[column] += LINE_INCHES * len(of_title) + _height(panel.n) + AXIS_INCHES
    page = _Page(width, max(below))
    page.lines(MARGIN_INCHES, MARGIN_INCHES / 2, lines, fontsize=SMALL + 1)
    if entries:
        page.legend(MARGIN_INCHES, MARGIN_INCHES / 2 + LINE_INCHES * len(lines), entries, beside)
    for panel, of_title, (left, top) in zip(panels, titles, places, strict=True):
        page.lines(left, top, of_title, fontsize=SMALL + 1, fontweight="bold")
        if panel.n:
            body = top + LINE_INCHES * len(of_title)
            panel.draw(page.axes(left + LABEL_INCHES, body, BARS_INCHES, _height(panel.n)))
    return page.figure


def _height(n: int) -> float:
    return n * ROW_INCHES + 0.1


def _marker(k: int) -> Json:
    return {
        **{"linestyle": "", "marker": MARKERS[k % len(MARKERS)], "markersize": 4.5},
        **{"color": "black", "markerfacecolor": "white", "markeredgewidth": 0.9},
    }


def _bars(axes: Axes, explanation: Explanation, shown: Sequence[int]) -> None:
    n = len(shown)
    first = explanation.first.words[shown]
    places = np.arange(n)
    read = np.isfinite(first)
    colours = [FOR if value > 0 else AGAINST for value in first]
    axes.barh(places[read], first[read], color=[colours[i] for i in places[read]], height=0.72)
    longest = float(np.abs(first[read]).max(initial=0.0))
    for k, other in enumerate(explanation.importances[1:]):
        axes.plot(shares(other.words)[shown][read] * (longest or 1.0), places[read], **_marker(k))
    labels = [_short(explanation.word(i)) for i in shown]
    axes.set_yticks(places, labels, fontsize=SMALL)
    _no_formulas(axes)
    for i, label in enumerate(axes.get_yticklabels()):
        if not read[i]:
            label.set_color(UNREAD)
            axes.annotate(" not read", (0, i), va="center", fontsize=SMALL - 1, color=UNREAD)
        if shown[i] == explanation.of_word:
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


def _short(word: str, room: float = LABEL_INCHES - 0.1) -> str:
    """The word, or as much of it as fits into ``room`` inches."""
    word = plain(word)
    if len(word) <= LONGEST_WORD and _inches(word, SMALL) <= room:
        return word
    word = word[: LONGEST_WORD - 1]
    return f"{word[: _fitting(word, lambda kept: _inches(f'{kept}…', SMALL) <= room)]}…"


def _wrapped(text: str, room: float, *, size: float = SMALL + 1, weight: str = "normal") -> list[str]:
    """Lines that fit into ``room`` inches; a word that does not fit into one goes on in the next."""
    lines, line = [], ""
    for word in text.split():
        grown = f"{line} {word}" if line else word
        if line and _inches(grown, size, weight) > room:
            lines.append(line)
            grown = word
        while len(grown) > 1 and _inches(grown, size, weight) > room:
            n = _fitting(grown, lambda kept: _inches(kept, size, weight) <= room)
            lines.append(grown[:n])
            grown = grown[n:]
        line = grown
    return [*lines, line]


def _fitting(text: str, fits: Callable[[str], bool]) -> int:
    """How many characters of ``text`` fit, one at least."""
    return max(1, bisect_left(range(1, len(text) + 1), True, key=lambda n: not fits(text[:n])))


@lru_cache(4096)
def _inches(text: str, size: float, weight: str = "normal") -> float:
    """How wide ``text`` is when it is drawn."""
    from matplotlib.backends.backend_agg import RendererAgg
    from matplotlib.font_manager import FontProperties

    font = FontProperties(size=size, weight=weight)
    ruler: Any = RendererAgg  # (which has no types)
    return float(ruler(8, 8, DPI).get_text_width_height_descent(text, font, False)[0]) / DPI


def _no_formulas(axes: Axes) -> None:
    """A dollar in a word is a dollar."""
    texts: list[Text] = [*axes.get_xticklabels(), *axes.get_yticklabels()]
    for text in texts:
        text.set_parse_math(False)


# Layers


def _layers(layers: LayerExplanation) -> Figure:
    drawn = min(len(layers.words), WORDS_PER_BAND * MOST_BANDS)
    n_bands = ceil(drawn / WORDS_PER_BAND)
    edges = [round(k * drawn / n_bands) for k in range(n_bands + 1)]
    bands = [range(a, b) for a, b in pairwise(edges)]
    wide = max(1.5, max(map(len, bands)) * CELL_INCHES)
    width = max(NAME_INCHES + wide + SHARE_INCHES + SCALE_INCHES, 6.5)
    lines = _wrapped(layers_title(layers), width - 2 * MARGIN_INCHES, size=SMALL + 2, weight="bold")
    notes = [said.text for said in layer_facts(layers)]
    if layers.baseline is not None:
        notes.append("The colours of the text baseline's row below have a scale of their own.")
    if drawn < len(layers.words):
        notes.append(f"The first {drawn:,} of {len(layers.words):,} words; the others are left out.")
    wrapped = [line for note in notes for line in _wrapped(note, width - 2 * MARGIN_INCHES)]
    tops = [MARGIN_INCHES + LINE_INCHES * (len(lines) + len(wrapped))]
    high = len(layers.layers) * CELL_INCHES
    for words in bands:
        tops.append(tops[-1] + _over(layers, words) + max(high + BELOW_INCHES, 1.5))
    page = _Page(width, tops[-1])
    page.lines(MARGIN_INCHES, MARGIN_INCHES / 2, lines, fontsize=SMALL + 2, fontweight="bold")
    page.lines(MARGIN_INCHES, MARGIN_INCHES / 2 + LINE_INCHES * len(lines), wrapped, fontsize=SMALL + 1)
    for words, top in zip(bands, tops, strict=False):
        _band(page, layers, words, top + _over(layers, words))
    first = tops[0] + _over(layers, bands[0])
    if layers.baseline is not None:
        _share_bars(page.axes(NAME_INCHES + wide + 0.25, first, SHARE_INCHES - 0.6, high), layers)
    _scale(page, first, min(max(high, 1.2), 3.0), _largest(layers.importance))
    return page.figure


def _over(layers: LayerExplanation, words: range) -> float:
    """What the longest of ``words`` takes, upright; the first ones stand beside another heading."""
    longest = max(_inches(_short(layers.word(i)), SMALL) for i in words)
    return max(0.15 + longest, 0.7 if words.start == 0 else 0.3)


def _largest(importance: NDArray[np.float64]) -> float:
    return float(np.abs(np.nan_to_num(importance)).max(initial=0.0)) or 1.0


def _heat(axes: Axes, importance: NDArray[np.float64], most: float) -> None:
    from matplotlib import colormaps

    colours = colormaps[COLOURS].with_extremes(bad=NOTHING)
    axes.imshow(importance, cmap=colours, vmin=-most, vmax=most, aspect="auto", interpolation="none")
    axes.tick_params(length=2, pad=2)


def _band(page: _Page, layers: LayerExplanation, words: range, top: float) -> None:
    n, high = len(words), len(layers.layers) * CELL_INCHES
    axes = page.axes(NAME_INCHES, top, n * CELL_INCHES, high)
    _heat(axes, layers.importance[:, words.start : words.stop], _largest(layers.importance))
    axes.xaxis.tick_top()
    axes.set_xticks(range(n), [_short(layers.word(i)) for i in words], rotation=90, fontsize=SMALL)
    axes.set_yticks(range(len(layers.layers)), [f"layer {layer}" for layer in layers.layers], fontsize=SMALL)
    _no_formulas(axes)
    if layers.baseline is not None:
        below = page.axes(NAME_INCHES, top + high + 0.6 * CELL_INCHES, n * CELL_INCHES, CELL_INCHES)
        _baseline_row(below, layers, layers.baseline, words)


def _scale(page: _Page, top: float, high: float, most: float) -> None:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    axes = page.axes(page.width - SCALE_INCHES + 0.15, top, 0.14, high)
    bar = page.figure.colorbar(ScalarMappable(Normalize(-most, most), COLOURS), cax=axes)
    bar.ax.tick_params(labelsize=SMALL - 1)
    axes.set_title("importance", fontsize=SMALL - 1, loc="left")


def _baseline_row(axes: Axes, layers: LayerExplanation, baseline: NDArray[np.float64], words: range) -> None:
    """The text baseline's words; those that its answer hangs on most have a ring."""
    _heat(axes, baseline[None, words.start : words.stop], _largest(baseline))
    rings = [i - words.start for i in layers.baseline_words if i in words]
    axes.plot(rings, [0] * len(rings), "o", color="black", markerfacecolor="white", markersize=6)
    axes.set_xticks([])
    axes.set_yticks([0], ["words alone"], fontsize=SMALL)


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
    axes.set_title("share on the words\nwith a ring\n(dashes: chance)", fontsize=SMALL - 1, loc="left")


# A data set


def _words(table: pd.DataFrame, answers: Sequence[Any], n: int, least: int) -> Figure:
    drawn = list(answers[:MOST_CLASSES])
    target = plain(str(table["target"].iloc[0])) if len(table) else ""
    method = plain(str(table["method"].iloc[0])) if len(table) else ""
    panels = []
    for answer in drawn:
        positive, negative = top_words(table, answer, n=n, least=least)
        rows = [*positive, *reversed(negative)]
        name = target if answer is None else f"{target} = {plain(str(answer))}"
        nothing = "" if rows else f": no word that occurs {times(least)} or more"
        panels.append(_Panel(name + nothing, len(rows), partial(_word_bars, rows=rows)))
    notes = [f"Mean importance by {method} of words that occur at least {times(least)}; in brackets how often."]
    if len(drawn) < len(answers):
        notes.append(f"The first {len(drawn)} of {len(answers):,} answers; the others are left out.")
    columns = max(1, min(3, len(drawn)))
    return _panels(panels, columns, max(columns * PANEL_INCHES + 2 * MARGIN_INCHES, 6.5), notes, {})


def _word_bars(axes: Axes, rows: Sequence[Json]) -> None:
    values = [float(row["mean_importance"]) for row in rows]
    axes.barh(range(len(rows)), values, color=[FOR if value > 0 else AGAINST for value in values], height=0.72)
    often = [f" ({row['n']:,})" for row in rows]
    rooms = [LABEL_INCHES - 0.1 - _inches(n, SMALL) for n in often]
    labels = [_short(str(row["word"]), room) + n for row, room, n in zip(rows, rooms, often, strict=True)]
    axes.set_yticks(range(len(rows)), labels, fontsize=SMALL)
    _no_formulas(axes)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    _zero_line(axes, max(map(abs, values)), both=min(values) < 0)
