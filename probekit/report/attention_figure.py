"""Attention as a picture: heat maps with their tokens, or where there are many, one small map per layer and head."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from probekit.explanation.attention_result import AttentionResult
from probekit.output import write_whole
from probekit.plain import plain
from probekit.report.figure import UNDATED

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

DPI = 150
MOST_NAMED, MOST_LABELLED = 64, 4
"""Tokens that get a label each, and maps that are drawn with labels."""
TOKEN_INCHES = 0.165
SMALLEST_MAP_INCHES = 2.2
LONGEST_LABEL, LETTER_INCHES = 14, 0.088
ACROSS_PIXELS, LEAST_PIXELS, MOST_MAP_PIXELS = 1500, 120, 600
"""Of small maps in a row, if that leaves each enough; of one of them at least, and at most."""
GAP_PIXELS, TITLED_GAP_PIXELS = 10, 24
"""Between two maps, without titles and with them."""
MOST_PIXELS = 12_000
MOST_COLUMNS = 6
"""Of small maps of one layer, or of one head in all layers; else a row is a layer and a column a head."""
MARGIN_INCHES = 0.75
TITLE_INCHES, LINE_INCHES, BAR_INCHES, BOTTOM_INCHES = 0.3, 0.2, 0.75, 0.2
COLOURS, NOTHING, BETWEEN = "Blues", "0.87", "white"
"""From nothing to all; where the first token is hidden; and between two maps, which is a weight of -1."""
SCALE_TICKS = (0.0, 0.05, 0.2, 0.5, 1.0)
BAR_LABEL = "attention (colours by its square root)"


@dataclass(frozen=True)
class Map:
    """One heat map: what it is of, and (n, n) weights as they are to be seen, NaN where nothing is shown."""

    title: str
    weights: NDArray[np.float32]


def draw_attention(result: AttentionResult, path: Path) -> None:
    """Draw ``result`` into ``path`` (``.png``, ``.svg`` or ``.pdf``): rollout if it has one, else all heads.

    Rows are the tokens that attend, columns those attended to. Up to four maps of up to 64 tokens have a label for
    each token; more are small maps, a row per layer and a column per head. Of longer texts a small map shows the
    largest weight of each block of tokens.
    """
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    with rc_context({"svg.hashsalt": "probekit"}), _any_script():  # the same weights, the same file
        figure = attention_figure(result)
        FigureCanvasAgg(figure)
        drawn = io.BytesIO()
        figure.savefig(drawn, format=path.suffix[1:], dpi=DPI, metadata=UNDATED[path.suffix])
    write_whole(path, drawn.getvalue())


@contextmanager
def _any_script() -> Iterator[None]:
    """A character that the font has not is a box in the picture, and no reason to warn."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"Glyph .* missing from font")
        yield


def attention_figure(result: AttentionResult) -> Figure:
    """The same as matplotlib's figure."""
    maps = _maps(result)
    if len(maps) <= MOST_LABELLED and len(result.tokens) <= MOST_NAMED:
        return _labelled(result, maps)
    return _small(result, maps)


def _maps(result: AttentionResult) -> list[Map]:
    if result.rollout is not None:
        return [Map(f"rollout, layers 1..{result.rollout_layer}", result.shown(result.rollout))]
    return [Map(f"layer {layer}, head {head}", result.shown(weights)) for layer, head, weights in result.maps()]


def _heading(result: AttentionResult, *, reduced: bool, inches: float) -> list[str]:
    """The title and what has to be known of the picture, in lines that fit."""
    notes = ["rows: the token that attends; columns: the token attended to"]
    if result.truncated:
        notes.append(f"the text is cut after {len(result.tokens):,} tokens")
    if result.hide_first:
        notes.append("the first token is hidden (grey), the rest of each row sums to 1")
    if reduced:
        notes.append("a pixel is the largest weight of a block of tokens")
    title = wrap(f"{plain(result.model)}: attention", max(30, int(inches * 11)))
    return [*title, *wrap("; ".join(notes), max(30, int(inches * 14)))]


