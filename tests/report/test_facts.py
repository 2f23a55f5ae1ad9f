"""The terminal and the picture say the same of a curve."""

from __future__ import annotations

import pandas as pd
import pytest

from probekit.report import layer_tables
from probekit.report.facts import layer_facts
from tests.report.made_up import curve, shown
from tests.report.test_figure import drawn, entries

RISING = [0.6, 0.7, 0.83]
GROUPS = {"group": "author", "n_groups_test": 50}
MIXED = pd.concat(
    [
        curve(RISING, text_baseline=0.78),
        curve(RISING, cache="prompted", probe="mass-mean", n_groups_crossing=3, **GROUPS),
        curve(RISING, cache="other", pooling="last", n_groups_crossing=0, **GROUPS),
        curve([0.2, 0.3, 0.4], metric="entity_f1", target="ner", text_baseline=0.3, control=0.3, selectivity=0.2),
        curve([0.1, 0.3], metric="r2", target="stars", cache="prompted", text_baseline=0.2),
    ]
)


def test_terminal_and_picture_hold_the_same():
    terminal = "\n".join(shown(layer_tables(MIXED), 400))
    figure, _ = drawn(MIXED)
    legend = entries(figure)
    facts = layer_facts(MIXED)
    assert len(facts) == 5
    titles = [line for line in terminal.splitlines() if any(line == one.title for one in facts)]
    assert len(titles) == 5
    for one, title, entry in zip(facts, titles, legend, strict=False):
        assert entry == ", ".join(one.parts[name] for name in ("cache", "pooling", "probe", "group"))
        for name in ("cache", "pooling", "probe", "model"):
            assert one.parts[name] in title
        assert one.parts["model"] in figure.get_suptitle()
        assert title.startswith(f"{one.target}: {one.metric} of a ")
        (axes,) = [axes for axes in figure.axes if axes.get_title() == one.target]
        assert axes.get_ylabel() == one.metric
        held = ", ".join(f"{held.name} {held.value:.3f}" for held in one.against)
        assert f"against {held}\n" in terminal
        levels = [line.get_ydata()[0] for line in axes.lines if line.get_linestyle() in ("--", ":")]
        for held in one.against:
            if held.column in ("baseline", "text_baseline"):
                assert held.value in levels
                assert any(held.name in entry.split(" or ") for entry in legend)
    assert [entry for entry in legend if "LEAK" in entry] == [one.leak for one in facts if one.leak]
    assert terminal.count("LEAK: 3 groups of author are in more than one part") == 1


def test_a_text_baseline_that_one_curve_has_is_drawn():
    without, having = curve(RISING), curve(RISING, cache="prompted", text_baseline=0.78)
    figure, _ = drawn(pd.concat([without, having]))
    assert [line.get_ydata()[0] for line in figure.axes[0].lines if line.get_linestyle() == ":"] == [0.78]


@pytest.mark.parametrize("crossing", [0, 3])
def test_caches_of_which_one_leaks_are_told_apart(crossing):
    table = pd.concat(
        [curve(RISING, n_groups_crossing=0, **GROUPS), curve(RISING, n_groups_crossing=crossing, **GROUPS)]
    )
    said = [entry for entry in entries(drawn(table)[0]) if "author" in entry]
    leak = ["new author", "author leaking", "LEAK: 3 groups of author are in more than one part"]
    assert said == (leak if crossing else [])
