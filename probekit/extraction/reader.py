"""The states of a few texts in memory, as a cache would hold them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from probekit.errors import SpecError
from probekit.extraction.plan import make_plan
from probekit.extraction.preparing import pieces, pooled_range, texts_are
from probekit.extraction.run import Reading, run
from probekit.models.loading import Loading, load_backbone
from probekit.models.prompts import kept_template
from probekit.models.source import ModelSource
from probekit.models.tokens import Encoded, choose_max_length, data_words, encode, load_tokenizer
from probekit.models.vocabulary import check_tokens
from probekit.spec import Json, Listener, WindowStates
from probekit.store import TokenStates, WordStates, stored_values, word_matrix


@dataclass(frozen=True)
class Reader:
    """How texts are read: by which model, where, and who is told."""

    source: ModelSource
    device: str
    threads: int | None
    trust_remote_code: bool
    listener: Listener


def read_states(
    reader: Reader, texts: Sequence[str], *, card: Json, spans: Sequence[tuple[int, int]] | None = None
) -> NDArray[np.float32]:
    """(n, d_model) float32 of the probe's layer and pooling, rounded as the cache it was fitted on rounded them."""
    states, _ = _read(reader, texts, card, pooling=str(card["pooling"]), spans=spans)
    return stored_values(states, card["cache"]["store_dtype"])


def read_words(reader: Reader, words: Sequence[Sequence[str]], *, card: Json) -> tuple[WordStates, NDArray[np.bool_]]:
    """The states of all ``words`` at the probe's layer, rounded alike, and which of them have no token (n_words,)."""
    states, encoded = _read(reader, [" ".join(sentence) for sentence in words], card, pooling=None, spans=None)
    tokens = TokenStates(
        stored=stored_values(states, card["cache"]["tokens"]),
        offsets=np.concatenate([[0], np.cumsum(encoded.n_tokens)]),
        token_ids=np.concatenate(encoded.ids),
        token_special=np.concatenate(encoded.special),
        token_word=np.concatenate(data_words(encoded, words)),
    )
    matrix = word_matrix(tokens, [len(sentence) for sentence in words], str(card["pooling"]))
    return WordStates(tokens.stored, matrix), np.diff(matrix.indptr) == 0


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
    reader: Reader,
    texts: Sequence[str],
    card: Json,
    *,
    pooling: str | None,
    spans: Sequence[tuple[int, int]] | None,
) -> tuple[NDArray[np.float32], Encoded]:
    """The layer of ``card``, pooled, or without ``pooling`` the states of all tokens; and what the model read."""
    cache, source, listener = card["cache"], reader.source, reader.listener
    listener.stage(f"loading {source.name}", total=0, unit="")
    tokenizer = load_tokenizer(source, trust_remote_code=reader.trust_remote_code)
    backbone = load_backbone(
        source,
        Loading(
            device=reader.device,
            dtype=cache["dtype"],
            side=cache["side"],
            site=cache["site"],
            last_layer=cache.get("last_layer", "normed"),
            random_seed=cache["random_seed"],
            quantize=cache["quantize"],
            one_by_one=cache.get("batching") == "single",
            threads=reader.threads,
            trust_remote_code=reader.trust_remote_code,
        ),
    )
    first, last = backbone.stack.first, backbone.stack.deepest
    if not first <= card["layer"] <= last:
        message = f"the model's {cache['site']} states are of layers {first}..{last}"
        raise SpecError("card of the probe, field 'layer'", message, str(card["layer"]))
    choose_max_length(cache["max_length"], tokenizer, backbone.max_positions)  # that the model can read so many
    encoded = encode(
        tokenizer,
        texts,
        max_length=cache["max_length"],
        ids=[str(i + 1) for i in range(len(texts))],
        template=kept_template(cache, tokenizer),
        stride=cache.get("stride"),
    )
    names = [f"text {i + 1}" for i in range(len(texts))]
    for text in check_tokens(encoded, tokenizer, size=backbone.vocabulary, texts=texts, names=names):
        listener.note(text)
    n_cut = int(encoded.truncated.sum())
    if n_cut:
        listener.note(f"{texts_are(n_cut)} longer than {cache['max_length']} tokens and read only so far")
    backbone = backbone.checked_on(pieces(encoded), layer=int(card["layer"]), batch_tokens=cache["batch_tokens"])
    if backbone.single:
        listener.note(f"texts are read {backbone.batching}")
    plan = make_plan(
        encoded.n_tokens,
        batch_tokens=1 if backbone.single else cache["batch_tokens"],
        padded=backbone.padded,
        length_limit=backbone.length_limit,
    )
    first_rows = [start for start, _ in plan.windows]
    first_tokens = np.concatenate([[0], np.cumsum(encoded.n_tokens)])[first_rows].tolist()
    n_tokens, d_model = int(encoded.n_tokens.sum()), backbone.stack.d_model
    sink = _Collected(first_rows, len(texts), d_model) if pooling else _Collected(first_tokens, n_tokens, d_model)
    reading = Reading(
        ids=encoded.ids,
        plan=plan,
        layers=(int(card["layer"]),),
        poolings=(pooling,) if pooling else (),
        pool_over=pooled_range(encoded, cache["pool_over"], spans, names=names),
        tokens=pooling is None,
        cuts=encoded.cuts,
    )
    listener.stage("reading", total=n_tokens, unit="tokens")
    run(backbone, reading, sink, on_progress=lambda progress: listener.advance(progress.tokens))
    return sink.states, encoded
