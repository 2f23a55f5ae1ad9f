"""From the states of every layer to the layer table: splits, probes, baselines and intervals put together."""

from __future__ import annotations

from probekit.evaluate.run import Question, StateSource, evaluate
from probekit.evaluate.table import Origin

__all__ = ["Origin", "Question", "StateSource", "evaluate"]
