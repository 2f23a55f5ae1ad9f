"""The blocks above a layer, run from states of that layer that were changed or left as they are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from probekit.errors import CacheError, ModelError, SpecError
from probekit.explanation.erase import Change, Floats
from probekit.extraction.reader import Reader, open_reader
from probekit.heads.loop import Rows
from probekit.heads.modules import dense, tokens
from probekit.models.backbone import Backbone
from probekit.models.language_head import LanguageHead, has_language_head, load_language_head, one_token_words
from probekit.models.live import Form, block_form, for_training, model_type
from probekit.models.source import ModelSource
from probekit.pooling import POOLINGS
from probekit.readspec import ReadSpec, RunOptions
from probekit.spec import Listener
from probekit.store import Cache, TokenStates
from probekit.training.backbone import CLOSE, TRIED, check_cached, tokenise
from probekit.training.texts import Place, TextReader, Tokenised

OF_TOKENS = "attention"
"""The pooling by which ``TextReader`` gives the states of all tokens."""


@dataclass(frozen=True)
class Above:
    """What comes of some texts above the layer. ``pooled[i]``: (n_texts, d_model) of the i-th layer asked for.

    ``losses``, ``answers``: (n_texts,) of the language-model head, where asked for.
    """

    pooled: tuple[NDArray[np.float32], ...]
    losses: NDArray[np.float64] | None = None
    answers: NDArray[np.float64] | None = None


@dataclass(frozen=True)
class Upper:
    """A model with the texts of a cache, to be run from the states of ``layer`` on, inside ``open_upper`` only.

    ``cached``: token states of that layer; None where they are read by the blocks below. ``last``: the number of the
    model's own last layer, behind its final norm. ``head``: its language-model head; ``words``: two of its tokens.
    ``difference``: see ``check_start``.
    """

    live: TextReader
    layer: int
    pooling: str
    form: Form
    cached: TokenStates | None
    last: int
    head: LanguageHead | None = None
    words: tuple[int, int] | None = None
    difference: float = 0.0

    @property
    def begins(self) -> str:
        """Where the states of the layer are from."""
        return "live" if self.cached is None else "cached"

    def batches(self, units: Rows) -> list[Rows]:
        """``units`` by length, so many at a time as are read together."""
        return self.live.batches(units)

    @torch.no_grad()
    def starts(self, units: Rows) -> NDArray[np.float32]:
        """(total_tokens, d_model) states of the layer for the texts ``units``: cached, or read by the blocks below."""
        if self.cached is not None:
            return np.concatenate([np.asarray(self.cached[int(i)], dtype=np.float32) for i in units])
        (read,) = self.live.read(units, [Place((self.layer,), OF_TOKENS)])
        return tokens(read).states.cpu().numpy()

    @torch.no_grad()
    def run(self, units: Rows, states: Floats, layers: Sequence[int], *, speak: bool = False) -> Above:
        """What the blocks above make of ``states`` (total_tokens, d_model) of the texts ``units``.

        ``speak``: ask the language-model head too.
        """
        texts = self.live.texts
        ids = [texts.ids[int(i)] for i in units]
        some = Tokenised(ids, None if texts.over is None else texts.over[units])
        given = _token_states(np.ascontiguousarray(states, dtype=np.float32), ids)
        reader = replace(self.live, texts=some, start=(self.layer, given), form=self.form)
        places = [Place((layer,), self.pooling) for layer in layers]
        speak = speak and self.head is not None
        last = [Place((self.last,), OF_TOKENS)] if speak else []
        reads = reader.read(np.arange(len(units)), [*places, *last])
        pooled = tuple(dense(read).cpu().numpy() for read in reads[: len(places)])
        if not speak or self.head is None:
            return Above(pooled)
        whole = tokens(reads[-1])
        answers = None
        if self.words is not None:
            answers = self.head.answers(POOLINGS["last"](whole.states, whole.lengths), self.words)
        return Above(pooled, self.head.losses(whole.states, ids), answers)

    def changed(
        self, units: Rows, states: NDArray[np.float32], change: Change | None, layers: Sequence[int], *, speak: bool
    ) -> Above:
        """``run`` after every token's state was changed."""
        return self.run(units, states if change is None else change(states), layers, speak=speak)


@dataclass(frozen=True)
class UpperRequest:
    """What is to be run: from ``layer`` on, the states of ``layers`` pooled; ``answer``: two words, or None."""

    layer: int
    layers: tuple[int, ...]
    pooling: str
    answer: tuple[str, str] | None = None


