"""What is said of a curve, on a terminal, in a picture or elsewhere: computed here, laid out there."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from probekit.layers import layer_range
from probekit.report.labels import LEVEL, METRIC_LABELS, known, number
from probekit.report.verdict import verdict
from probekit.spec import Json
from probekit.tasks import TASKS, Task

CURVE = (
    *("cache", "model", "target", "task", "metric", "pooling", "probe", "protocol"),
    *("group", "n_groups_crossing"),
)
"""The columns whose values are one throughout a curve; a table has some of them."""

TITLES = {
    "layers": "{target}: {metric} of {a} {probe}, {pooling}, {model}",
    "classes": "{target} by class: {probe}, {pooling}, layer {layer}",
    "shots": "{target}: {metric} after few {few}, {protocol} protocol, {pooling}",
    "transfer": "{target}: {metric} on each data set, {probe}, {pooling}",
}
"""Of the curves of each table; the cache is named behind them where there are several."""

WHOLE_NUMBERS = "whole number"
"""In how a column was read: it could be classes or numbers."""


@dataclass(frozen=True)
class Held:
    """What a score is held against: its ``name``, its ``value``, and the ``column`` of the table that has it."""

    column: str
    name: str
    value: float


@dataclass(frozen=True)
class CurveFacts:
    """What is to be said of one curve of the layer table.

    ``rows``: of the table, a layer each. ``parts``: what tells curves of a target apart, by column. ``selected``: the
    row of the layer that is best on validation, if any has a validation score. ``read_as``: how whole numbers were
    read, or nothing. ``leak``: that groups are on both sides of the split, or nothing. In ``notes``, → and * are marks
    of the selected layer and of those after the model's final norm.
    """

    rows: pd.DataFrame
    target: str
    task: Task
    title: str
    parts: Mapping[str, str]
    metric: str
    selected: Json | None
    read_as: str
    verdict: tuple[str, ...]
    against: tuple[Held, ...]
    leak: str
    notes: tuple[str, ...]


def layer_facts(table: pd.DataFrame, how: Mapping[tuple[str, str], str] | None = None) -> list[CurveFacts]:
    """The facts of each curve of a layer table. ``how``: by target and task, how the column was read."""
    return [
        _facts(rows, title, (how or {}).get((rows["target"].iloc[0], rows["task"].iloc[0]), ""))
        for rows, title in titled_curves(table, "layers")
    ]


def titled_curves(table: pd.DataFrame, kind: str) -> Iterator[tuple[pd.DataFrame, str]]:
    """The rows of each curve, in the table's order, and its title. ``kind``: of the table, a key of ``TITLES``."""
    several = "cache" in table and table["cache"].nunique(dropna=False) > 1
    title = TITLES[kind] + (", {cache}" if several else "")
    for _, rows in table.groupby([name for name in CURVE if name in table], sort=False, dropna=False):
        first = records(rows)[0]
        metric = first.get("metric")
        few = next((task.few for task in TASKS.values() if task.metric == metric), "")
        said = first | _parts(first) | {"metric": METRIC_LABELS.get(str(metric), ""), "few": few}
        said["a"] = "an" if str(first.get("probe"))[:1] in tuple("aeiou") else "a"
        yield rows, title.format(**said)


def origin(table: pd.DataFrame) -> str:
    """Which data, and of which model, if it is one."""
    data, models = (list(dict.fromkeys(table[name].astype(str))) for name in ("dataset", "model"))
    return "; ".join([*models, *data] if len(models) == 1 else data)


def records(table: pd.DataFrame) -> list[Json]:
    """The rows, each by column."""
    return [{str(name): value for name, value in row.items()} for row in table.to_dict("records")]


def _facts(table: pd.DataFrame, title: str, how: str) -> CurveFacts:
    rows = records(table)
    first = rows[0]
    selected = next((row for row in rows if row["selected"]), None)
    task = TASKS[first["task"]]
    against = _against(selected or first, task)
    return CurveFacts(
        rows=table,
        target=str(first["target"]),
        task=task,
        title=title,
        parts=_parts(first),
        metric=METRIC_LABELS[first["metric"]],
        selected=selected,
        read_as=_read_as(first, task) if WHOLE_NUMBERS in how else "",
        verdict=tuple(verdict(rows, selected, {held.column: held for held in against})),
        against=against,
        leak=_leak(first),
        notes=(*(_of_selected(rows, selected, against) if selected else ()), *_of_all(rows)),
    )