def _labelled(result: AttentionResult, maps: Sequence[Map]) -> Figure:
    """Up to four maps, two beside each other, with a label for each token."""
    n = len(result.tokens)
    columns = min(2, len(maps))
    rows = ceil(len(maps) / columns)
    labels = [_short(token) for token in result.tokens]
    aside = 0.3 + LETTER_INCHES * max(map(len, labels))
    side = max(SMALLEST_MAP_INCHES, n * TOKEN_INCHES)
    panel = (side + aside, side + aside + TITLE_INCHES)
    width = panel[0] * columns + BAR_INCHES + 0.4
    heading = _heading(result, reduced=False, inches=width)
    top = LINE_INCHES * len(heading) + 0.15
    height = panel[1] * rows + top + BOTTOM_INCHES
    figure = _figure(width, height, heading)
    image: AxesImage | None = None
    for i, one in enumerate(maps):
        left = (i % columns) * panel[0] + aside
        bottom = height - top - (i // columns + 1) * panel[1]
        axes = figure.add_axes((left / width, bottom / height, side / width, side / height))
        image = _paint(axes, one.weights)
        axes.set_title(one.title, fontsize="medium", pad=72 * (aside - 0.2))
        axes.xaxis.tick_top()
        axes.set_xticks(range(n), labels, rotation=90, fontsize=8)
        axes.set_yticks(range(n), labels, fontsize=8)
        axes.tick_params(length=2, pad=2)
        _no_formulas(axes)
    tall = min(side, 3.0)
    bar = (1 - BAR_INCHES / width, (height - top - TITLE_INCHES - aside - tall) / height, 0.16 / width, tall / height)
    _scale(figure, image, bar)
    return figure


def _small(result: AttentionResult, maps: Sequence[Map]) -> Figure:
    """One picture of many maps, in which every cell is a square of whole pixels."""
    several = len(result.layers) > 1 and len(result.heads) > 1 and result.rollout is None
    columns = len(result.heads) if several else min(MOST_COLUMNS, len(maps))
    rows = ceil(len(maps) / columns)
    n = len(result.tokens)
    gap = GAP_PIXELS if several else TITLED_GAP_PIXELS
    room = MOST_PIXELS // max(rows, columns) - gap
    pixels = max(8, min(room, MOST_MAP_PIXELS, max(LEAST_PIXELS, ACROSS_PIXELS // columns - gap)))
    block = ceil(n / pixels)
    cells = ceil(n / block)
    scale = max(1, pixels // cells)
    step = cells * scale + gap
    mosaic = np.full((rows * step, columns * step), -1.0, dtype=np.float32)
    for i, one in enumerate(maps):
        y, x = (i // columns) * step, (i % columns) * step
        drawn = _largest(one.weights, block).repeat(scale, axis=0).repeat(scale, axis=1)
        mosaic[y : y + len(drawn), x : x + len(drawn)] = drawn
    wide, high = mosaic.shape[1] / DPI, mosaic.shape[0] / DPI
    width = max(4.6, wide + MARGIN_INCHES + BAR_INCHES + 0.5)
    heading = _heading(result, reduced=block > 1, inches=width)
    top = LINE_INCHES * len(heading) + 0.3 + TITLE_INCHES
    height = max(2.6, high + top + BOTTOM_INCHES)
    figure = _figure(width, height, heading)
    axes = figure.add_axes((MARGIN_INCHES / width, 1 - (top + high) / height, wide / width, high / height))
    image = _paint(axes, mosaic)
    middle = (step - gap) / 2
    for edge in ("top", "bottom", "left", "right"):
        axes.spines[edge].set_visible(False)
    axes.tick_params(length=0)
    axes.xaxis.tick_top()
    if several:
        small = 7 if step >= 60 else 5
        axes.set_xticks([x * step + middle for x in range(columns)], list(map(str, result.heads)), fontsize=small)
        axes.set_yticks([y * step + middle for y in range(rows)], list(map(str, result.layers)), fontsize=small)
        axes.set_xlabel("head", fontsize=8)
        axes.xaxis.set_label_position("top")
        axes.set_ylabel("layer", fontsize=8)
    else:
        axes.set_xticks([])
        axes.set_yticks([])
        for i, one in enumerate(maps):
            place = ((i % columns) * step + middle, (i // columns) * step - 1)
            axes.annotate(_brief(one.title), place, ha="center", va="bottom", fontsize=6, annotation_clip=False)
    tall = min(high, 3.0)
    _scale(figure, image, (1 - BAR_INCHES / width, 1 - (top + tall) / height, 0.16 / width, tall / height))
    return figure


def _brief(title: str) -> str:
    return title.replace("layer ", "L").replace(", head ", " H")


def _figure(width: float, height: float, heading: Sequence[str]) -> Figure:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height))
    for i, line in enumerate(heading):
        y = 1 - (0.1 + LINE_INCHES * i) / height
        figure.text(0.12 / width, y, line, va="top", fontsize="medium" if i == 0 else "small", parse_math=False)
    return figure


def _paint(axes: Axes, weights: NDArray[np.float32]) -> AxesImage:
    from matplotlib import colormaps
    from matplotlib.colors import PowerNorm

    colours = colormaps[COLOURS].with_extremes(bad=NOTHING, under=BETWEEN)
    return axes.imshow(weights, cmap=colours, norm=PowerNorm(0.5, 0.0, 1.0), interpolation="none", aspect="auto")


def _scale(figure: Figure, image: AxesImage | None, place: tuple[float, float, float, float]) -> None:
    if image is None:
        return
    axes = figure.add_axes(place)
    bar = figure.colorbar(image, cax=axes, ticks=list(SCALE_TICKS))
    bar.ax.tick_params(labelsize=7)
    bar.set_label(BAR_LABEL, fontsize=7)


def _largest(weights: NDArray[np.float32], block: int) -> NDArray[np.float32]:
    """(ceil(n / block), the same): the largest of each block; NaN of a block that is nothing else."""
    if block == 1:
        return weights
    n = len(weights)
    cells = ceil(n / block)
    padded = np.full((cells * block, cells * block), -np.inf, dtype=np.float32)
    padded[:n, :n] = np.where(np.isnan(weights), -np.inf, weights)
    most = padded.reshape(cells, block, cells, block).max(axis=(1, 3))
    return np.where(np.isneginf(most), np.float32(np.nan), most)


def _short(token: str) -> str:
    token = plain(token)
    return token if len(token) <= LONGEST_LABEL else token[: LONGEST_LABEL - 1] + "…"


def _no_formulas(axes: Axes) -> None:
    """A dollar in a token is a dollar."""
    for label in [*axes.get_xticklabels(), *axes.get_yticklabels(), axes.title]:
        label.set_parse_math(False)
