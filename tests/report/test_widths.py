"""Tables on narrow and wide terminals: every number whole, bars on a scale that is said, a curve for each cache."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest
from rich.cells import cell_len

from probekit.report import SIDE_TABLES, health_tables, layer_tables
from probekit.report.bars import Scale, scale_of
from probekit.spec import HEALTH_COLUMNS
from tests.report.made_up import classes, curve, shots, shown, transfer

WIDTHS = [40, 60, 80, 120]
NAMES = [f"data set {i} with a name-that-goes-on-{'x' * 30}" for i in range(5)]
NEGATIVE = [-1234.5, -1.75, -0.4, 0.312, 0.66]


def whole(lines, width, numbers):
    """No line is too long, nothing is cut, and every number stands there unbroken."""
    assert max(map(cell_len, lines)) <= width
    text = "\n".join(lines)
    assert "…" not in text
    for number in numbers:
        assert re.search(rf"(?<![\d.]){re.escape(number)}(?![\d])", text), number


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize(
    "table",
    [
        curve([0.551, 0.702, 0.813, 0.834], text_baseline=0.781),
        curve(NEGATIVE, metric="r2"),
        curve([0.112, 0.323, np.nan, 0.454], metric="entity_f1", text_baseline=0.3),
        curve([0.551, 0.702], target="a target " + "with-a-name" * 9, model="org/" + "model" * 20),
        curve(np.linspace(0.5, 0.9, 100), final_norm=True),
    ],
    ids=["accuracy", "r2", "entities", "long names", "many layers"],
)
def test_layers(table, width):
    lines = shown(layer_tables(table), width)
    columns = ["score", "ci_low", "ci_high"] + (["val_score"] if width >= 60 else [])
    whole(lines, width, [f"{value:.3f}" for name in columns for value in table[name] if np.isfinite(value)])


@pytest.mark.parametrize("width", WIDTHS)
def test_tables_beside(width):
    numbers = [f"{k / 1000:.3f}" for k in range(1, 26)]
    whole(
        shown(SIDE_TABLES["shots"](shots(4, [1, 2, 4, 8, 16, 32])), width), width, [f"{n} ±0.062" for n in numbers[:24]]
    )
    whole(shown(SIDE_TABLES["transfer"](transfer(NAMES)), width), width, numbers)
    lines = shown(SIDE_TABLES["classes"](classes(["a", "b" * 70, "c with blanks " * 6])), width)
    whole(lines, width, ["0.125", "0.250", "0.375", "1,234"])
    n_tables = sum("class  " in line for line in lines)
    assert sum(len(run) for run in re.findall(r"^b{2,}", "\n".join(lines), flags=re.MULTILINE)) == 70 * n_tables
    values = [[-1, 3, 123456.7, 3, 0.125, 123.4, 0.987, np.nan], [1, 4, 1e30, 0, 1.0, 1.0, -0.5, 0.625]]
    health = pd.DataFrame([["mean", *row[1:]] for row in values], columns=list(HEALTH_COLUMNS))
    whole(shown(health_tables(health), width), width, ["1e+30", "12.5%", "123.4", "0.987", "-0.500", "0.625", "–"])


@pytest.mark.parametrize("width", WIDTHS)
def test_no_score_is_a_dash(width):
    table = curve([0.6, np.nan, 0.8], baseline=np.nan)
    assert any(re.match(r" +1 +– +–", line) for line in shown(layer_tables(table), width))
    sides = {"shots": shots(2, [1, 2], sd=np.nan), "transfer": transfer(["a", "b"], score=np.nan)}
    for name, side in sides.items():
        text = "\n".join(shown(SIDE_TABLES[name](side), width))
        assert "–" in text
        assert "nan" not in text
    nothing = curve([0.6, 0.7], score=np.nan, ci_low=np.nan, ci_high=np.nan, val_score=np.nan, selected=False)
    assert "nan" not in "\n".join(shown(layer_tables(nothing), width))


def bars(lines):
    """The bar of each layer: what stands behind the numbers."""
    rows = [line for line in lines if re.match(r"[→ ]*\d+\*? +-?\d", line)]
    return [re.sub(r"^.*\d", "", row) for row in rows]


def test_bars_have_a_scale():
    lines = shown(layer_tables(curve([0.55, 0.7, 0.8])), 80)
    heading = next(line for line in lines if "validation" in line)
    assert heading.split()[-2:] == ["0.500", "0.800"]
    lengths = [bar.count("█") for bar in bars(lines)]
    assert lengths == sorted(lengths)
    assert lengths[0] > 0
    assert lengths[-1] == 24


@pytest.mark.parametrize("scores", [[-0.4, 0.1, 0.66], [-0.02, 0.3, 0.9]])
def test_a_negative_score_goes_to_the_left_of_the_zero_line(scores):
    lines = shown(layer_tables(curve(scores, metric="r2")), 80)
    heading = next(line for line in lines if "validation" in line)
    assert f"{scores[0]:.3f}" in heading
    negative, *positive = bars(lines)
    assert re.fullmatch(r" +[▐█]+[│] *", negative)
    for bar in positive:
        assert re.fullmatch(r" +│[█▌]+ *", bar)
    assert len({bar.index("│") for bar in bars(lines)}) == 1


def test_a_score_far_below_zero_does_not_flatten_the_others():
    lines = shown(layer_tables(curve(NEGATIVE, metric="r2")), 80)
    assert "<-1.000" in next(line for line in lines if "validation" in line)
    drawn = bars(lines)
    assert [bar.strip().startswith("<") for bar in drawn] == [True, True, False, False, False]
    assert drawn[-1].count("█") > 5


def test_a_scale_without_room_or_numbers():
    assert scale_of([float("nan")], float("nan"), is_r2=True) == Scale(0.0, 0.0)
    assert scale_of([-3.0, -2.0], -0.5, is_r2=True) == Scale(-1.0, 0.0, cut=True)
    assert Scale(0.0, 0.0).bar(float("nan"), 5) == " " * 5
    assert Scale(-1.0, 0.0).bar(-0.6, 5) == "  ██│"


def test_bars_go_first_then_validation_then_words():
    table = curve([0.55, 0.7, 0.8])
    headings = {
        w: next(x for x in shown(layer_tables(table), w) if "layer " in x).split() for w in (80, 50, 40, 30, 20)
    }
    assert headings == {
        80: ["layer", "accuracy", "95%", "interval", "validation", "0.500", "0.800"],
        50: ["layer", "accuracy", "95%", "interval", "validation"],
        40: ["layer", "accuracy", "95%", "interval"],
        30: ["layer", "accuracy", "95%"],
        20: ["layer", "accuracy"],
    }


def test_each_cache_is_a_curve():
    both = pd.concat([curve([0.6, 0.7, 0.8]), curve([0.9, 0.7, 0.6], cache="prompted")])
    text = "\n".join(shown(layer_tables(both), 100))
    assert "→ layer 2 is best on validation" in text
    assert "→ layer 0 is best on validation" in text
    assert re.findall(r"org/m, cache (\w+)", text) == ["reviews", "prompted"]
    alone = "\n".join(shown(layer_tables(curve([0.6, 0.7])), 100))
    assert "cache" not in alone
    few = pd.concat([shots(2, [1]), shots(2, [1], cache="prompted")])
    assert len(re.findall(r"cache (reviews|prompted)", "\n".join(shown(SIDE_TABLES["shots"](few), 120)))) == 2
    by_class = pd.concat([classes(["a"]), classes(["a"], cache="prompted")])
    assert len(re.findall(r"cache (reviews|prompted)", "\n".join(shown(SIDE_TABLES["classes"](by_class), 120)))) == 2


def test_texts_that_the_other_probe_was_fitted_on_are_said():
    table = transfer(["a", "b"], n_duplicate=[0, 500, 0, 0])
    lines = shown(SIDE_TABLES["transfer"](table), 100)
    assert "0.002*" in "\n".join(lines)
    assert "* 500 of the 500 test rows of b are texts that the probe of a was fitted on: no other texts" in lines


def test_how_whole_numbers_were_read():
    how = {("label", "classification"): "guessed from 5 different whole numbers"}
    said = "read as 5 classes; for numbers: --task label=regression"
    assert said in shown(layer_tables(curve([0.6, 0.7], n_classes=5.0), how=how), 80)
    how = {("label", "regression"): "guessed from 40 different whole numbers"}
    said = "read as numbers; for classes: --task label=classification"
    assert said in shown(layer_tables(curve([0.1, 0.2], metric="r2"), how=how), 80)
    text = "\n".join(shown(layer_tables(curve([0.6, 0.7]), how={("label", "classification"): "as asked"}), 80))
    assert "read as" not in text


def test_plain_characters_where_the_terminal_has_no_others():
    table = curve([-0.4, 0.3], metric="r2")
    lines = shown(layer_tables(table), 80, encoding="ascii")
    assert "> layer 1 is best on validation: test R2 0.300" in lines
    assert any("#|" in line for line in lines)
    assert any("|#" in line for line in lines)


def test_names_are_no_markup():
    lines = shown(layer_tables(curve([0.6, 0.7], target="[bold]x[/bold]")), 100)
    assert lines[0].startswith("[bold]x[/bold]: ")
    assert any("[red]" in line for line in shown(SIDE_TABLES["classes"](classes(["[red]"])), 80))


def test_the_verdict_is_not_dim():
    from rich.console import Console

    console = Console(width=200, record=True, force_terminal=True, color_system="truecolor")
    for part in layer_tables(curve([0.6, 0.7])):
        console.print(part)
    (line,) = [line for line in console.export_text(styles=True).splitlines() if "Better than" in line]
    assert line.startswith("\x1b[1m")  # bold
