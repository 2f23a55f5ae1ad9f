"""Labelled texts from local files and from datasets of the Hugging Face hub."""

from __future__ import annotations

from probekit.inputs.read import examples_from_dataset_dict, read_examples

__all__ = ["examples_from_dataset_dict", "read_examples"]