def _parts(first: Json) -> dict[str, str]:
    of_words = "task" in first and TASKS[first["task"]].of_words
    group = f"{first['group']} leaking" if _leak(first) else f"new {first.get('group')}"
    return {
        "cache": f"cache {first.get('cache')}",
        "model": str(first["model"]),
        "pooling": f"{first['pooling']} of subwords" if of_words else f"{first['pooling']} pooling",
        "probe": f"{first['probe']} probe",
        "group": group if known(first.get("group")) else "no groups",
    }


def _read_as(first: Json, task: Task) -> str:
    """How whole numbers were read, and how to have it the other way."""
    n_classes = f"{first['n_classes']:.0f}" if known(first["n_classes"]) else ""
    return "read as " + task.other_reading.format(n=n_classes, target=first["target"]) if task.other_reading else ""


def _against(row: Json, task: Task) -> tuple[Held, ...]:
    layer0 = row["score"] - row["delta_layer0"] if known(row["delta_layer0"]) else math.nan
    others = (
        Held("text_baseline", task.text_baseline, row["text_baseline"]),
        Held("delta_layer0", "layer 0", layer0),
        Held("control", "shuffled labels", math.nan if task.control_metric else row["control"]),
        Held("length_baseline", "length alone", row["length_baseline"]),
        Held("random_model", "same layer with random weights", row["random_model"]),
    )
    return (Held("baseline", task.dummy_name, row["baseline"]), *(held for held in others if known(held.value)))


def _leak(first: Json) -> str:
    if not (known(first.get("group")) and first["n_groups_crossing"] > 0):
        return ""
    return f"LEAK: {first['n_groups_crossing']:.0f} groups of {first['group']} are in more than one part"


def _of_selected(rows: Sequence[Json], selected: Json, against: Sequence[Held]) -> Iterator[str]:
    metric, score = METRIC_LABELS[selected["metric"]], number(selected["score"])
    yield f"→ layer {selected['layer']} is best on validation: test {metric} {score}"
    alike = [row["layer"] for row in rows if known(row["p_vs_best"]) and row["p_vs_best"] > LEVEL]
    if alike:
        yield f"not clearly different (p > {LEVEL}): {layer_range(tuple(alike))}"
    yield "against " + ", ".join(f"{held.name} {number(held.value)}" for held in against)
    task = TASKS[selected["task"]]
    beside = [*_of_words(selected, entities=task.entities)] if task.of_words else [*_information(selected)]
    if beside:
        yield "; ".join(beside)
    if task.of_words:
        yield f"control task {number(selected['control'])} right, selectivity {selected['selectivity']:+.3f}"


def _of_words(selected: Json, *, entities: bool) -> Iterator[str]:
    if entities:
        yield f"lenient entity F1 {number(selected['entity_f1_lenient'])}"
    right, commonest = number(selected["accuracy"]), number(selected["commonest_accuracy"])
    yield f"words {right} right (the commonest tag {commonest})"
    if known(selected["oov_accuracy"]):
        yield f"new words {number(selected['oov_accuracy'])}"
    if known(selected["viterbi_gain"]):
        yield f"decoding sentences gains {selected['viterbi_gain']:+.3f}"


def _information(selected: Json) -> Iterator[str]:
    if known(selected["conditional"]):
        yield f"adds {selected['conditional']:+.3f} to layer 0"
    if known(selected["mdl_bits"]):
        yield f"labels take {selected['mdl_bits']:,.0f} bits, compressed {selected['compression']:.2f} times"


def _of_all(rows: Sequence[Json]) -> Iterator[str]:
    first = rows[0]
    classes = f"{first['n_classes']:.0f} classes; " if known(first["n_classes"]) else ""
    unit = TASKS[first["task"]].unit
    groups = f"; {_leak(first)}" if _leak(first) else ""
    if known(first["group"]) and not groups:
        groups = f", {first['n_groups_test']:.0f} groups of {first['group']} in the test, none elsewhere"
    yield f"{classes}{first['n_train']} train, {first['n_val']} validation, {first['n_test']} test {unit}{groups}"
    if any(row["final_norm"] for row in rows):
        yield "* after the model's final norm"
