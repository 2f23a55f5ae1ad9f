"""What a curve says, in words, from the numbers of the table alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from probekit.layers import layer_range
from probekit.report.labels import LEVEL, METRIC_LABELS, known, number
from probekit.spec import Json
from probekit.tasks import TASKS

if TYPE_CHECKING:
    from probekit.report.facts import Held

TIE = 1e-12  # validation scores nearer than this are equal: the shallower layer was chosen
FEW_UNITS = 30  # fewer test rows or groups: a bootstrap interval is too narrow to lean on
MOST_NAMED = 6  # tied layers named one by one

CONTROLS = ("length_baseline", "random_model")
"""What the selected layer should beat, where it was asked for."""


def verdict(rows: Sequence[Json], chosen: Json | None, against: Mapping[str, Held]) -> list[str]:
    """Sentences on the selected layer of one curve, the first of them the verdict.

    ``rows``: of the layer table. ``chosen``: that of the selected layer. ``against``: by column. The score is above
    another where the whole 95% interval is: the other is taken as a fixed number. Layer 0, which has the same test
    rows, is compared by the paired test of the table. R² has to be above zero too, which is what the mean of the test
    rows themselves would have.
    """
    if chosen is None:
        return ["No layer has a validation score, so none is selected."]
    if not (known(chosen["score"]) and known(chosen["ci_low"])):
        return [f"Nothing can be said: layer {chosen['layer']} has no test score or no interval.", *_ties(rows)]
    first, readable = _against_baselines(chosen, against)
    compared = [*_against_layer0(rows, chosen), *_against_controls(chosen, against)] if readable else []
    return [first, *compared, *_weak(chosen), *_ties(rows)]


def _against_baselines(chosen: Json, against: Mapping[str, Held]) -> tuple[str, bool]:
    """The verdict on what the layer gives over the dummy and the text baseline; whether it gives anything."""
    metric, score, low, high = (chosen[name] for name in ("metric", "score", "ci_low", "ci_high"))
    found = f"{METRIC_LABELS[metric]} {number(score)} at layer {chosen['layer']}"
    interval = f"(95% interval {number(low)} to {number(high)})"
    dummy, text = against["baseline"], against.get("text_baseline")
    held = [one for one in (dummy, text) if one is not None and known(one.value)]
    floor = float(np.fmax(dummy.value, 0.0)) if metric == "r2" else dummy.value
    if low <= floor:
        above = "above" if score <= floor else "clearly above"
        zero = "zero, the mean of the test rows themselves"
        what = f"{_the(dummy)}, {number(floor)}" if floor == dummy.value else zero
        return f"Nothing readable here: {found} {interval} is not {above} {what}.", False
    if text is not None and low <= text.value:
        verb = "Worse than" if text.value > high else "The same, as far as the test rows tell, as"
        return f"{verb} {_the(text)}: {found} {interval}, against {number(text.value)}.", True
    if not held:
        return f"Nothing to hold it against: {found} {interval}.", True
    best = max(one.value for one in held)
    by, at_least, at_most = (number(value - best) for value in (score, low, high))
    over = "the better of them" if len(held) > 1 else "it"
    gain = f"{by} ({at_least} to {at_most}) above {over}, {number(best)}"
    return f"Better than {' and '.join(map(_the, held))}: {found} {interval} is {gain}.", True


def _the(held: Held) -> str:
    return held.name if held.name.startswith("each ") else f"the {held.name}"


def _against_layer0(rows: Sequence[Json], chosen: Json) -> Iterator[str]:
    layer0 = next((row for row in rows if row["layer"] == 0), None)
    if layer0 is None or len(rows) == 1:
        return
    if layer0 is chosen:
        yield "Layer 0, the embeddings, is itself best on validation: no deeper layer was better."
        return
    p, score = layer0["p_vs_best"], layer0["score"]
    same = p > LEVEL if known(p) else chosen["ci_low"] <= score
    if same or chosen["score"] <= score:
        yield f"Not clearly better than layer 0, the embeddings: {number(score)} there."


def _against_controls(chosen: Json, against: Mapping[str, Held]) -> Iterator[str]:
    for held in (against[column] for column in CONTROLS if column in against):
        if chosen["ci_low"] <= held.value:
            yield f"No better than {_the(held)}: {number(held.value)}."


def _weak(chosen: Json) -> Iterator[str]:
    """What makes the verdict itself doubtful."""
    if known(chosen["group"]) and chosen["n_groups_crossing"] > 0:
        yield f"Too high, perhaps: rows of one {chosen['group']} are both in the test and elsewhere."
    grouped = known(chosen["group"]) and known(chosen["n_groups_test"])
    n_units = chosen["n_groups_test"] if grouped else chosen["n_test"]
    if n_units < FEW_UNITS:
        unit = f"groups of {chosen['group']}" if grouped else TASKS[chosen["task"]].unit
        yield f"Weak: only {n_units:.0f} test {unit}."


def _ties(rows: Sequence[Json]) -> Iterator[str]:
    validated = [row for row in rows if known(row["val_score"])]
    best = max((row["val_score"] for row in validated), default=0.0)
    tied = [row["layer"] for row in validated if row["val_score"] >= best - TIE]
    if len(tied) > 1:
        names = f"{', '.join(map(str, tied[:-1]))} and {tied[-1]}" if len(tied) <= MOST_NAMED else layer_range(tied)
        yield f"Layers {names} tie on validation; the shallowest is taken."
