"""Layer tables with chosen numbers, and what a terminal of some width shows of them."""

from __future__ import annotations

import io

import numpy as np
import pandas as pd
from rich.console import Console

from probekit.spec import CLASS_COLUMNS, SHOT_COLUMNS, TABLE_COLUMNS, TRANSFER_COLUMNS

KINDS = {
    "accuracy": ("classification", "logistic", 0.5),
    "r2": ("regression", "ridge", -0.01),
    "micro_f1": ("multilabel", "logistic", 0.1),
    "entity_f1": ("entities", "logistic", 0.0),
}


def curve(scores, *, metric="accuracy", half=0.03, **columns):
    """A curve with the score of each layer, an interval of ``half`` to each side, validation like the test.

    ``columns``: other values, for all layers or by layer.
    """
    task, probe, baseline = KINDS[metric]
    scores = np.array(scores, dtype=float)
    table = pd.DataFrame(np.nan, index=range(len(scores)), columns=list(TABLE_COLUMNS), dtype=object)
    values = {
        **{"model": "org/m", "revision": "r", "dataset": "d.tsv", "target": "label", "task": task, "pooling": "mean"},
        **{"layer": range(len(scores)), "n_layers": len(scores) - 1, "final_norm": False, "probe": probe},
        **{"metric": metric, "score": scores, "ci_low": scores - half, "ci_high": scores + half, "val_score": scores},
        **{"selected": np.arange(len(scores)) == np.nanargmax(scores), "delta_layer0": scores - scores[0]},
        **{"baseline": baseline, "text_baseline": np.nan, "n_train": 600, "n_val": 150, "n_test": 200},
        **{"n_classes": np.nan if metric == "r2" else 2.0, "group": None, "cache": "reviews", "seeds": 1},
        **({"accuracy": 0.9, "commonest_accuracy": 0.8, "entity_f1_lenient": 0.5} if metric == "entity_f1" else {}),
    }
    return table.assign(**(values | columns)).infer_objects()


def classes(names, **columns):
    rows = {"precision": 0.125, "recall": 0.25, "f1": 0.375, "support": 1234}
    values = {"model": "m", "target": "label", "pooling": "mean", "layer": 3, "probe": "logistic", "cache": "reviews"}
    table = pd.DataFrame({"class": names} | rows, columns=list(CLASS_COLUMNS))
    return table.assign(**(values | columns))


def shots(layers, ks, **columns):
    rows = [
        {"layer": layer, "shots": k, "draws": 10, "mean": (1 + layer * len(ks) + i) / 1000, "sd": 0.0625}
        for layer in range(layers)
        for i, k in enumerate(ks)
    ]
    values = {"model": "m", "target": "label", "pooling": "mean", "protocol": "probekit", "probe": "logistic"}
    values |= {"metric": "accuracy", "cache": "reviews"}
    return pd.DataFrame(rows, columns=list(SHOT_COLUMNS)).assign(**(values | columns))


def transfer(names, **columns):
    rows = [
        {"trained_on": a, "tested_on": b, "score": (1 + i * len(names) + j) / 1000, "layer": 3}
        for i, a in enumerate(names)
        for j, b in enumerate(names)
    ]
    values = {"model": "m", "target": "label", "pooling": "mean", "probe": "logistic", "metric": "accuracy"}
    values |= {"selected": True, "n_train": 600, "n_test": 500, "n_duplicate": 0}
    return pd.DataFrame(rows, columns=list(TRANSFER_COLUMNS)).assign(**(values | columns))


def shown(parts, width, encoding="utf-8"):
    """The lines of a terminal ``width`` characters wide."""
    file = io.TextIOWrapper(io.BytesIO(), encoding=encoding, newline="\n")
    console = Console(file=file, width=width, highlight=False)
    for part in parts:
        console.print(part)
        console.print()
    file.flush()
    return file.buffer.getvalue().decode(encoding).splitlines()
