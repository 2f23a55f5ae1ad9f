"""Texts read as a ``ReadSpec`` says: for a cache, for an estimate, and in memory for a prediction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import get_num_threads

from probekit.errors import InputError, SpecError
from probekit.extraction.plan import affordable_tokens, cut_windows, plan_batches
from probekit.extraction.request import Job, asked_layers
from probekit.extraction.run import ForwardPlan, run
from probekit.extraction.spans import character_spans
from probekit.layers import LayerChoice
from probekit.models.backbone import Backbone
from probekit.models.loading import load_backbone
from probekit.models.prompts import Template, read_template, text_range
from probekit.models.source import ModelSource
from probekit.models.tokens import Encoded, choose_max_length, data_words, encode, load_tokenizer
from probekit.models.vocabulary import check_tokens
from probekit.ragged import RaggedArray
from probekit.readspec import ReadSpec, RunOptions
from probekit.spec import CacheLayout, Examples, Json, Listener, TokenLayout, WindowStates
from probekit.store import TokenStates, WordStates, stored_values, windows_of, word_matrix

BATCH_TOKENS = {"cpu": 2048, "cuda": 32768, "mps": 8192}
"""Tokens read at a time; on the CPU what stays in the caches is fastest (measured: 1,000 to 2,000)."""


@dataclass(frozen=True)
class Reader:
    """A model ready to be read. ``spec``: nothing in it is open but ``batching``, which the texts may decide."""

    spec: ReadSpec
    backbone: Backbone
    tokenizer: Any
    template: Template


@dataclass(frozen=True)
class Prepared:
    """Texts ready to be read: ``spec`` is all that determines their states."""

    spec: ReadSpec
    backbone: Backbone
    encoded: Encoded
    forward: ForwardPlan


def open_reader(
    spec: ReadSpec,
    source: ModelSource,
    options: RunOptions,
    *,
    listener: Listener,
    layers: LayerChoice = "all",
    texts: Sequence[str] = (),
) -> Reader:
    """Load the model and its tokenizer to read as ``spec`` says; what is open in it becomes what is best here.

    ``layers``: where ``spec`` has none. ``texts``: that a chat template is tried on.

    Raises ModelError for a model that can't be loaded, SpecError for what it has not: a layer, a length, a template.
    """
    listener.stage(f"loading {source.name}", total=0, unit="")
    tokenizer = load_tokenizer(source, trust_remote_code=options.trust_remote_code)
    backbone = load_backbone(source, spec, options)
    template = read_template(spec, tokenizer, texts)
    chosen = asked_layers(spec, layers, backbone.stack.n_layers) if spec.layers is None else spec.layers
    whole = replace(
        spec,
        n_layers=backbone.stack.n_layers,
        layers=chosen,
        poolings=_default_poolings(backbone, spec) if spec.poolings is None else spec.poolings,
        max_length=choose_max_length(spec.max_length, tokenizer, backbone.max_positions),
        device=backbone.device.type,
        dtype=backbone.dtype,
        batch_tokens=spec.batch_tokens or BATCH_TOKENS.get(backbone.device.type, 4096),
        rendered=(template.before, template.after) if spec.chat_template else None,
        rendered_trim=template.trim or None,
    )
    return Reader(whole, backbone, tokenizer, template)


def _default_poolings(backbone: Backbone, spec: ReadSpec) -> tuple[str, ...]:
    if not backbone.causal:
        return ("mean",)
    return ("last", "mean_skip_first") if spec.pool_over == "all" else ("last", "mean")


def prepare(
    reader: Reader,
    texts: Sequence[str],
    *,
    ids: Sequence[str],
    called: str,
    listener: Listener,
    spans: Sequence[Sequence[int]] | None = None,
    out: Path | None = None,
) -> Prepared:
    """Tokenise ``texts``, check them, and plan which are read together.

    ``ids``: of the texts, which messages put after ``called``. ``spans``: (n, 2) first character of what is pooled over
    in each text, and the one after its last. ``out``: the cache to be, whose unfinished file keeps its windows.

    Raises InputError for a text without tokens, or without one to pool over.
    """
    spec, backbone = reader.spec, reader.backbone
    layers, poolings, batch_tokens = spec.layers or (), spec.poolings or (), spec.batch_tokens or 1
    listener.stage("tokenising", total=len(texts), unit="texts")
    encoded = encode(
        reader.tokenizer,
        texts,
        max_length=spec.max_length or 0,
        ids=ids,
        template=reader.template,
        stride=spec.stride,
        on_progress=listener.advance,
    )
    names = [f"{called} {name}" for name in ids]
    for text in check_tokens(encoded, reader.tokenizer, size=backbone.vocabulary, texts=texts, names=names):
        listener.note(text)
    over = _pooled_range(encoded, spec.pool_over, spans, names=names)
    pieces = [part for row, cuts in zip(encoded.ids, encoded.cuts, strict=True) for part in np.split(row, cuts)]
    backbone = backbone.checked_on(pieces, layer=layers[-1], batch_tokens=batch_tokens)
    spec = replace(spec, batching=backbone.way)
    windows: Sequence[tuple[int, int]] | None = None if out is None else windows_of(out, spec.json())
    if windows is None:
        n_parameters, device = backbone.n_parameters, backbone.device.type
        bytes_of_layers = 4 * backbone.stack.d_model * len(layers)
        windows = cut_windows(
            encoded.n_tokens,
            bytes_per_row=bytes_of_layers * len(poolings),
            bytes_per_token=0 if spec.tokens is None else bytes_of_layers,
            window_tokens=affordable_tokens(n_parameters, device=device, batch_tokens=batch_tokens),
        )
    plan = plan_batches(
        encoded.n_tokens,
        windows,
        batch_tokens=1 if backbone.single else batch_tokens,
        padded=backbone.padded,
        length_limit=backbone.length_limit,
    )
    forward = ForwardPlan(encoded.ids, plan, layers, poolings, over, spec.tokens is not None, encoded.cuts)
    return Prepared(spec, backbone, encoded, forward)


def _pooled_range(
    encoded: Encoded, pool_over: str, spans: Sequence[Sequence[int]] | None, *, names: Sequence[str]
) -> NDArray[np.int64] | None:
    """(n, 2) first token to pool over and the one after the last; None for all tokens."""
    if pool_over == "all":
        return None
    ranges = encoded.text_range
    if spans is not None:
        ranges = np.array([text_range(o.tolist(), (a, b)) for o, (a, b) in zip(encoded.offsets, spans, strict=True)])
    empty = np.flatnonzero(ranges[:, 0] == ranges[:, 1])
    if len(empty):
        message = f"with --pool-over {pool_over} every {pool_over} needs a token of its own"
        raise InputError(names[empty[0]], message, "none")
    return ranges


def prepare_job(job: Job, options: RunOptions, listener: Listener, *, out: Path | None = None) -> Prepared:
    """The texts of a cache to be, ready to be read; ``out``: see ``prepare``."""
    examples = job.examples
    reader = open_reader(job.spec, job.source, options, listener=listener, layers=job.layers, texts=examples.texts)
    spans = character_spans(examples).tolist() if job.spec.pool_over == "span" else None
    ids, called = [str(i) for i in examples.ids], f"{examples.source}, example"
    prepared = prepare(reader, examples.texts, ids=ids, called=called, listener=listener, spans=spans, out=out)
    backbone, device = prepared.backbone, prepared.backbone.device
    where = f"{device}, {get_num_threads()} threads" if device.type == "cpu" else str(device)
    listener.note(f"{where}; {backbone.dtype} ({backbone.dtype_reason}); batches {backbone.batching}")
    _tell_cut(prepared, listener, "and cut")
    return prepared


def _tell_cut(prepared: Prepared, listener: Listener, what: str) -> None:
    n = int(prepared.encoded.truncated.sum())
    if n:
        texts_are = "1 text is" if n == 1 else f"{n:,} texts are"
        listener.note(f"{texts_are} longer than {prepared.spec.max_length} tokens {what}")


def cache_layout(prepared: Prepared, examples: Examples) -> CacheLayout:
    """How large the cache of ``prepared`` is."""
    spec, encoded, stack = prepared.spec, prepared.encoded, prepared.backbone.stack
    tokens = None
    if spec.tokens is not None:  # of the data's own words, else by the tokenizer's idea of words
        word = encoded.word if examples.words is None else data_words(encoded, examples.words)
        joined = np.concatenate
        tokens = TokenLayout(joined(encoded.ids), joined(encoded.special), joined(word), spec.tokens)
    return CacheLayout(
        layers=prepared.forward.layers,
        final_norm=tuple(layer for layer in prepared.forward.layers if layer == stack.normed_layer),
        poolings=prepared.forward.poolings,
        d_model=stack.d_model,
        n_tokens=encoded.n_tokens,
        truncated=encoded.truncated,
        windows=prepared.forward.plan.windows,
        pooled_dtype=spec.store_dtype,
        tokens=tokens,
    )


def read_states(
    texts: Sequence[str],
    *,
    card: Json,
    source: ModelSource,
    options: RunOptions,
    listener: Listener,
    spans: Sequence[tuple[int, int]] | None = None,
) -> NDArray[np.float32]:
    """(n, d_model) float32 of the probe's layer and pooling, rounded as the cache it was fitted on rounded them."""
    spec = replace(_spec_of(card), poolings=(str(card["pooling"]),), tokens=None)
    states, _ = _read(spec, texts, source, options, listener=listener, spans=spans)
    return stored_values(states, spec.store_dtype)


