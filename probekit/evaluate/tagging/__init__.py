"""Token tasks: a tag for every word, read off the states of its tokens."""

from __future__ import annotations

from probekit.evaluate.tagging.decoding import decode_words
from probekit.evaluate.tagging.run import evaluate_tags, plan_tag_fits
from probekit.evaluate.tagging.tags import Tags, lost_code, read_tags
from probekit.evaluate.tagging.words import Tagging, WordSource, WordStates

__all__ = [
    "Tagging",
    "Tags",
    "WordSource",
    "WordStates",
    "decode_words",
    "evaluate_tags",
    "lost_code",
    "plan_tag_fits",
    "read_tags",
]
