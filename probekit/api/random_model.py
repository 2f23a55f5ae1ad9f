"""The same texts read by the same model with random weights: a control, in a cache of its own beside the first."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from probekit.api.extract import run_job
from probekit.api.request import RENDERED, Handling, Job, Request, known_fields
from probekit.api.same_model import same_model
from probekit.errors import ModelError, SpecError
from probekit.models.source import ModelSource
from probekit.spec import Examples, Json, Listener
from probekit.store import Cache

SEED = 0


def random_path(cache: Path) -> Path:
    """Where the random model's states are kept: ``reviews.random.h5`` beside ``reviews.h5``."""
    return cache.with_name(f"{cache.stem}.random{cache.suffix}")


def random_model_cache(
    cache: Cache, *, models: Sequence[str | os.PathLike[str]], threads: int, listener: Listener
) -> Cache:
    """Extract what ``cache`` holds once more, with weights drawn anew (seed 0), or open what was made before.

    ``models``: where the model is among others, if not on the hub; only its config and tokenizer matter, but it must be
    the same.

    Raises SpecError where the texts were not stored, ModelError for another model or one that is not found, and
    StaleCacheError for a file of that name made from something else.
    """
    if not cache.spec["store_text"]:
        raise SpecError("--control random", f"needs the texts, which {cache.path.name} was made without")
    spec = cache.spec
    source = _find(spec, models)
    examples = Examples(
        source=str(cache.provenance.get("dataset", "")),
        text_column=str(cache.provenance.get("text_column", "")),
        texts=cache.texts,
        ids=cache.ids,
        columns={name: cache.column(name) for name in cache.columns},
    )
    of_spec = {"last_layer": spec["last_layer"]} if "last_layer" in spec else {}
    request = Request(
        layers=",".join(map(str, cache.layers)),
        pooling=cache.poolings,
        random_seed=SEED,
        **{name: spec[name] for name in SHARED},
        **of_spec,
    )
    listener.note(f"{random_path(cache.path).name}: the same texts read by {source.name} with random weights")
    rendered = {name: spec[name] for name in RENDERED if name in spec}
    job = Job(source, examples, request, known_fields(request, source, examples) | rendered)
    return run_job(job, random_path(cache.path), handling=Handling(threads=threads), listener=listener)


def _find(spec: Json, models: Sequence[str | os.PathLike[str]]) -> ModelSource:
    """The model among ``models`` that made the cache; the error is that of the last one."""
    for model in models[:-1]:
        with suppress(ModelError):
            return same_model(spec, model)
    return same_model(spec, models[-1] if models else None)


SHARED = (
    *("max_length", "device", "dtype", "store_dtype", "batch_tokens"),
    *("prompt", "chat_template", "pool_over", "side", "site", "quantize"),
)
"""What of the cache's spec is a field of the request by the same name."""