def read_tokens(
    texts: Sequence[str], *, card: Json, source: ModelSource, options: RunOptions, listener: Listener
) -> RaggedArray:
    """The states of all tokens of ``texts`` at the probe's layer, float32, rounded alike."""
    states, encoded = _read(replace(_spec_of(card), poolings=()), texts, source, options, listener=listener)
    return RaggedArray(stored_values(states, card["cache"]["tokens"]), _offsets(encoded))


def read_words(
    words: Sequence[Sequence[str]], *, card: Json, source: ModelSource, options: RunOptions, listener: Listener
) -> tuple[WordStates, NDArray[np.bool_]]:
    """The states of all ``words`` at the probe's layer, rounded alike; and (n_words,) which have no sub-token."""
    spec = replace(_spec_of(card), poolings=())
    states, encoded = _read(spec, [" ".join(sentence) for sentence in words], source, options, listener=listener)
    tokens = TokenStates(
        stored=stored_values(states, card["cache"]["tokens"]),
        offsets=_offsets(encoded),
        token_ids=np.concatenate(encoded.ids),
        token_special=np.concatenate(encoded.special),
        token_word=np.concatenate(data_words(encoded, words)),
    )
    matrix = word_matrix(tokens, [len(sentence) for sentence in words], str(card["pooling"]))
    return WordStates(tokens.stored, matrix), np.diff(matrix.indptr) == 0


