"""The layer table for a terminal: a row and a bar per layer, and what it says in words."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import partial

import pandas as pd
from rich.console import RenderableType
from rich.text import Text

from probekit.layers import layer_range
from probekit.report.bars import Scale, scale_of
from probekit.report.curves import curves, named_caches, records
from probekit.report.labels import LEVEL, LOOKED_UP, METRIC_LABELS, TRIVIAL, WORDS_ALONE, number
from probekit.report.layout import GAP, ByWidth, Cells, one_table, width_of
from probekit.report.verdict import verdict
from probekit.spec import OF_WORDS, Json

BAR_WIDTH = 24
"""At most; where there is less room, less."""
WHOLE_NUMBERS = "whole number"
"""In how a column was read: it could be classes or numbers."""
OTHER_READING = {
    "classification": "{n} classes; for numbers: --task {target}=regression",
    "regression": "numbers; for classes: --task {target}=classification",
}


def layer_tables(table: pd.DataFrame, *, how: Mapping[tuple[str, str], str] | None = None) -> Iterator[RenderableType]:
    """Per curve a title, a table with a bar per layer, the verdict and what the score is held against.

    ``how``: by target and task, a phrase that says how the column was read.
    """
    for curve in curves(table):
        first = curve.iloc[0]
        read_as = _read_as(first, (how or {}).get((first["target"], first["task"]), ""))
        yield ByWidth(partial(_layer_table, curve, _title(first, named=named_caches(table)), read_as))


def _title(first: pd.Series, *, named: bool) -> str:
    pooled = f"{first['pooling']} of subwords" if first["task"] in OF_WORDS else f"{first['pooling']} pooling"
    what = (
        f"{first['target']}: {METRIC_LABELS[first['metric']]} of a {first['probe']} probe, {pooled}, {first['model']}"
    )
    return f"{what}, cache {first['cache']}" if named else what


def _read_as(first: pd.Series, how: str) -> str:
    """How whole numbers were read, and how to have it the other way."""
    if WHOLE_NUMBERS not in how or first["task"] not in OTHER_READING:
        return ""
    n_classes = f"{first['n_classes']:.0f}" if pd.notna(first["n_classes"]) else ""
    return "read as " + OTHER_READING[first["task"]].format(n=n_classes, target=first["target"])


def _layer_table(curve: pd.DataFrame, title: str, read_as: str, width: int) -> Iterator[RenderableType]:
    yield Text(title, style="bold")
    if read_as:
        yield Text(read_as)
    selected = [bool(chosen) for chosen in curve["selected"]]
    yield one_table(_fitting(curve, selected, width), ["bold green" if chosen else "" for chosen in selected])
    for i, sentence in enumerate(verdict(curve)):
        yield Text(sentence, style="" if i else "bold")
    yield Text(_caption(curve, METRIC_LABELS[curve["metric"].iloc[0]]), style="dim")


def _fitting(curve: pd.DataFrame, selected: Sequence[bool], width: int) -> list[Cells]:
    """The columns that there is room for: bars go first, then validation, words in the interval, the interval."""
    rows = records(curve)
    names = [f"{row['layer']}{'*' if row['final_norm'] else ''}" for row in rows]
    layer = Cells("layer", [("→ " if chosen else "") + name for chosen, name in zip(selected, names, strict=True)])
    score = Cells(METRIC_LABELS[rows[0]["metric"]], [number(row["score"]) for row in rows])
    interval = Cells("95% interval", [_interval(row, " to ") for row in rows], "left")
    short = Cells("95%", [_interval(row, "..") for row in rows], "left")
    val = Cells("validation", [number(row["val_score"]) for row in rows])
    scale = scale_of([row["score"] for row in rows], rows[0]["baseline"], is_r2=rows[0]["metric"] == "r2")
    room = min(BAR_WIDTH, width - width_of([layer, score, interval, val]) - GAP)
    if room >= scale.narrowest:
        return [layer, score, interval, val, _bars(rows, scale, selected, room)]
    for columns in ([layer, score, interval, val], [layer, score, interval], [layer, score, short]):
        if width_of(columns) <= width:
            return columns
    return [layer, score]


def _interval(row: Json, between: str) -> str:
    ends = [row["ci_low"], row["ci_high"]]
    return number(math.nan) if any(map(math.isnan, ends)) else between.join(map(number, ends))


def _bars(rows: Sequence[Json], scale: Scale, selected: Sequence[bool], width: int) -> Cells:
    styles = ["green" if chosen else "blue" for chosen in selected]
    bars = [Text(scale.bar(row["score"], width), style) for row, style in zip(rows, styles, strict=True)]
    return Cells(scale.heading(width), bars, "left")


def _caption(curve: pd.DataFrame, metric: str) -> str:
    first = curve.iloc[0]
    of_words = first["task"] in OF_WORDS
    classes = f"{first['n_classes']:.0f} classes; " if pd.notna(first["n_classes"]) else ""
    unit = "sentences" if of_words else "rows"
    rows = f"{classes}{first['n_train']} train, {first['n_val']} validation, {first['n_test']} test {unit}"
    lines = [rows + _groups(first)]
    if curve["selected"].any():
        chosen = curve[curve["selected"]].iloc[0]
        lines = [
            f"→ layer {chosen['layer']} is best on validation: test {metric} {number(chosen['score'])}",
            *_alike(curve),
            "against " + ", ".join(_held_against(chosen)),
            *(_tagging(chosen) if of_words else _information(chosen)),
            *lines,
        ]
    if curve["final_norm"].any():
        lines.append("* after the model's final norm")
    return "\n".join(lines)


def _held_against(chosen: pd.Series) -> list[str]:
    of_words = chosen["task"] in OF_WORDS
    held = [f"{TRIVIAL[chosen['task']]} {number(chosen['baseline'])}"]
    if pd.notna(chosen["text_baseline"]):
        held.append(f"{LOOKED_UP if of_words else WORDS_ALONE} {number(chosen['text_baseline'])}")
    if pd.notna(chosen["delta_layer0"]):
        held.append(f"layer 0 {number(chosen['score'] - chosen['delta_layer0'])}")
    if pd.notna(chosen["control"]) and not of_words:
        held.append(f"shuffled labels {number(chosen['control'])}")
    if pd.notna(chosen["length_baseline"]):
        held.append(f"length alone {number(chosen['length_baseline'])}")
    if pd.notna(chosen["random_model"]):
        held.append(f"random weights {number(chosen['random_model'])}")
    return held


def _groups(first: pd.Series) -> str:
    """How the groups were held apart, or that they were not."""
    if pd.isna(first["group"]):
        return ""
    if first["n_groups_crossing"]:
        return f"; LEAK: {first['n_groups_crossing']:.0f} groups of {first['group']} are in more than one part"
    return f", {first['n_groups_test']:.0f} groups of {first['group']} in the test, none elsewhere"


def _alike(curve: pd.DataFrame) -> list[str]:
    """The layers that the test rows can't tell from the chosen one, if there are others that they can."""
    same = curve[curve["p_vs_best"].astype(float) > LEVEL]["layer"].tolist()
    return [f"not clearly different (p > {LEVEL}): {layer_range(tuple(same))}"] if same else []


def _tagging(chosen: pd.Series) -> list[str]:
    """What token tasks have beside the score."""
    found = [f"words {number(chosen['accuracy'])} right (the commonest tag {number(chosen['commonest_accuracy'])})"]
    if pd.notna(chosen["oov_accuracy"]):
        found.append(f"new words {number(chosen['oov_accuracy'])}")
    if chosen["task"] == "entities":
        found.insert(0, f"lenient entity F1 {number(chosen['entity_f1_lenient'])}")
    if pd.notna(chosen["viterbi_gain"]):
        found.append(f"decoding sentences gains {chosen['viterbi_gain']:+.3f}")
    control = f"control task {number(chosen['control'])} right, selectivity {chosen['selectivity']:+.3f}"
    return ["; ".join(found), control]


def _information(chosen: pd.Series) -> list[str]:
    """What the controls say of the chosen layer beside scores, if they were asked for."""
    found = []
    if pd.notna(chosen["conditional"]):
        found.append(f"adds {chosen['conditional']:+.3f} to layer 0")
    if pd.notna(chosen["mdl_bits"]):
        found.append(f"labels take {chosen['mdl_bits']:,.0f} bits, compressed {chosen['compression']:.2f} times")
    return ["; ".join(found)] if found else []
