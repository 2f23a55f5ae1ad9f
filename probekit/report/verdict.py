"""What a curve says, in words, from the numbers of the table alone."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pandas as pd

from probekit.models.layers import layer_range
from probekit.report.labels import LEVEL, LOOKED_UP, METRIC_LABELS, TRIVIAL, WORDS_ALONE, number
from probekit.spec import OF_WORDS

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
    if not curve["selected"].any():
        return ["No layer has a validation score, so none is selected."]
    chosen = curve[curve["selected"]].iloc[0]
    if pd.isna(chosen["score"]) or pd.isna(chosen["ci_low"]):
        return [f"Nothing can be said: layer {chosen['layer']} has no test score or no interval.", *_ties(curve)]
    first, readable = _against_baselines(chosen)
    compared = [*_against_layer0(curve, chosen), *_against_controls(chosen)] if readable else []
    return [first, *compared, *_weak(chosen), *_ties(curve)]


def _against_baselines(chosen: pd.Series) -> tuple[str, bool]:
    """The verdict on what the layer gives over the trivial answer and over the words; whether it gives anything."""
    metric, score, low, high = (chosen[name] for name in ("metric", "score", "ci_low", "ci_high"))
    trivial = f"the {TRIVIAL[chosen['task']]}"
    words = LOOKED_UP if chosen["task"] in OF_WORDS else f"the {WORDS_ALONE}"
    found = f"{METRIC_LABELS[metric]} {number(score)} at layer {chosen['layer']}"
    interval = f"(95% interval {number(low)} to {number(high)})"
    known = {trivial: chosen["baseline"], words: chosen["text_baseline"]}
    known = {name: value for name, value in known.items() if pd.notna(value)}
    floor = max(known.get(trivial, 0.0), 0.0) if metric == "r2" else known.get(trivial, math.nan)
    if low <= floor:
        above = "above" if score <= floor else "clearly above"
        return f"Nothing readable here: {found} {interval} is not {above} {trivial}, {number(floor)}.", False
    if words in known and low <= known[words]:
        verb = "Worse than" if known[words] > high else "The same as"
        return f"{verb} {words}: {found} {interval}, against {number(known[words])}.", True
    if not known:
        return f"Nothing to hold it against: {found} {interval}.", True
    best = max(known.values())
    by, at_least, at_most = (number(value - best) for value in (score, low, high))
    over = "the better of them" if len(known) > 1 else "it"
    names = " and ".join(known)
    return f"Better than {names}: {found} {interval} is {by} ({at_least} to {at_most}) above {over}, {number(best)}.", True


def _against_layer0(curve: pd.DataFrame, chosen: pd.Series) -> Iterator[str]:
    first = curve[curve["layer"] == 0]
    if first.empty or len(curve) == 1:
        return
    if chosen["layer"] == 0:
        yield "Layer 0, the embeddings, is itself best on validation: no deeper layer was better."
        return
    layer0 = first.iloc[0]
    p, gain = layer0["p_vs_best"], chosen["score"] - layer0["score"]
    same = p > LEVEL if pd.notna(p) else chosen["ci_low"] <= layer0["score"]
    if pd.notna(gain) and (same or gain <= 0):
        yield f"Not clearly better than layer 0, the embeddings: {number(layer0['score'])} there."


def _against_controls(chosen: pd.Series) -> Iterator[str]:
    for column, name in OTHERS.items():
        if pd.notna(chosen[column]) and chosen["ci_low"] <= chosen[column]:
            yield f"No better than {name}: {number(chosen[column])}."


def _weak(chosen: pd.Series) -> Iterator[str]:
    """What makes the verdict itself doubtful."""
    if pd.notna(chosen["group"]) and chosen["n_groups_crossing"] > 0:
        yield f"Too high, perhaps: rows of one {chosen['group']} are both in the test and elsewhere."
    grouped = pd.notna(chosen["group"]) and pd.notna(chosen["n_groups_test"])
    n_units = chosen["n_groups_test"] if grouped else chosen["n_test"]
    if n_units < FEW_UNITS:
        unit = f"groups of {chosen['group']}" if grouped else "sentences" if chosen["task"] in OF_WORDS else "rows"
        yield f"Weak: only {n_units:.0f} test {unit}."


def _ties(curve: pd.DataFrame) -> Iterator[str]:
    best = curve["val_score"].max()
    tied = curve[curve["val_score"] >= best - TIE]["layer"].tolist()
    if len(tied) > 1:
        names = f"{', '.join(map(str, tied[:-1]))} and {tied[-1]}" if len(tied) <= MOST_NAMED else layer_range(tied)
        yield f"Layers {names} tie on validation; the shallowest is taken."