def _offsets(encoded: Encoded) -> NDArray[np.int64]:
    """(n + 1,) where each text's tokens begin, and where the last one's end."""
    return np.concatenate([[0], np.cumsum(encoded.n_tokens, dtype=np.int64)])


def _spec_of(card: Json) -> ReadSpec:
    return replace(ReadSpec.from_json(card["cache"]), layers=(int(card["layer"]),))


class _Collected:
    """A ``FeatureSink`` that keeps one layer in memory: a row for every text, or for every token."""

    def __init__(self, starts: Sequence[int], n: int, d_model: int) -> None:
        self.starts = starts  # of the windows
        self.states = np.empty((n, d_model), dtype=np.float32)

    def pending(self) -> Sequence[int]:
        """All windows."""
        return range(len(self.starts))

    def write_window(self, states: WindowStates) -> None:
        """Keep the rows."""
        (found,) = [*states.pooled.values(), *states.tokens.values()]
        start = self.starts[states.index]
        self.states[start : start + len(found)] = found


def _read(
    spec: ReadSpec,
    texts: Sequence[str],
    source: ModelSource,
    options: RunOptions,
    *,
    listener: Listener,
    spans: Sequence[tuple[int, int]] | None = None,
) -> tuple[NDArray[np.float32], Encoded]:
    """The one layer of ``spec``, pooled, or without a pooling the states of all tokens; and what the model read."""
    reader = open_reader(spec, source, options, listener=listener)
    layer, stack = (spec.layers or ())[0], reader.backbone.stack
    if not stack.first <= layer <= stack.deepest:
        message = f"the model's {spec.site} states are of layers {stack.first}..{stack.deepest}"
        raise SpecError("card of the probe, field 'layer'", message, str(layer))
    ids = [str(i + 1) for i in range(len(texts))]
    prepared = prepare(reader, texts, ids=ids, called="text", listener=listener, spans=spans)
    backbone = prepared.backbone
    _tell_cut(prepared, listener, "and read only so far")
    if backbone.single:
        listener.note(f"texts are read {backbone.batching}")
    first_rows = [start for start, _ in prepared.forward.plan.windows]
    ends = np.concatenate([[0], np.cumsum(prepared.encoded.n_tokens)])
    starts, n_rows = (first_rows, len(texts)) if spec.poolings else (ends[first_rows].tolist(), int(ends[-1]))
    sink = _Collected(starts, n_rows, stack.d_model)
    listener.stage("reading", total=int(ends[-1]), unit="tokens")
    run(backbone, prepared.forward, sink, on_progress=lambda progress: listener.advance(progress.tokens))
    return sink.states, prepared.encoded
