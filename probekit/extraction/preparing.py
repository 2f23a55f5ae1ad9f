"""Everything of an extraction but the run itself: the model loaded, the texts tokenised, the work planned."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import get_num_threads

from probekit.errors import InputError
from probekit.extraction.plan import affordable_tokens, make_plan, plan_batches
from probekit.extraction.request import Handling, Job, asked_layers
from probekit.extraction.run import Reading
from probekit.extraction.spans import character_spans
from probekit.models.backbone import Backbone
from probekit.models.loading import Loading, load_backbone
from probekit.models.prompts import kept_template, make_template, template_fields, text_range
from probekit.models.tokens import Encoded, choose_max_length, data_words, encode, load_tokenizer
from probekit.models.vocabulary import check_tokens
from probekit.spec import CacheLayout, Examples, Json, Listener, TokenLayout
from probekit.store import windows_of

BATCH_TOKENS = {"cpu": 2048, "cuda": 32768, "mps": 8192}
"""Tokens read at a time; on the CPU what stays in the caches is fastest (measured: 1,000 to 2,000)."""


@dataclass(frozen=True)
class Prepared:
    """A run that is ready to go. ``spec``: everything that determines a value."""

    backbone: Backbone
    reading: Reading
    layout: CacheLayout
    spec: Json


def prepare_extraction(job: Job, handling: Handling, listener: Listener, *, out: Path | None = None) -> Prepared:
    """Load the model, tokenise and plan. ``out``: the cache to be, whose unfinished file keeps its windows."""
    source, examples, request = job.source, job.examples, job.request
    listener.stage(f"loading {source.name}", total=0, unit="")
    tokenizer = load_tokenizer(source, trust_remote_code=handling.trust_remote_code)
    backbone = load_backbone(
        source,
        Loading(
            device=request.device,
            dtype=request.dtype,
            side=request.side,
            site=request.site,
            last_layer=request.last_layer,
            random_seed=request.random_seed,
            quantize=request.quantize,
            threads=handling.threads,
            trust_remote_code=handling.trust_remote_code,
        ),
    )
    if "rendered" in job.known:
        template = kept_template(job.known, tokenizer)
    else:
        template = make_template(request.prompt, chat=request.chat_template, tokenizer=tokenizer, texts=examples.texts)
    n_layers, d_model = backbone.stack.n_layers, backbone.stack.d_model
    layers = asked_layers(request, n_layers)
    poolings = request.pooling or _default_poolings(causal=backbone.causal, pool_over=request.pool_over)
    max_length = choose_max_length(request.max_length, tokenizer, backbone.max_positions)
    batch_tokens = request.batch_tokens or BATCH_TOKENS.get(backbone.device.type, 4096)
    listener.stage("tokenising", total=len(examples), unit="texts")
    encoded = encode(
        tokenizer,
        examples.texts,
        max_length=max_length,
        ids=[str(i) for i in examples.ids],
        template=template,
        stride=request.stride,
        on_progress=listener.advance,
    )
    spans = character_spans(examples).tolist() if request.pool_over == "span" else None
    names = [f"{examples.source}, example {name}" for name in examples.ids]
    for text in check_tokens(encoded, tokenizer, size=backbone.vocabulary, texts=examples.texts, names=names):
        listener.note(text)
    over = pooled_range(encoded, request.pool_over, spans, names=names)
    backbone = backbone.checked_on(pieces(encoded), layer=layers[-1], batch_tokens=batch_tokens)
    _tell(listener, backbone, n_truncated=int(encoded.truncated.sum()), max_length=max_length)
    spec = job.known | {
        "n_layers": n_layers,
        "layers": list(layers),
        "poolings": list(poolings),
        "max_length": max_length,
        "device": backbone.device.type,
        "dtype": backbone.dtype,
        "batching": backbone.way,
        "batch_tokens": batch_tokens,
    }
    if request.chat_template:
        spec |= template_fields(template)
    planned_tokens = 1 if backbone.single else batch_tokens
    given = None if out is None else windows_of(out, spec)
    if given is None:
        plan = make_plan(
            encoded.n_tokens,
            batch_tokens=planned_tokens,
            bytes_per_row=4 * d_model * len(layers) * len(poolings),
            bytes_per_token=4 * d_model * len(layers) if request.tokens else 0,
            padded=backbone.padded,
            length_limit=backbone.length_limit,
            window_tokens=affordable_tokens(
                backbone.n_parameters, device=backbone.device.type, batch_tokens=batch_tokens
            ),
        )
    else:
        plan = plan_batches(
            encoded.n_tokens,
            given,
            batch_tokens=planned_tokens,
            padded=backbone.padded,
            length_limit=backbone.length_limit,
        )
    layout = CacheLayout(
        layers=layers,
        final_norm=tuple(layer for layer in layers if layer == backbone.stack.normed_layer),
        poolings=poolings,
        d_model=d_model,
        n_tokens=encoded.n_tokens,
        truncated=encoded.truncated,
        windows=plan.windows,
        pooled_dtype=request.store_dtype,
        tokens=_token_layout(encoded, examples, request.token_dtype) if request.tokens else None,
    )
    reading = Reading(encoded.ids, plan, layers, poolings, over, request.tokens, encoded.cuts)
    return Prepared(backbone, reading, layout, spec)


def _default_poolings(*, causal: bool, pool_over: str) -> tuple[str, ...]:
    if not causal:
        return ("mean",)
    return ("last", "mean_skip_first") if pool_over == "all" else ("last", "mean")


def pooled_range(
    encoded: Encoded, pool_over: str, spans: Iterable[tuple[int, int]] | None, *, names: Sequence[str]
) -> NDArray[np.int64] | None:
    """(n, 2) first token to pool over and the one after the last; None for all tokens.

    ``spans``: of characters, for ``pool_over`` "span". ``names``: of the rows, for messages.

    Raises InputError for a row without a token there.
    """
    if pool_over == "all":
        return None
    ranges = encoded.text_range
    if spans is not None:
        ranges = np.array([text_range(o.tolist(), s) for o, s in zip(encoded.offsets, spans, strict=True)])
    empty = np.flatnonzero(ranges[:, 0] == ranges[:, 1])
    if len(empty):
        message = f"with --pool-over {pool_over} every {pool_over} needs a token of its own"
        raise InputError(names[empty[0]], message, "none")
    return ranges


def pieces(encoded: Encoded) -> list[NDArray[np.int32]]:
    """The token ids that the model reads at once: whole texts, or the pieces that long ones are cut into."""
    return [part for ids, cuts in zip(encoded.ids, encoded.cuts, strict=True) for part in np.split(ids, cuts)]


def _token_layout(encoded: Encoded, examples: Examples, dtype: str) -> TokenLayout:
    """Which word each token is from: of the data's own words, else by the tokenizer's idea of words."""
    word = encoded.word if examples.words is None else data_words(encoded, examples.words)
    joined = np.concatenate
    return TokenLayout(joined(encoded.ids), joined(encoded.special), joined(word), dtype)


def _tell(listener: Listener, backbone: Backbone, *, n_truncated: int, max_length: int) -> None:
    where = f"{backbone.device}, {get_num_threads()} threads" if backbone.device.type == "cpu" else str(backbone.device)
    listener.note(f"{where}; {backbone.dtype} ({backbone.dtype_reason}); batches {backbone.batching}")
    if n_truncated:
        listener.note(f"{texts_are(n_truncated)} longer than {max_length} tokens and cut")


def texts_are(n: int) -> str:
    """A number of texts, as the beginning of a sentence."""
    return "1 text is" if n == 1 else f"{n:,} texts are"
