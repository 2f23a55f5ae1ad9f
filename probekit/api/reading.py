"""The states of a few texts in memory, as a cache would hold them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from probekit.extraction import Reading, make_plan, run
from probekit.models.loading import Loading, load_backbone
from probekit.models.prompts import make_template
from probekit.models.source import ModelSource
from probekit.models.tokens import encode, load_tokenizer
from probekit.spec import Json, Listener, WindowStates
from probekit.store import stored_values


class _Collected:
    """A ``FeatureSink`` that keeps the one pooled layer in memory."""

    def __init__(self, windows: Sequence[tuple[int, int]], n: int, d_model: int) -> None:
        self.windows = windows
        self.states = np.empty((n, d_model), dtype=np.float32)

    def pending(self) -> Sequence[int]:
        """All windows."""
        return range(len(self.windows))

    def write_window(self, states: WindowStates) -> None:
        """Keep the rows."""
        (pooled,) = states.pooled.values()
        self.states[slice(*self.windows[states.index])] = pooled


def read_states(
    source: ModelSource,
    texts: Sequence[str],
    *,
    card: Json,
    device: str,
    threads: int | None,
    trust_remote_code: bool,
    listener: Listener,
) -> NDArray[np.float32]:
    """(n, d_model) float32 of the probe's layer and pooling, rounded as the cache it was fitted on rounded them."""
    cache = card["cache"]
    listener.stage(f"loading {source.name}", total=0, unit="")
    backbone = load_backbone(
        source,
        Loading(
            device=device,
            dtype=cache["dtype"],
            side=cache["side"],
            site=cache["site"],
            random_seed=cache["random_seed"],
            quantize=cache["quantize"],
            threads=threads,
            trust_remote_code=trust_remote_code,
        ),
    )
    tokenizer = load_tokenizer(source, trust_remote_code=trust_remote_code)
    encoded = encode(
        tokenizer,
        texts,
        max_length=cache["max_length"],
        ids=[str(i + 1) for i in range(len(texts))],
        template=make_template(cache["prompt"], chat=cache["chat_template"], tokenizer=tokenizer),
    )
    over = encoded.text_range if cache["pool_over"] == "text" else None
    plan = make_plan(
        encoded.n_tokens,
        batch_tokens=cache["batch_tokens"],
        padded=backbone.padded,
        length_limit=backbone.length_limit,
    )
    sink = _Collected(plan.windows, len(texts), backbone.stack.d_model)
    listener.stage("reading", total=int(encoded.n_tokens.sum()), unit="tokens")
    reading = Reading(encoded.ids, plan, (int(card["layer"]),), (str(card["pooling"]),), over)
    run(backbone, reading, sink, on_progress=lambda progress: listener.advance(progress.tokens))
    return stored_values(sink.states, cache["store_dtype"])
