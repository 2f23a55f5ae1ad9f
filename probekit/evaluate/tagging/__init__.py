"""Token tasks: a tag for every word, read off the states of its tokens."""

from __future__ import annotations

from probekit.evaluate.tagging.run import evaluate_tags, plan_tag_fits
from probekit.evaluate.tagging.words import Tagging, WordSource

__all__ = ["Tagging", "WordSource", "evaluate_tags", "plan_tag_fits"]
