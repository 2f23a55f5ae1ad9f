"""What a curve says, in words, from the numbers of the table alone."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import pandas as pd

from probekit.layers import layer_range
from probekit.report.curves import records
from probekit.report.labels import LEVEL, LOOKED_UP, METRIC_LABELS, TRIVIAL, WORDS_ALONE, number
from probekit.spec import OF_WORDS, Json

TIE = 1e-12  # validation scores nearer than this are equal: the shallower layer was chosen
FEW_UNITS = 30  # fewer test rows or groups: a bootstrap interval is too narrow to lean on
MOST_NAMED = 6  # tied layers named one by one

OTHERS = {"length_baseline": "the length alone", "random_model": "the same layer of the model with random weights"}
"""Controls that the chosen layer should beat, where they were asked for."""


def verdict(curve: pd.DataFrame) -> list[str]:
    """Sentences on the selected layer of one curve, the first of them the verdict.

    Its score is above another where the whole 95% interval is: the other is taken as a fixed number. Layer 0, which
    has the same test rows, is compared by the paired test of the table. R² has to be above zero too, which is what the
    mean of the test rows themselves would have.
    """
    rows = records(curve)
    chosen = next((row for row in rows if row["selected"]), None)
    if chosen is None:
        return ["No layer has a validation score, so none is selected."]
    if not (_known(chosen["score"]) and _known(chosen["ci_low"])):
        return [f"Nothing can be said: layer {chosen['layer']} has no test score or no interval.", *_ties(rows)]
    first, readable = _against_baselines(chosen)
    compared = [*_against_layer0(rows, chosen), *_against_controls(chosen)] if readable else []
    return [first, *compared, *_weak(chosen), *_ties(rows)]


def _against_baselines(chosen: Json) -> tuple[str, bool]:
    """The verdict on what the layer gives over the trivial answer and over the words; whether it gives anything."""
    metric, score, low, high = (chosen[name] for name in ("metric", "score", "ci_low", "ci_high"))
    trivial = f"the {TRIVIAL[chosen['task']]}"
    words = LOOKED_UP if chosen["task"] in OF_WORDS else f"the {WORDS_ALONE}"
    found = f"{METRIC_LABELS[metric]} {number(score)} at layer {chosen['layer']}"
    interval = f"(95% interval {number(low)} to {number(high)})"
    known = {trivial: chosen["baseline"], words: chosen["text_baseline"]}
    known = {name: value for name, value in known.items() if _known(value)}
    floor = max(known.get(trivial, 0.0), 0.0) if metric == "r2" else known.get(trivial, math.nan)
    if low <= floor:
        above = "above" if score <= floor else "clearly above"
        what = trivial if floor == known.get(trivial) else "zero, the mean of the test rows themselves"
        held = f"{what}, {number(floor)}" if floor == known.get(trivial) else what
        return f"Nothing readable here: {found} {interval} is not {above} {held}.", False
    if words in known and low <= known[words]:
        verb = "Worse than" if known[words] > high else "The same, as far as the test rows tell, as"
        return f"{verb} {words}: {found} {interval}, against {number(known[words])}.", True
    if not known:
        return f"Nothing to hold it against: {found} {interval}.", True
    best = max(known.values())
    by, at_least, at_most = (number(value - best) for value in (score, low, high))
    over = "the better of them" if len(known) > 1 else "it"
    names = " and ".join(known)
    return (
        f"Better than {names}: {found} {interval} is {by} ({at_least} to {at_most}) above {over}, {number(best)}.",
        True,
    )


def _against_layer0(rows: Sequence[Json], chosen: Json) -> Iterator[str]:
    layer0 = next((row for row in rows if row["layer"] == 0), None)
    if layer0 is None or len(rows) == 1:
        return
    if layer0 is chosen:
        yield "Layer 0, the embeddings, is itself best on validation: no deeper layer was better."
        return
    p, score = layer0["p_vs_best"], layer0["score"]
    same = p > LEVEL if _known(p) else chosen["ci_low"] <= score
    if same or chosen["score"] <= score:
        yield f"Not clearly better than layer 0, the embeddings: {number(score)} there."


def _against_controls(chosen: Json) -> Iterator[str]:
    for column, name in OTHERS.items():
        if _known(chosen[column]) and chosen["ci_low"] <= chosen[column]:
            yield f"No better than {name}: {number(chosen[column])}."


def _weak(chosen: Json) -> Iterator[str]:
    """What makes the verdict itself doubtful."""
    if _known(chosen["group"]) and chosen["n_groups_crossing"] > 0:
        yield f"Too high, perhaps: rows of one {chosen['group']} are both in the test and elsewhere."
    grouped = _known(chosen["group"]) and _known(chosen["n_groups_test"])
    n_units = chosen["n_groups_test"] if grouped else chosen["n_test"]
    if n_units < FEW_UNITS:
        unit = f"groups of {chosen['group']}" if grouped else "sentences" if chosen["task"] in OF_WORDS else "rows"
        yield f"Weak: only {n_units:.0f} test {unit}."


def _ties(rows: Sequence[Json]) -> Iterator[str]:
    known = [row for row in rows if _known(row["val_score"])]
    best = max((row["val_score"] for row in known), default=0.0)
    tied = [row["layer"] for row in known if row["val_score"] >= best - TIE]
    if len(tied) > 1:
        names = f"{', '.join(map(str, tied[:-1]))} and {tied[-1]}" if len(tied) <= MOST_NAMED else layer_range(tied)
        yield f"Layers {names} tie on validation; the shallowest is taken."


def _known(value: Any) -> bool:
    return bool(pd.notna(value))