@contextmanager
def open_upper(
    cache: Cache, request: UpperRequest, source: ModelSource, run: RunOptions, *, rows: Rows, listener: Listener
) -> Iterator[Upper]:
    """Load the model, and see on some of ``rows`` that it reads as the cache was read and may start at its states.

    Raises SpecError where it can't start there or has not what is asked for, ModelError where its states are not those
    of the cache or a pass that starts at them is not the same as one from the tokens on.
    """
    spec = replace(ReadSpec.from_json(cache.spec), layers=(request.layer, *request.layers), tokens=None)
    reader = open_reader(spec, source, run, listener=listener)
    _check_stack(reader.backbone, request.layer)
    words = None
    if request.answer is not None:
        words = one_token_words(reader.tokenizer, request.answer, f"--answer {','.join(request.answer)!r}")
    head = None
    if request.answer is not None or (has_language_head(source, reader.backbone) and spec.random_seed is None):
        if spec.random_seed is not None:
            raise SpecError("--answer", "needs the model's own weights; the cache was made with --random-seed")
        head = load_language_head(source, reader.backbone, trust_remote_code=run.trust_remote_code)
    texts = tokenise(reader, cache, listener)
    cached = cache.tokens(request.layer) if cache.spec.get("tokens") is not None else None
    _check_tokens(cache, texts, cached)
    with for_training(_with_last(reader)) as backbone:
        live = TextReader(backbone, texts)
        form, last = block_form(backbone), backbone.stack.deepest
        upper = Upper(live, request.layer, request.pooling, form, cached, last, head, words)
        some = rows[:TRIED]
        check_cached(cache, live, [Place((k,), request.pooling) for k in (request.layer, *request.layers)], some)
        difference = check_start(upper, some, request.layers)
        listener.note(
            f"blocks above layer {request.layer}, started at {upper.begins} token states: their states are within "
            f"{difference:.1g} of those of a pass from the tokens on"
        )
        yield replace(upper, difference=difference)


def check_start(upper: Upper, rows: Rows, layers: Sequence[int]) -> float:
    """How far the pooled states of ``layers`` are from a pass from the tokens on, relative; the worst text.

    Raises ModelError beyond what rounding explains.
    """
    backbone = upper.live.backbone
    try:
        started = upper.run(rows, upper.starts(rows), layers).pooled
    except (RuntimeError, ValueError, TypeError, IndexError, KeyError, AttributeError) as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        message = f"blocks above layer {upper.layer} must run from its states"
        raise ModelError(f"a {model_type(backbone)}", message, f"{type(error).__name__}: {error}"[:160]) from error
    with torch.no_grad():
        whole = upper.live.read(rows, [Place((layer,), upper.pooling) for layer in layers])
    worst = 0.0
    for found, read in zip(started, whole, strict=True):
        live = dense(read).cpu().numpy()
        gap = np.linalg.norm(found - live, axis=1) / np.maximum(np.linalg.norm(live, axis=1), 1e-12)
        worst = max(worst, float(gap.max()) if np.isfinite(gap).all() else np.inf)
    dtypes = [backbone.dtype] if upper.cached is None else [backbone.dtype, _dtype_name(upper.cached)]
    most = max(CLOSE[name] for name in dtypes)
    if worst > most:
        message = f"a pass that starts at layer {upper.layer} must give the states of a whole one, within {most:g}"
        raise ModelError(f"a {model_type(backbone)}", message, f"a relative difference of {worst:.2g}")
    return worst


def _dtype_name(states: TokenStates) -> str:
    """(bfloat16 is stored as uint16)"""
    return "bfloat16" if states.stored.dtype == np.uint16 else str(states.stored.dtype)


def _check_stack(backbone: Backbone, layer: int) -> None:
    """Raise SpecError where no pass can start at ``layer``."""
    stack, source = backbone.stack, f"a {model_type(backbone)}"
    if not stack.blocks:
        raise SpecError(source, "needs blocks that can be found, to run those above a layer alone")
    if len(set(stack.blocks)) < len(stack.blocks):
        raise SpecError(source, "needs blocks of their own for every layer; this model runs one several times")
    if layer + stack.after >= len(stack.blocks):
        raise SpecError(f"layer {layer}", "must have a block above it, which could use what is read there")


def _with_last(reader: Reader) -> Backbone:
    """The backbone with its own last states among the layers, whatever of the last layer the cache has.

    (Before and after the final norm are then two layers; the numbers of all others stay.)
    """
    backbone = reader.backbone
    if backbone.stack.last_layer == "raw" and backbone.stack.final_norm:
        return replace(backbone, stack=replace(backbone.stack, last_layer="both"))
    return backbone


def _check_tokens(cache: Cache, texts: Tokenised, cached: TokenStates | None) -> None:
    """Raise CacheError where the texts no longer have the tokens that the cache was made from."""
    lengths = np.array([len(ids) for ids in texts.ids])
    same = np.array_equal(lengths, cache.n_tokens)
    if cached is not None and same:
        same = np.array_equal(np.concatenate(texts.ids), cached.token_ids)
    if not same:
        raise CacheError(str(cache.path), "its texts must have the tokens that they had when it was made", "others")


def _token_states(states: NDArray[np.float32], ids: Sequence[NDArray[np.int32]]) -> TokenStates:
    """Of some texts, in the form that a cache gives them in."""
    n = len(states)
    return TokenStates(
        stored=states,
        offsets=np.concatenate([[0], np.cumsum([len(one) for one in ids])]).astype(np.int64),
        token_ids=np.concatenate(ids),
        token_special=np.zeros(n, dtype=np.bool_),
        token_word=np.full(n, -1, dtype=np.int32),
    )
