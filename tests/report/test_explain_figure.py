"""Pictures of explanations: bars and cells are the data's, nothing covered or cut, the same data the same bytes."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex

from probekit.report import explain_figure
from probekit.report.explain_figure import AGAINST, FOR, draw_explanations, draw_layers, draw_words
from tests.report.made_explanations import (
    ARABIC,
    GERMAN,
    HEBREW,
    LONG,
    NASTY,
    SHORT,
    explanation,
    layer_explanation,
    words_table,
)

# draw_… ignore it themselves; here figures are made without them.
pytestmark = pytest.mark.filterwarnings("ignore:Glyph .* missing from font")

METHODS = ("occlusion", "lrp", "integrated-gradients")
EVERY = (*METHODS, "gradient-x-input", "gradient-norm")
WIDE = "W" * 30 + " 漢字漢字漢字漢字漢字漢字漢字漢字漢字 MMM $x^2$ $\\nope{$ _b"


def texts(*given, **values):
    return [explanation(text, METHODS, seed=i, id=f"text {i}", **values) for i, text in enumerate(given)]


FIGURES = {
    "short": lambda: explain_figure._explanations([explanation()]),
    "long": lambda: explain_figure._explanations([explanation(LONG, METHODS)]),
    "five methods": lambda: explain_figure._explanations([explanation(SHORT, EVERY, of_word=3)]),
    "six texts": lambda: explain_figure._explanations(texts(SHORT, LONG, GERMAN, HEBREW, ARABIC, NASTY)),
    "fifteen texts": lambda: explain_figure._explanations(texts(*[SHORT, GERMAN, HEBREW] * 5)),
    "wide": lambda: explain_figure._explanations(texts(WIDE, WIDE, answer="W" * 90, target="$x$ " * 20)),
    "435 words": lambda: explain_figure._explanations(texts(LONG * 7)),
    "layers": lambda: explain_figure._layers(layer_explanation()),
    "31 layers": lambda: explain_figure._layers(layer_explanation(31, " ".join(LONG.split()[:40]))),
    "many words": lambda: explain_figure._layers(layer_explanation(13, f"{LONG} {GERMAN} {WIDE} {LONG}")),
    "one word": lambda: explain_figure._layers(layer_explanation(1, "One", target="W" * 90)),
    "no baseline": lambda: explain_figure._layers(layer_explanation(13, LONG, baseline=None)),
    "words": lambda: explain_figure._words(words_table(), ["negative", "positive"], 10, 3),
    "eight classes": lambda: explain_figure._words(
        words_table([f"W{i}" * 30 for i in range(8)], word="W" * 25 + "{}"), [f"W{i}" * 30 for i in range(8)], 10, 3
    ),
    "no words": lambda: explain_figure._words(words_table(), ["negative", "positive"], 10, 99),
}


@pytest.fixture
def drawn(monkeypatch, tmp_path):
    """Draws a figure as ``draw_…`` do, and gives it with its renderer."""

    def draw(name):
        kept = []

        def keep():
            kept.append(FIGURES[name]())
            return kept[0]

        explain_figure._save(keep, tmp_path / "drawn.png")
        canvas = FigureCanvasAgg(kept[0])
        return kept[0], canvas.get_renderer()

    return draw


def overlap(a, b):
    return min(a.x1, b.x1) - max(a.x0, b.x0) > 1 and min(a.y1, b.y1) - max(a.y0, b.y0) > 1


@pytest.mark.parametrize("name", FIGURES)
def test_nothing_is_covered_or_cut(drawn, name):
    figure, renderer = drawn(name)
    things = {f"axes {i}": axes.get_tightbbox(renderer) for i, axes in enumerate(figure.axes)}
    things |= {f"text {i}": text.get_window_extent(renderer) for i, text in enumerate(figure.texts)}
    things |= {f"legend {i}": legend.get_window_extent(renderer) for i, legend in enumerate(figure.legends)}
    for box in things.values():
        assert figure.bbox.x0 <= box.x0
        assert box.x1 <= figure.bbox.x1
        assert figure.bbox.y0 <= box.y0
        assert box.y1 <= figure.bbox.y1
    pairs = [(a, b) for a in things for b in things if a < b and overlap(things[a], things[b])]
    assert not pairs
    assert max(figure.bbox.width, figure.bbox.height) * 1.5 < 2**16  # what matplotlib can draw
    for axes in figure.axes:
        labels = [text.get_window_extent(renderer) for text in axes.get_yticklabels() if text.get_text()]
        assert not any(overlap(a, b) for i, a in enumerate(labels) for b in labels[i + 1 :])


def test_a_character_that_the_font_lacks_is_no_reason_to_warn(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        draw_explanations([explanation(GERMAN)], tmp_path / "a.png")
        draw_layers(layer_explanation(2, GERMAN), tmp_path / "b.png")
        draw_words(words_table(word="🎬{}", n=5), tmp_path / "c.png")


@pytest.mark.parametrize("kind", ["png", "svg", "pdf"])
def test_the_same_data_give_the_same_bytes(tmp_path, kind):
    draws = {
        "texts": lambda path: draw_explanations(texts(SHORT, GERMAN, NASTY), path),
        "layers": lambda path: draw_layers(layer_explanation(3, GERMAN), path),
        "words": lambda path: draw_words(words_table(n=8), path),
    }
    for name, draw in draws.items():
        for time in ("a", "b"):
            draw(tmp_path / f"{name}.{time}.{kind}")
        assert (tmp_path / f"{name}.a.{kind}").read_bytes() == (tmp_path / f"{name}.b.{kind}").read_bytes()


def bars(axes):
    return [
        (round(bar.get_y() + bar.get_height() / 2), bar.get_width(), to_hex(bar.get_facecolor()))
        for bar in axes.patches
    ]


def test_bars_are_the_importances_in_reading_order():
    made = explanation(LONG, METHODS)
    (axes,) = explain_figure._explanations([made]).axes
    found = bars(axes)
    assert [y for y, _, _ in found] == list(range(63))
    np.testing.assert_allclose([width for _, width, _ in found], made.first.words)
    assert [colour for _, _, colour in found] == [FOR if value > 0 else AGAINST for value in made.first.words]
    assert [label.get_text() for label in axes.get_yticklabels()] == LONG.split()
    low, high = axes.get_ylim()
    assert low > high  # the first word is on top
    longest = np.abs(made.first.words).max()
    markers = [line for line in axes.lines if line.get_linestyle() == "None"]
    assert len(markers) == 2
    for line, other in zip(markers, made.importances[1:], strict=True):
        np.testing.assert_allclose(line.get_xdata(), other.words / np.abs(other.words).max() * longest)


def test_words_that_were_not_read_have_no_bar():
    made = explanation()
    words = made.first.words.copy()
    words[2] = np.nan
    (axes,) = explain_figure._explanations([replace(made, importances=(replace(made.first, words=words),))]).axes
    assert [y for y, _, _ in bars(axes)] == [0, 1, 3, 4, 5, 6, 7, 8]
    assert [text.get_text().strip() for text in axes.texts] == ["not read"]


def said(figure):
    return " ".join(text.get_text() for text in figure.texts)


def test_what_is_left_out_is_said(monkeypatch):
    figure = explain_figure._explanations(texts(*[SHORT] * 15))
    assert len(figure.axes) == 12
    assert "The first 12 of 15 texts; the others are left out." in said(figure)
    assert "left out." not in said(explain_figure._explanations(texts(*[SHORT] * 12)))
    made = explanation(LONG * 2)
    (axes,) = explain_figure._explanations([made]).axes
    assert "the 120 most important of 125 words" in said(axes.figure)
    least = np.sort(np.abs(made.first.words))[5:]
    np.testing.assert_allclose(np.sort(np.abs([width for _, width, _ in bars(axes)])), least)
    names = [f"class {i}" for i in range(8)]
    figure = explain_figure._words(words_table(names), names, 5, 1)
    assert len(figure.axes) == 6
    assert "The first 6 of 8 answers; the others are left out." in said(figure)
    monkeypatch.setattr(explain_figure, "MOST_BANDS", 2)
    figure = explain_figure._layers(layer_explanation(2, "a " * 130))
    assert "The first 120 of 130 words; the others are left out." in said(figure)


def test_titles_name_the_texts_only_where_there_are_several():
    assert "text 0: label = positive, probability 0.970" in said(explain_figure._explanations(texts(SHORT, GERMAN)))
    assert "1:" not in said(explain_figure._explanations([explanation()]))


def test_cells_are_the_importances_and_zero_is_in_the_middle():
    made = layer_explanation(13, f"{LONG} {GERMAN}")
    figure = explain_figure._layers(made)
    images = [axes.images[0] for axes in figure.axes if axes.images]
    heat = [image for image in images if image.get_array().shape[0] == 13]
    below = [image for image in images if image.get_array().shape[0] == 1]
    np.testing.assert_array_equal(np.hstack([image.get_array() for image in heat]), made.importance)
    np.testing.assert_array_equal(np.hstack([image.get_array() for image in below])[0], made.baseline)
    for image, largest in ((heat[0], made.importance), (below[0], made.baseline)):
        assert image.get_clim() == (-np.abs(largest).max(), np.abs(largest).max())
    assert heat[0].get_clim() == heat[1].get_clim()
    words = [label.get_text() for image in heat for label in image.axes.get_xticklabels()]
    assert words == [word if len(word) < 24 else "Donaudampfschifffahrtsg…" for word in f"{LONG} {GERMAN}".split()]
    assert [label.get_text() for label in heat[0].axes.get_yticklabels()] == [f"layer {k}" for k in range(13)]


def test_shares_stand_beside_and_the_words_of_the_baseline_have_rings():
    made = layer_explanation(5, LONG)
    figure = explain_figure._layers(made)
    (beside,) = [axes for axes in figure.axes if "share" in axes.get_title(loc="left")]
    np.testing.assert_allclose([width for _, width, _ in bars(beside)], made.share)
    assert list(beside.lines[0].get_xdata()) == [made.chance, made.chance]
    edges = np.cumsum([0, *(axes.images[0].get_array().shape[1] for axes in figure.axes if axes.images)])[::2]
    below = [axes for axes in figure.axes if axes.images and axes.images[0].get_array().shape[0] == 1]
    assert len(below) == 2
    rings = [int(x) for axes in below for x in axes.lines[0].get_xdata()]
    starts = [0] * len(below[0].lines[0].get_xdata()) + [32] * len(below[1].lines[0].get_xdata())
    assert [a + b for a, b in zip(rings, starts, strict=True)] == list(made.baseline_words)
    assert len(edges) == 3


def test_without_a_baseline_there_is_no_row_and_no_share():
    figure = explain_figure._layers(layer_explanation(baseline=None))
    assert len(figure.axes) == 2
    assert "There is no text baseline" in said(figure)


def test_words_that_were_not_read_are_grey():
    table = layer_explanation().importance.copy()
    table[:, 2] = np.nan
    figure = explain_figure._layers(layer_explanation(importance=table))
    image = figure.axes[0].images[0]
    assert to_hex(image.cmap(image.norm(image.get_array()))[0, 2]) == to_hex(explain_figure.NOTHING)


def test_bars_of_words_are_their_means():
    table = words_table()
    figure = explain_figure._words(table, ["positive"], 4, 5)
    often = table[(table["answer"] == "positive") & (table["n"] >= 5)].sort_values("mean_importance", ascending=False)
    positive = often[often["mean_importance"] > 0].head(4)
    negative = often[often["mean_importance"] < 0].tail(4)
    rows = [*positive.itertuples(), *negative.itertuples()]
    np.testing.assert_allclose([width for _, width, _ in bars(figure.axes[0])], [row.mean_importance for row in rows])
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == [f"{row.word} ({row.n})" for row in rows]


def test_words_are_no_formulas_and_steer_nothing():
    text = "a$x^2$ $\\nope{$ \x1b[31m \u202eb"
    figures = [
        explain_figure._explanations([explanation(text, target="$\\nope{$", answer="$y$")]),
        explain_figure._layers(layer_explanation(2, text, target="$\\nope{$", probe="$p$")),
        explain_figure._words(words_table(["$\\nope{$"], word="$\\nope{{$ \u202e{}"), ["$\\nope{$"], 3, 1),
    ]
    for figure in figures:
        found = [*figure.texts]
        for axes in figure.axes:
            found += [*axes.get_xticklabels(), *axes.get_yticklabels()]
        dollars = [text for text in found if "$" in text.get_text()]
        assert dollars
        assert not any(text.get_parse_math() for text in dollars)
        assert not any(c in text.get_text() for text in found for c in "\x1b\u202e")
        FigureCanvasAgg(figure).draw()


def test_signless_importances_begin_at_the_left():
    made = explanation(SHORT, ("gradient-norm",))
    made = replace(made, importances=(replace(made.first, words=np.abs(made.first.words)),))
    (axes,) = explain_figure._explanations([made]).axes
    low, high = axes.get_xlim()
    assert -low < 0.05 * high
