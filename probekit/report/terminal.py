"""The layer table for a terminal: a row and a bar per layer."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd
from rich.bar import Bar
from rich.console import Group
from rich.table import Table
from rich.text import Text

from probekit.models.layers import layer_range
from probekit.report.labels import METRIC_LABELS, TRIVIAL
from probekit.spec import OF_WORDS

CURVE = ["model", "target", "pooling", "probe"]
"""What tells one curve of the table from another."""


LEVEL = 0.05


def layer_tables(table: pd.DataFrame, *, bar_width: int = 24) -> Iterator[Group]:
    """A title, a rich table and what it is held against, per curve; bars go from the baseline to the best score."""
    for _, curve in table.groupby(CURVE, sort=False):
        yield _layer_table(curve, bar_width)


def _layer_table(curve: pd.DataFrame, bar_width: int) -> Group:
    first = curve.iloc[0]
    metric = METRIC_LABELS[first["metric"]]
    pooled = f"{first['pooling']} of subwords" if first["task"] in OF_WORDS else f"{first['pooling']} pooling"
    title = f"{first['target']}: {metric} of a {first['probe']} probe, {pooled}, {first['model']}"
    table = Table(box=None)
    table.add_column("layer", justify="right", no_wrap=True)
    table.add_column(metric, justify="right", no_wrap=True)
    table.add_column("95% interval", no_wrap=True)
    table.add_column("validation", justify="right", no_wrap=True)
    table.add_column("", no_wrap=True, width=bar_width)
    low = min(first["baseline"], curve["score"].min())
    high = curve["score"].max()
    for row in curve.to_dict("records"):
        name = f"{row['layer']}{'*' if row['final_norm'] else ''}"
        interval = f"{row['ci_low']:.3f} to {row['ci_high']:.3f}"
        style = "bold green" if row["selected"] else ""
        table.add_row(
            Text(("→ " if row["selected"] else "") + name),
            f"{row['score']:.3f}",
            interval,
            f"{row['val_score']:.3f}",
            Bar(max(high - low, 1e-9), 0.0, row["score"] - low, color="green" if row["selected"] else "blue"),
            style=style,
        )
    return Group(Text(title, style="bold"), table, Text(_caption(curve, metric), style="dim"))


def _caption(curve: pd.DataFrame, metric: str) -> str:
    first = curve.iloc[0]
    chosen = curve[curve["selected"]].iloc[0]
    of_words = first["task"] in OF_WORDS
    held = [f"{TRIVIAL[first['task']]} {first['baseline']:.3f}"]
    if pd.notna(first["text_baseline"]):
        held.append(f"{'each word looked up' if of_words else 'words alone (TF-IDF)'} {first['text_baseline']:.3f}")
    if pd.notna(chosen["delta_layer0"]):
        held.append(f"layer 0 {chosen['score'] - chosen['delta_layer0']:.3f}")
    if pd.notna(chosen["control"]) and not of_words:
        held.append(f"shuffled labels {chosen['control']:.3f}")
    if pd.notna(chosen["length_baseline"]):
        held.append(f"length alone {chosen['length_baseline']:.3f}")
    if pd.notna(chosen["random_model"]):
        held.append(f"random weights {chosen['random_model']:.3f}")
    classes = f"{first['n_classes']:.0f} classes; " if pd.notna(first["n_classes"]) else ""
    unit = "sentences" if of_words else "rows"
    rows = f"{classes}{first['n_train']} train, {first['n_val']} validation, {first['n_test']} test {unit}"
    norm = "\n* after the model's final norm" if curve["final_norm"].any() else ""
    lines = [
        f"→ layer {chosen['layer']} is best on validation: test {metric} {chosen['score']:.3f}",
        *_alike(curve),
        "against " + ", ".join(held),
        *(_tagging(chosen) if of_words else _information(chosen)),
        rows + _groups(first),
    ]
    return "\n".join(lines) + norm


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
    found = [f"words {chosen['accuracy']:.3f} right (the commonest tag {chosen['commonest_accuracy']:.3f})"]
    if pd.notna(chosen["oov_accuracy"]):
        found.append(f"new words {chosen['oov_accuracy']:.3f}")
    if chosen["task"] == "entities":
        found.insert(0, f"lenient entity F1 {chosen['entity_f1_lenient']:.3f}")
    if pd.notna(chosen["viterbi_gain"]):
        found.append(f"decoding sentences gains {chosen['viterbi_gain']:+.3f}")
    control = f"control task {chosen['control']:.3f} right, selectivity {chosen['selectivity']:+.3f}"
    return ["; ".join(found), control]


def _information(chosen: pd.Series) -> list[str]:
    """What the controls say of the chosen layer beside scores, if they were asked for."""
    found = []
    if pd.notna(chosen["conditional"]):
        found.append(f"adds {chosen['conditional']:+.3f} to layer 0")
    if pd.notna(chosen["mdl_bits"]):
        found.append(f"labels take {chosen['mdl_bits']:,.0f} bits, compressed {chosen['compression']:.2f} times")
    return ["; ".join(found)] if found else []
