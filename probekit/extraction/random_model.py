"""The same texts read by the same model with random weights: a control, in a cache of its own beside the first."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from probekit.errors import ModelError, StaleCacheError
from probekit.extraction.job import run_job
from probekit.extraction.request import Job, found_cache, known_spec, same_model
from probekit.extraction.same_texts import same_texts
from probekit.models.source import ModelSource
from probekit.readspec import ReadSpec, RunOptions
from probekit.spec import Json, Listener
from probekit.store import Cache

SEED = 0


def random_path(cache: Path) -> Path:
    """Where the random model's states are kept: ``reviews.random.h5`` beside ``reviews.h5``."""
    return cache.with_name(f"{cache.stem}.random{cache.suffix}")


def random_model_job(cache: Cache, models: Sequence[str | os.PathLike[str]]) -> Job:
    """What ``cache`` holds, to be extracted once more with weights drawn anew (seed 0): all checked, nothing done.

    ``models``: where the model is among others, if not on the hub; only its config and tokenizer matter, but it must be
    the same.

    Raises SpecError where the texts were not stored, ModelError for another model or one that is not found, and
    StaleCacheError for a file of that name made from something else.
    """
    examples = same_texts(cache, "--control random")
    spec = cache.spec
    source = _find(spec, models)
    job = Job(source, examples, known_spec(_asked(ReadSpec.from_json(spec)), source, examples), cache.layers)
    try:
        found = found_cache(random_path(cache.path), job)
    except StaleCacheError as error:
        message = f"{error.allowed.split(';')[0]}; move that file away, or name another by --random-cache"
        raise StaleCacheError(f"--control random, {error.source}", message) from error
    if isinstance(found, Cache):
        found.close()
    return job


def run_random_model(cache: Cache, job: Job, *, threads: int, listener: Listener) -> Cache:
    """Extract what ``random_model_job`` says, or open what was made before."""
    listener.note(f"{random_path(cache.path).name}: the same texts read by {job.source.name} with random weights")
    options = RunOptions(device=job.spec.device or "auto", threads=threads)
    return run_job(job, random_path(cache.path), options=options, listener=listener)


def _asked(spec: ReadSpec) -> ReadSpec:
    """To read as a cache was read, by another model: how batches are read is found out anew."""
    # States of tokens are of no use here, but a text is only read in pieces where they are kept.
    tokens = None if spec.stride is None else spec.tokens
    return replace(spec, random_seed=SEED, store_text=True, tokens=tokens, n_layers=None, layers=None, batching=None)


def _find(spec: Json, models: Sequence[str | os.PathLike[str]]) -> ModelSource:
    """The model among ``models`` that made the cache; the error is that of the last one."""
    for model in models[:-1]:
        with suppress(ModelError):
            return same_model(spec, model)
    return same_model(spec, models[-1] if models else None)
