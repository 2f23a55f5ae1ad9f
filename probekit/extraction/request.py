"""What a user asks of extraction, and whether a cache that is there already answers it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from probekit.errors import SpecError
from probekit.inputs.table import is_clean
from probekit.layers import parse_layers
from probekit.models.source import ModelSource
from probekit.spec import LAST_LAYERS, PLACE, POOL_OVER, POOLING_NAMES, SIDES, SITES, Examples, Json
from probekit.store import (
    Cache,
    StoredSpec,
    columns_digest,
    fingerprint,
    open_cache,
    partial_path,
    stored_spec,
    text_digest,
)
from probekit.store.comparison import stale
from probekit.store.layout import FORMAT_VERSION, STORAGE_DTYPES


@dataclass(frozen=True)
class Request:
    """Everything that determines a value in the cache, as asked; None and "auto" mean "as is best"."""

    layers: str = "all"
    pooling: tuple[str, ...] | None = None
    max_length: int | None = None
    device: str = "auto"
    dtype: str = "auto"
    store_dtype: str = "float32"
    batch_tokens: int | None = None
    store_text: bool = True
    tokens: bool = False
    token_dtype: str = "float16"
    prompt: str | None = None
    chat_template: bool = False
    pool_over: str = "all"
    stride: int | None = None
    side: str = "encoder"
    site: str = "block"
    last_layer: str = "normed"
    random_seed: int | None = None
    quantize: str | None = None


@dataclass(frozen=True)
class Handling:
    """What changes how the work is done but no value of the cache."""

    threads: int | None = None
    allow_nonfinite: bool = False
    trust_remote_code: bool = False
    overwrite: bool = False


@dataclass(frozen=True)
class Job:
    """What is read by what: found, checked and hashed, and no torch loaded yet.

    ``known``: the part of the spec that needs no model.
    """

    source: ModelSource
    examples: Examples
    request: Request
    known: Json


RENDERED = ("rendered", "rendered_trim")
"""Fields of the spec that say what a chat template put around the texts."""

ONLY_WHERE_ASKED = ("stride", "words", "last_layer")
"""Fields of the spec that most caches lack: absent means none, not "as is best"."""


def check_request(request: Request) -> None:
    """Raise SpecError for what is wrong whatever the model."""
    for option, name, names in (
        ("--store-dtype", request.store_dtype, STORAGE_DTYPES),
        ("--token-dtype", request.token_dtype, STORAGE_DTYPES),
        ("--pool-over", request.pool_over, POOL_OVER),
        ("--side", request.side, SIDES),
        ("--site", request.site, SITES),
        ("--last-layer", request.last_layer, LAST_LAYERS),
    ):
        if name not in names:
            raise SpecError(f"{option} {name}", f"one of {', '.join(names)}")
    for name in request.pooling or ():
        if name not in POOLING_NAMES:
            raise SpecError(f"--pooling {name}", f"one of {', '.join(POOLING_NAMES)}")
    if request.pooling is not None and (not request.pooling or len(set(request.pooling)) < len(request.pooling)):
        raise SpecError("--pooling", "at least one, none twice", ",".join(request.pooling))
    if request.batch_tokens is not None and request.batch_tokens < 1:
        raise SpecError(f"--batch-tokens {request.batch_tokens}", "at least 1")
    if request.prompt is not None and request.prompt.count(PLACE) != 1:
        raise SpecError("--prompt", f"must have {PLACE} in it exactly once", repr(request.prompt))
    if request.prompt is not None and not is_clean(request.prompt):
        raise SpecError("--prompt", "must be UTF-8 text without NUL", ascii(request.prompt[:80]))
    if request.pool_over != "all" and "mean_skip_first" in (request.pooling or ()):
        message = f"leaves out the first position of the whole input; with --pool-over {request.pool_over} take mean"
        raise SpecError("--pooling mean_skip_first", message)
    _check_stride(request)
    if request.site != "block" and request.last_layer != "normed":
        message = f"is of the residual stream; --site {request.site} has no final norm"
        raise SpecError(f"--last-layer {request.last_layer}", message)
    parse_layers(request.layers, 1 << 20)  # its form alone; the model says how many there are


def _check_stride(request: Request) -> None:
    if request.stride is None:
        return
    if request.stride < 0:
        raise SpecError(f"--stride {request.stride}", "at least 0")
    if not request.tokens:
        raise SpecError(f"--stride {request.stride}", "is for the states of every token: --tokens")
    if request.pool_over != "all":
        raise SpecError(f"--stride {request.stride}", "goes with pooling over all tokens, not --pool-over")


def asked_layers(request: Request, n_layers: int) -> tuple[int, ...]:
    """Which layers of a model with ``n_layers`` blocks. Raises SpecError for one that is not there.

    With ``last_layer`` "both" there is one more: ``n_layers`` before and ``n_layers + 1`` after the final norm.
    """
    layers = parse_layers(request.layers, n_layers + (request.last_layer == "both"))
    if request.site == "block":
        return layers
    if request.layers.strip() == "all":
        return layers[1:]
    if 0 in layers:
        raise SpecError(
            f"--layers {request.layers}", f"the embeddings (0) have no {request.site}; layers 1..{n_layers}"
        )
    return layers


def known_fields(request: Request, source: ModelSource, examples: Examples) -> Json:
    """The part of the spec that is known before the model is loaded; fields left to the model are not in it."""
    fields: Json = {
        "format_version": FORMAT_VERSION,
        "model": source.name,
        "revision": source.revision,
        "tokenizer": source.tokenizer_hash,
        "texts": text_digest(examples.texts),
        "columns": columns_digest(examples.columns, examples.ids),
        "store_dtype": request.store_dtype,
        "store_text": request.store_text,
        "tokens": request.token_dtype if request.tokens else None,
        "prompt": request.prompt,
        "chat_template": request.chat_template,
        "pool_over": request.pool_over,
        "side": request.side,
        "site": request.site,
        "random_seed": request.random_seed,
        "quantize": request.quantize,
    }
    asked: Json = {
        "poolings": None if request.pooling is None else list(request.pooling),
        "max_length": request.max_length,
        "device": None if request.device == "auto" else request.device.split(":")[0],
        "dtype": None if request.dtype == "auto" else request.dtype,
        "batch_tokens": request.batch_tokens,
        "stride": request.stride,
        "last_layer": None if request.last_layer == "normed" else request.last_layer,
        "words": None if examples.words is None else examples.text_column,
    }
    return fields | {name: value for name, value in asked.items() if value is not None}


def found_cache(out: str | os.PathLike[str], known: Json, request: Request) -> Cache | StoredSpec | None:
    """The finished cache at ``out``, if it is what is asked for, or what an unfinished one was made from; else None.

    A field left to the model is taken as the cache has it, so that the same command finds its cache without loading
    torch. An unfinished cache made from something else is refused here too, before the model is loaded.

    Raises StaleCacheError naming the field that differs.
    """
    for path in (Path(out), partial_path(Path(out))):
        stored = stored_spec(path)
        if stored is None:
            continue
        layers = list(asked_layers(request, int(stored.spec["n_layers"])))
        kept = {name: value for name, value in stored.spec.items() if name not in ONLY_WHERE_ASKED}
        expected = {**kept, **known, "layers": layers}
        if fingerprint(expected) != stored.fingerprint:
            raise stale(stored.spec, expected, f"the cache {path.name}")
        return open_cache(path) if stored.sealed and path == Path(out) else stored
    return None
