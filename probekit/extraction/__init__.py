"""Frozen model to per-layer states: the batch plan and the run."""

from probekit.extraction.plan import Plan, make_plan
from probekit.extraction.run import Progress, Reading, run

__all__ = ["Plan", "Progress", "Reading", "make_plan", "run"]
