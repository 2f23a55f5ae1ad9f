"""Labelled texts from local files, from datasets of the Hugging Face hub, and from memory."""

from __future__ import annotations

from probekit.inputs.memory import texts_or_sources
from probekit.inputs.read import read_examples

__all__ = ["read_examples", "texts_or_sources"]
