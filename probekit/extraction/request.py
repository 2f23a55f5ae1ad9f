"""What a user asks of extraction, and whether a cache that is there already answers it."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

from probekit.errors import ModelError, SpecError
from probekit.inputs.table import is_clean
from probekit.layers import LayerChoice, choose_layers, layers_text
from probekit.models.source import ModelSource, locate
from probekit.readspec import FIELDS, ReadSpec
from probekit.spec import PLACE, POOLING_NAMES, Examples, Json
from probekit.store import (
    Cache,
    CacheSummary,
    columns_digest,
    fingerprint,
    open_cache,
    partial_path,
    stored_spec,
    text_digest,
)
from probekit.store.existing import stale
from probekit.store.layout import FORMAT_VERSION


@dataclass(frozen=True)
class Job:
    """What is read by what: found, checked and hashed, and no torch loaded yet.

    ``spec``: as far as it is known without the model; ``layers``: which of the model's, whatever its depth.
    """

    source: ModelSource
    examples: Examples
    spec: ReadSpec
    layers: LayerChoice


def check_request(spec: ReadSpec) -> None:
    """Raise SpecError for what is wrong whatever the model."""
    for name in ("store_dtype", "pool_over", "side", "site", "last_layer"):
        check_choice(name, getattr(spec, name))
    for name in spec.poolings or ():
        if name not in POOLING_NAMES:
            raise SpecError(f"--pooling {name}", f"one of {', '.join(POOLING_NAMES)}")
    if spec.poolings is not None and (not spec.poolings or len(set(spec.poolings)) < len(spec.poolings)):
        raise SpecError("--pooling", "at least one, none twice", ",".join(spec.poolings))
    if spec.batch_tokens is not None and spec.batch_tokens < 1:
        raise SpecError(f"--batch-tokens {spec.batch_tokens}", "at least 1")
    if spec.prompt is not None and spec.prompt.count(PLACE) != 1:
        raise SpecError("--prompt", f"must have {PLACE} in it exactly once", repr(spec.prompt))
    if spec.prompt is not None and not is_clean(spec.prompt):
        raise SpecError("--prompt", "must be UTF-8 text without NUL", ascii(spec.prompt[:80]))
    if spec.pool_over != "all" and "mean_skip_first" in (spec.poolings or ()):
        message = f"leaves out the first position of the whole input; with --pool-over {spec.pool_over} take mean"
        raise SpecError("--pooling mean_skip_first", message)
    _check_stride(spec)
    if spec.site != "block" and spec.last_layer != "normed":
        message = f"is of the residual stream; --site {spec.site} has no final norm"
        raise SpecError(f"--last-layer {spec.last_layer}", message)


def check_choice(name: str, value: str, *, option: str = "") -> None:
    """Raise SpecError for a word that a field of ``ReadSpec`` can't be; ``option``: if it is not called so."""
    allowed = FIELDS[name].allowed
    if not allowed.fits(value):
        raise SpecError(f"{option or '--' + name.replace('_', '-')} {value}", allowed.allowed)


def _check_stride(spec: ReadSpec) -> None:
    if spec.stride is None:
        return
    if spec.stride < 0:
        raise SpecError(f"--stride {spec.stride}", "at least 0")
    if spec.tokens is None:
        raise SpecError(f"--stride {spec.stride}", "is for the states of every token: --tokens")
    if spec.pool_over != "all":
        raise SpecError(f"--stride {spec.stride}", "goes with pooling over all tokens, not --pool-over")


def asked_layers(spec: ReadSpec, choice: LayerChoice, n_layers: int) -> tuple[int, ...]:
    """Which layers of a model with ``n_layers`` blocks. Raises SpecError for one that is not there.

    With ``last_layer`` "both" there is one more: ``n_layers`` before and ``n_layers + 1`` after the final norm.
    """
    layers = choose_layers(choice, n_layers + (spec.last_layer == "both"))
    if spec.site == "block":
        return layers
    if choice == "all":
        return layers[1:]
    if 0 in layers:
        message = f"the embeddings (0) have no {spec.site}; layers 1..{n_layers}"
        raise SpecError(f"--layers {layers_text(choice)}", message)
    return layers


def known_spec(asked: ReadSpec, source: ModelSource, examples: Examples) -> ReadSpec:
    """What is asked, with all that is known before the model is loaded."""
    return replace(
        asked,
        format_version=FORMAT_VERSION,
        model=source.name,
        revision=source.revision,
        tokenizer=source.tokenizer_hash,
        texts=text_digest(examples.texts),
        columns=columns_digest(examples.columns, examples.ids),
        words=None if examples.words is None else examples.text_column,
    )


def found_cache(out: str | os.PathLike[str], job: Job) -> Cache | CacheSummary | None:
    """The finished cache at ``out``, if it is what is asked for, or what an unfinished one was made from; else None.

    A field left to the model is taken as the cache has it, so that the same command finds its cache without loading
    torch. An unfinished cache made from something else is refused here too, before the model is loaded.

    Raises StaleCacheError naming the field that differs.
    """
    for path in (Path(out), partial_path(Path(out))):
        stored = stored_spec(path)
        if stored is None:
            continue
        layers = asked_layers(job.spec, job.layers, int(stored.spec["n_layers"]))
        left = {n: v for n, v in stored.spec.items() if n not in FIELDS or FIELDS[n].written != "where used"}
        expected = {**left, **job.spec.json(), "layers": list(layers)}
        if fingerprint(expected) != stored.fingerprint:
            raise stale(stored.spec, expected, f"the cache {path.name}")
        return open_cache(path) if stored.sealed and path == Path(out) else stored
    return None


def same_model(cache: Json, model: str | os.PathLike[str] | None) -> ModelSource:
    """The model that made the cache whose spec is ``cache``, at ``model`` or on the hub. Raises ModelError if not."""
    if model is not None and not isinstance(model, str | os.PathLike):
        message = "must be a hub id or a path (probekit.attach takes a model in hand, with heads that train made)"
        raise ModelError("model", message, f"a {type(model).__name__}")
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
