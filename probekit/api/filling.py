"""The work behind ``extract``, for which torch is loaded."""

from __future__ import annotations

import platform
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
from torch import get_num_threads

from probekit.api.request import PLACE, Request, asked_layers
from probekit.errors import InputError
from probekit.extraction import Reading, make_plan, run
from probekit.models.backbone import Backbone
from probekit.models.loading import load_backbone
from probekit.models.prompts import make_template
from probekit.models.source import ModelSource
from probekit.models.tokens import Encoded, choose_max_length, encode, load_tokenizer
from probekit.spec import CacheLayout, Examples, Json, Listener, TokenLayout
from probekit.store import open_writer, partial_path

BATCH_TOKENS = {"cpu": 4096, "cuda": 32768, "mps": 8192}
"""Tokens read at a time; on the CPU what stays in the caches is fastest (measured: 2,000 to 4,000)."""


@dataclass(frozen=True)
class Handling:
    """What changes how the work is done but no value of the cache."""

    threads: int | None
    allow_nonfinite: bool
    trust_remote_code: bool
    overwrite: bool


def fill(
    source: ModelSource,
    examples: Examples,
    out: Path,
    *,
    known: Json,
    request: Request,
    handling: Handling,
    listener: Listener,
) -> None:
    """Load the model, then write the cache ``out``; ``known``: the part of its spec that needs no model."""
    started = time.time()
    listener.stage(f"loading {source.name}", total=0, unit="")
    backbone = load_backbone(
        source,
        device=request.device or "auto",
        dtype=request.dtype or "auto",
        side=request.side,
        site=request.site,
        random_seed=request.random_seed,
        threads=handling.threads,
        trust_remote_code=handling.trust_remote_code,
    )
    tokenizer = load_tokenizer(source, trust_remote_code=handling.trust_remote_code)
    layers = asked_layers(request, backbone.stack.n_layers)
    poolings = request.pooling or _default_poolings(causal=backbone.causal, pool_over=request.pool_over)
    max_length = choose_max_length(request.max_length, tokenizer, backbone.max_positions)
    batch_tokens = request.batch_tokens or BATCH_TOKENS.get(backbone.device.type, 4096)
    before, after = ("", "") if request.prompt is None else request.prompt.split(PLACE)
    listener.stage("tokenising", total=len(examples), unit="texts")
    encoded = encode(
        tokenizer,
        examples.texts,
        max_length=max_length,
        ids=[str(i) for i in examples.ids],
        template=make_template(before, after, chat=request.chat_template, tokenizer=tokenizer),
        on_progress=listener.advance,
    )
    _check_ranges(encoded, examples, request)
    d_model = backbone.stack.d_model
    plan = make_plan(
        encoded.n_tokens,
        batch_tokens=batch_tokens,
        bytes_per_row=4 * d_model * len(layers) * len(poolings),
        bytes_per_token=4 * d_model * len(layers) if request.tokens else 0,
        padded=backbone.position_start is None,
    )
    spec = known | {
        "n_layers": backbone.stack.n_layers,
        "layers": list(layers),
        "poolings": list(poolings),
        "max_length": max_length,
        "device": backbone.device.type,
        "dtype": backbone.dtype,
        "batching": "padded" if backbone.position_start is None else "packed",
        "batch_tokens": batch_tokens,
    }
    layout = CacheLayout(
        layers=layers,
        final_norm=(backbone.stack.n_layers,)
        if backbone.stack.final_norm and backbone.stack.n_layers in layers
        else (),
        poolings=poolings,
        d_model=d_model,
        n_tokens=encoded.n_tokens,
        truncated=encoded.truncated,
        windows=plan.windows,
        pooled_dtype=request.store_dtype,
        tokens=_token_layout(encoded, request.token_dtype) if request.tokens else None,
    )
    _tell(listener, backbone, n_truncated=int(encoded.truncated.sum()), max_length=max_length)
    with open_writer(
        out,
        spec=spec,
        provenance=_provenance(backbone, examples, started),
        layout=layout,
        examples=examples,
        overwrite=handling.overwrite,
        store_text=request.store_text,
        allow_nonfinite=handling.allow_nonfinite,
    ) as writer:
        left = len(writer.pending())
        if left < len(plan.windows):
            listener.note(f"going on with {partial_path(out).name}: {left} of {len(plan.windows)} windows to do")
        listener.stage("extracting", total=int(encoded.n_tokens.sum()), unit="tokens")
        over = encoded.text_range if request.pool_over == "text" else None
        reading = Reading(encoded.ids, plan, layers, poolings, over, request.tokens)
        run(backbone, reading, writer, on_progress=lambda progress: listener.advance(progress.tokens))
        writer.seal()


def _default_poolings(*, causal: bool, pool_over: str) -> tuple[str, ...]:
    if not causal:
        return ("mean",)
    return ("last", "mean_skip_first") if pool_over == "all" else ("last", "mean")


def _check_ranges(encoded: Encoded, examples: Examples, request: Request) -> None:
    empty = np.flatnonzero(encoded.text_range[:, 0] == encoded.text_range[:, 1])
    if request.pool_over == "text" and len(empty):
        row = int(empty[0])
        where = f"{examples.source}, example {examples.ids[row]}"
        raise InputError(where, "with --pool-over text a text needs a token of its own", repr(examples.texts[row][:40]))


def _token_layout(encoded: Encoded, dtype: str) -> TokenLayout:
    joined = np.concatenate
    return TokenLayout(joined(encoded.ids), joined(encoded.special), joined(encoded.word), dtype)


def _tell(listener: Listener, backbone: Backbone, *, n_truncated: int, max_length: int) -> None:
    where = f"{backbone.device}, {get_num_threads()} threads" if backbone.device.type == "cpu" else str(backbone.device)
    listener.note(f"{where}; {backbone.dtype} ({backbone.dtype_reason}); batches {backbone.batching}")
    if n_truncated:
        listener.note(f"{n_truncated} texts are longer than {max_length} tokens and were cut")


def _provenance(backbone: Backbone, examples: Examples, started: float) -> Json:
    """Good to know, but without influence on the values (or not promised to have none)."""
    return {
        "dataset": examples.source,
        "text_column": examples.text_column,
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(started)),
        "versions": {
            name: version(name) for name in ("probekit-layers", "torch", "transformers", "tokenizers", "h5py", "numpy")
        },
        "python": platform.python_version(),
        "machine": platform.machine(),
        "dtype_reason": backbone.dtype_reason,
        "batching": backbone.batching,
    }
