"""The table of an intervention on terminals of all widths, and its picture."""

from __future__ import annotations

import io

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from probekit.explanation.effects_said import verdict
from probekit.explanation.intervention import INTERVENTION_COLUMNS
from probekit.report.intervene_figure import draw_intervention
from probekit.report.intervene_table import intervene_table


def table(*, steer=None, language=True):
    rng = np.random.default_rng(0)
    rows = []
    for layer in (3, 4, 5, 6):
        numbers = dict.fromkeys(INTERVENTION_COLUMNS, np.nan) | {
            name: float(rng.uniform(0.1, 0.9)) for name in INTERVENTION_COLUMNS[14:31]
        }
        rows.append({**numbers, "measure": "probe", "layer": layer, "metric": "accuracy", "baseline": 0.518})
    for measure, metric in (("next-token loss", "nats"), ("answer", "auroc")) if language else ():
        rows.append({**rows[-1], "measure": measure, "metric": metric, "layer": 6, "score_refitted": np.nan})
        rows[-1]["random_refitted"] = np.nan
    found = pd.DataFrame(rows, columns=list(INTERVENTION_COLUMNS))
    told = {"model": "m", "dataset": "d", "target": "label", "task": "classification", "pooling": "mean"}
    told |= {"probe": "logistic", "erased_at": 3, "erase": "leace", "rank": 1, "steer": steer, "n_train": 1500}
    return found.assign(**told, n_test=500, n_random=5, variance_removed=0.021, random_variance=0.002)


def printed(found, width):
    console = Console(file=io.StringIO(), width=width, highlight=False, markup=False, emoji=False)
    for part in intervene_table(found, verdict(found)):
        console.print(part)
    return console.file.getvalue()


@pytest.mark.parametrize("width", [40, 60, 80, 120, 200])
@pytest.mark.parametrize("steer", [None, 2.0])
def test_no_number_is_lost_at_any_width(width, steer):
    found = table(steer=steer)
    text = printed(found, width)
    assert max(map(len, text.splitlines())) <= width
    for column in ("score_before", "score_fixed", "random_fixed"):
        for value in found[column]:
            assert f"{value:.3f}" in text
    for low, high in zip(found["ci_low"], found["ci_high"], strict=True):
        assert f"{low:+.3f} to {high:+.3f}" in text
    if steer is None:
        assert "LEACE taken out of every token at layer 3" in " ".join(text.split())
        assert "2.1% of the variance" in " ".join(text.split())


def test_what_is_clear_is_said_to_be_used_and_what_is_not_is_not():
    found = table()
    found["ci_low"] = 0.05
    used = verdict(found)
    assert used[0].startswith("What the probe reads at layer 3 is used above it")
    assert " at layer 6 from " in used[0]
    assert used[1].startswith("It counts for the next token")
    assert used[2].startswith("The model uses it for its own answer")
    found["ci_low"] = -0.05
    unused = verdict(found)
    assert all(sentence.startswith("No sign that") for sentence in unused[:3])
    assert used[-1] == unused[-1]
    assert used[-1].startswith("What is not said: that nothing else is used.")


@pytest.mark.parametrize("ending", [".png", ".svg", ".pdf"])
def test_the_same_table_gives_the_same_picture(tmp_path, ending):
    one, two = tmp_path / f"one{ending}", tmp_path / f"two{ending}"
    for path in (one, two):
        draw_intervention(table(), path)
    assert one.read_bytes() == two.read_bytes()
    assert len(one.read_bytes()) > 1000
