"""What a saved head says of itself: a probe's card with the shape of the head beside it."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np

from probekit.heads.modules import Shape
from probekit.output import plain_value
from probekit.spec import Json
from probekit.training.outcome import Trained
from probekit.training.plan import Chosen, TrainPlan

TIMED = "seconds_per_step"
"""A column that is no part of a card, which is the same wherever the training ran."""


def head_card(plan: TrainPlan, chosen: Chosen, trained: Trained, row: Json, *, name: str) -> Json:
    """JSON. ``row``: of the table; ``name``: of the head there."""
    truth, target, of_head = trained.truth, chosen.target, chosen.options
    shape = Shape(of_head.head, plan.cache.d_model, truth.n_answers, of_head.width, of_head.dropout, len(chosen.layers))
    fit = chosen.fits[0]
    return {
        "target": target.name,
        "task": target.task.name,
        "probe": name,
        "pooling": "attention" if of_head.head == "attention" else chosen.source.pooling,
        "layer": chosen.layer,
        "layers": list(chosen.layers),
        "labels": [plain_value(label) for label in target.classes.tolist()],
        "viterbi": plan.options.viterbi and target.task.entities,
        "fitted_on": "train",
        "n_fitted": len(fit.train),
        "shape": asdict(shape),
        "mean": truth.mean,
        "scale": truth.scale,
        "scores": {column: plain_value(_plain(value)) for column, value in row.items() if column != TIMED},
    }


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value
