"""Token tasks: a tag for every word, read off the states of its tokens."""

from __future__ import annotations

from probekit.evaluate.tagging.run import evaluate_tags, plan_tag_fits
from probekit.evaluate.tagging.tags import Tags, read_tags
from probekit.evaluate.tagging.words import Tagging, WordSource, WordStates

__all__ = ["Tagging", "Tags", "WordSource", "WordStates", "evaluate_tags", "plan_tag_fits", "read_tags"]
