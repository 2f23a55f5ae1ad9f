"""How much an extraction would take, from a short trial; nothing is written."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from probekit.extraction.plan import make_plan
from probekit.extraction.preparing import Prepared, prepare_extraction
from probekit.extraction.request import Handling, Job
from probekit.extraction.run import run
from probekit.spec import Listener, WindowStates
from probekit.store.layout import estimated_bytes

TRIAL_TOKENS = 8192
"""Of texts drawn at random: two batches on a CPU, a second or so."""


@dataclass(frozen=True)
class Estimate:
    """``n_tokens``: after truncation. ``layers``: those to keep, of a model with ``n_layers`` blocks.

    ``seconds``: of the run alone, without loading and tokenising.
    """

    n_rows: int
    n_tokens: int
    n_truncated: int
    layers: tuple[int, ...]
    n_layers: int
    site: str
    file_bytes: int
    tokens_per_second: float
    seconds: float


class _Nowhere:
    """A sink that forgets."""

    def pending(self) -> Sequence[int]:
        """The one window."""
        return [0]

    def write_window(self, states: WindowStates) -> None:
        """Nothing."""


def estimate(job: Job, *, handling: Handling, listener: Listener) -> Estimate:
    """Load the model, tokenise all texts, and run some of them."""
    for text in job.examples.notes:
        listener.note(text)
    prepared = prepare_extraction(job, handling, listener)
    listener.stage("trying", total=0, unit="")
    speed = _tokens_per_second(prepared)
    n_tokens = int(prepared.layout.n_tokens.sum())
    return Estimate(
        n_rows=len(job.examples),
        n_tokens=n_tokens,
        n_truncated=int(prepared.layout.truncated.sum()),
        layers=prepared.layout.layers,
        n_layers=prepared.backbone.stack.n_layers,
        site=job.request.site,
        file_bytes=estimated_bytes(prepared.layout, job.examples, store_text=job.request.store_text),
        tokens_per_second=speed,
        seconds=n_tokens / speed,
    )


def _tokens_per_second(prepared: Prepared) -> float:
    sizes = prepared.layout.n_tokens
    order = np.random.default_rng(0).permutation(len(sizes))
    chosen = order[: max(1, int(np.searchsorted(np.cumsum(sizes[order]), TRIAL_TOKENS)))]
    over, cuts = prepared.reading.pool_over, prepared.reading.cuts
    trial = replace(
        prepared.reading,
        ids=[prepared.reading.ids[i] for i in chosen.tolist()],
        plan=make_plan(
            sizes[chosen],
            batch_tokens=1 if prepared.backbone.single else prepared.spec["batch_tokens"],
            padded=prepared.backbone.padded,
            length_limit=prepared.backbone.length_limit,
            window_rows=len(chosen),
        ),
        pool_over=None if over is None else over[chosen],
        cuts=None if cuts is None else [cuts[i] for i in chosen.tolist()],
    )
    seconds = []
    for _ in range(2):  # the first warms up
        start = time.perf_counter()
        run(prepared.backbone, trial, _Nowhere())
        seconds.append(time.perf_counter() - start)
    return float(sizes[chosen].sum()) / min(seconds)
