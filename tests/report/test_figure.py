"""The picture: a legend that names each cache and covers no curve, and nothing cut."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from probekit.report import draw_curves
from probekit.report.figure import _figure
from tests.report.made_up import curve

RISING = np.linspace(0.55, 0.85, 13)
PROMPTED = 'reviews, prompt "the film: {text}"'


def two_caches():
    return pd.concat([curve(RISING), curve(RISING + 0.05, cache=PROMPTED)])


def twelve():
    return pd.concat(
        [
            curve(RISING + shift / 100, cache=cache, pooling=pooling, probe=probe, text_baseline=0.7)
            for shift, cache in enumerate(("reviews", PROMPTED, "the same model with random weights, seed 0"))
            for pooling in ("last", "mean_skip_first")
            for probe in ("logistic", "mass-mean-iid")
        ]
    )


TABLES = {
    "one cache": curve(RISING, text_baseline=0.7),
    "two caches": two_caches(),
    "random weights": pd.concat([curve(RISING), curve([0.6] * 13, cache="random weights")]),
    "three targets": pd.concat(
        [curve(RISING, metric="r2", target=name) for name in ("V", "A", "a very long name of a column " * 4)]
    ),
    "negative": curve([-1234.5, -2.0, -0.5, 0.3], metric="r2", text_baseline=-2.5),
    "all far below zero": curve([-30.0, -20.0], metric="r2", baseline=-5.0),
    "entities": curve(RISING - 0.5, metric="entity_f1", text_baseline=0.2),
    "no score": curve([np.nan, 0.5], score=np.nan, ci_low=np.nan, ci_high=np.nan, baseline=np.nan),
    "one layer": curve([0.7]),
    "twelve curves": twelve(),
    "no formulas": pd.concat(
        [curve([0.6, 0.7], target=r"$\nope{$", cache=name, dataset=r"$\nope{$") for name in (r"$\nope{$", "_b")]
    ),
}


def drawn(table, title=""):
    figure = _figure(table, title)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return figure, canvas.get_renderer()


def entries(figure):
    return [text.get_text().replace("\n", " ") for text in figure.legends[0].get_texts()]


@pytest.mark.parametrize("name", TABLES)
def test_nothing_is_covered_or_cut(name):
    figure, renderer = drawn(TABLES[name], title="A title that says a good deal more than there is room for " * 3)
    page = figure.bbox
    legend = figure.legends[0].get_window_extent(renderer)
    title = figure._suptitle.get_window_extent(renderer)
    for box in (legend, title):
        assert page.x0 <= box.x0
        assert box.x1 <= page.x1
        assert page.y0 <= box.y0
        assert box.y1 <= page.y1
    for axes in figure.axes:
        panel = axes.get_tightbbox(renderer)
        assert panel.y0 >= legend.y1 - 1
        assert panel.y1 <= title.y0 + 1
        assert axes.get_window_extent(renderer).height > 200  # the legend takes no room from the curves


@pytest.mark.parametrize("kind", ["png", "svg", "pdf"])
def test_the_same_table_gives_the_same_bytes(tmp_path, kind):
    for name in ("a", "b"):
        draw_curves(two_caches(), tmp_path / f"{name}.{kind}")
    assert (tmp_path / f"a.{kind}").read_bytes() == (tmp_path / f"b.{kind}").read_bytes()


def test_a_legend_entry_for_each_curve_says_only_what_differs():
    assert entries(drawn(two_caches())[0])[:2] == ["cache reviews", f"cache {PROMPTED}"]
    assert entries(drawn(TABLES["one cache"])[0]) == [
        *("logistic probe", "best on validation", "95% interval", "majority class", "words alone (TF-IDF)")
    ]
    of_twelve = entries(drawn(twelve())[0])[:12]
    assert len(set(of_twelve)) == 12
    assert of_twelve[0] == "cache reviews, last pooling, logistic probe"
    assert of_twelve[7] == f"cache {PROMPTED}, mean_skip_first pooling, mass-mean-iid probe"


def test_each_cache_has_its_own_line_and_ring():
    figure, _ = drawn(pd.concat([curve([0.6, 0.7, 0.8]), curve([0.9, 0.7, 0.6], cache="prompted")]))
    lines = [list(line.get_ydata()) for line in figure.axes[0].lines]
    assert [0.6, 0.7, 0.8] in lines
    assert [0.9, 0.7, 0.6] in lines
    rings = [list(line.get_xdata()) for line in figure.axes[0].lines if line.get_markersize() == 9]
    assert rings == [[2], [0]]


def test_twelve_curves_look_different():
    figure, _ = drawn(twelve())
    scores = [line for line in figure.axes[0].lines if len(line.get_xdata()) == 13]
    assert len({(line.get_color(), line.get_marker()) for line in scores}) == 12


def test_classes_and_numbers_of_one_name_are_two_panels():
    """A column may be read as classes in one cache and as numbers in another."""
    figure, _ = drawn(pd.concat([curve([0.6, 0.7]), curve([0.1, 0.2], metric="r2", cache="other")]))
    assert [axes.get_ylabel() for axes in figure.axes] == ["accuracy", "R²"]


def test_r2_far_below_zero_is_not_shown_and_that_is_said():
    figure, _ = drawn(TABLES["negative"])
    low, high = figure.axes[0].get_ylim()
    assert -1.2 < low < -1
    assert high > 0.3
    assert "below -1 not shown" in figure.axes[0].get_ylabel()
    low, high = drawn(TABLES["all far below zero"])[0].axes[0].get_ylim()
    assert low < -30 < -5 < high


def test_the_interval_of_a_single_layer_is_visible():
    figure, _ = drawn(TABLES["one layer"])
    (interval,) = [found for found in figure.axes[0].collections if len(found.get_paths())]
    box = interval.get_paths()[0].get_extents()
    assert (box.y0, box.y1) == pytest.approx((0.67, 0.73))


def test_names_are_no_formulas():
    figure, _ = drawn(TABLES["no formulas"])
    assert figure.get_suptitle() == r"org/m; $\nope{$"
    assert entries(figure)[:2] == [r"cache $\nope{$", "cache _b"]
