"""A model's config, read before anything is built from it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from transformers import AutoConfig, PreTrainedConfig

from probekit.errors import ModelError
from probekit.models.foreign import foreign
from probekit.models.source import ModelSource

MOST = 4096
"""Layers or experts of a model; what is more is a slip or a trap that takes minutes to build."""

COUNTS = re.compile(r"(layer|block|expert|group)s?$")


def read_config(source: ModelSource, *, trust_remote_code: bool) -> PreTrainedConfig:
    """The config of a model, of whatever kind.

    Raises ModelError if transformers can't read it, or it has more layers, groups or experts than can be meant.
    """
    name = f"model {source.name}"
    with foreign(name, "transformers can't read its config"):
        config = AutoConfig.from_pretrained(source.load_from, **source.pinned, trust_remote_code=trust_remote_code)
        for field, value in _numbers(config.to_dict()):
            if COUNTS.search(field) and abs(value) > MOST:
                raise ModelError(f"{name}, config.json, {field}", f"at most {MOST:,}", f"{value:,}")
    return config


def _numbers(values: Mapping[str, Any]) -> Iterator[tuple[str, int | float]]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _numbers(value)
        elif isinstance(value, int | float):
            yield str(name), value
