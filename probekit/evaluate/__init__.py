"""From the states of every layer to the layer table: splits, probes, baselines and intervals put together."""

from __future__ import annotations

from probekit.evaluate.diagnostics import feature_health
from probekit.evaluate.few_shot import MTEB, Shots, few_shots, plan_shots
from probekit.evaluate.fit import label_probability
from probekit.evaluate.question import Question, StateSource
from probekit.evaluate.run import evaluate, plan_fits
from probekit.evaluate.table import Origin

__all__ = [
    "MTEB",
    "Origin",
    "Question",
    "Shots",
    "StateSource",
    "evaluate",
    "feature_health",
    "few_shots",
    "label_probability",
    "plan_fits",
    "plan_shots",
]
