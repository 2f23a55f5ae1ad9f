"""Frozen model to per-layer states: the batch plan and the run."""

from probekit.extraction.plan import Plan, make_plan, parse_layers
from probekit.extraction.run import Progress, run

__all__ = ["Plan", "Progress", "make_plan", "parse_layers", "run"]
