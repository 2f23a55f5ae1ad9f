"""Frozen model to per-layer states: what is asked for, the batch plan and the run."""
