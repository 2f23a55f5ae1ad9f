"""How much an extraction would take, from a short trial; nothing is written."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from probekit.extraction.plan import make_plan
from probekit.extraction.reader import Prepared, cache_layout, prepare_job
from probekit.extraction.request import Job
from probekit.extraction.run import run
from probekit.readspec import RunOptions
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


def estimate(job: Job, *, options: RunOptions, listener: Listener) -> Estimate:
    """Load the model, tokenise all texts, and run some of them."""
    for text in job.examples.notes:
        listener.note(text)
    prepared = prepare_job(job, options, listener)
    listener.stage("trying", total=0, unit="")
    speed = _tokens_per_second(prepared)
    layout = cache_layout(prepared, job.examples)
    n_tokens = int(layout.n_tokens.sum())
    return Estimate(
        n_rows=len(job.examples),
        n_tokens=n_tokens,
        n_truncated=int(layout.truncated.sum()),
        layers=layout.layers,
        n_layers=prepared.backbone.stack.n_layers,
        site=job.spec.site,
        file_bytes=estimated_bytes(layout, job.examples, store_text=job.spec.store_text),
        tokens_per_second=speed,
        seconds=n_tokens / speed,
    )


def _tokens_per_second(prepared: Prepared) -> float:
    sizes = prepared.encoded.n_tokens
    order = np.random.default_rng(0).permutation(len(sizes))
    chosen = order[: max(1, int(np.searchsorted(np.cumsum(sizes[order]), TRIAL_TOKENS)))]
    over, cuts = prepared.forward.pool_over, prepared.forward.cuts
    trial = replace(
        prepared.forward,
        ids=[prepared.forward.ids[i] for i in chosen.tolist()],
        plan=make_plan(
            sizes[chosen],
            batch_tokens=1 if prepared.backbone.single else prepared.spec.batch_tokens or 1,
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
