"""Frozen model to per-layer states: the batch plan and the run."""

from probekit.extraction.plan import Plan, affordable_tokens, make_plan, plan_batches
from probekit.extraction.run import Progress, Reading, run

__all__ = ["Plan", "Progress", "Reading", "affordable_tokens", "make_plan", "plan_batches", "run"]
