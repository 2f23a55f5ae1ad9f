"""The very model that made a cache, found again."""

from __future__ import annotations

import os

from probekit.errors import ModelError
from probekit.models.source import ModelSource, locate
from probekit.spec import Json


def same_model(cache: Json, model: str | os.PathLike[str] | None) -> ModelSource:
    """The model that made the cache whose spec is ``cache``, at ``model`` or on the hub. Raises ModelError if not."""
    if model is not None:
        source = locate(os.fspath(model))
    else:
        revision = str(cache["revision"])
        if revision.startswith("sha256:"):
            raise ModelError("--model", f"the states are of a local model ({cache['model']}); say where it is")
        source = locate(str(cache["model"]), revision=revision)
    for field, found in (("revision", source.revision), ("tokenizer", source.tokenizer_hash)):
        if found != cache[field]:
            raise ModelError(
                f"model {source.name}",
                f"must be the one that was read, with {field} {cache[field][:19]}…",
                f"{found[:19]}…",
            )
    return source
