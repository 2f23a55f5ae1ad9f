"""The run: window after window, states pooled as the layers stream by, written while the next window is read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from probekit.errors import OutOfMemoryError
from probekit.extraction.plan import Plan
from probekit.models.backbone import Backbone
from probekit.pooling import POOLINGS
from probekit.spec import FeatureSink, WindowStates


@dataclass(frozen=True)
class ForwardPlan:
    """What is read and what is kept of it.

    ``ids[i]``: the token ids of row i; ``cuts[i]``, if given: where they are cut into pieces that the model reads one
    by one, as if they were texts of their own. ``pool_over``: (n, 2) first token to pool over and the one after the
    last, or None for all tokens. ``tokens``: keep the states of every token too.
    """

    ids: Sequence[Sequence[int] | NDArray[np.int32]]
    plan: Plan
    layers: tuple[int, ...]
    poolings: tuple[str, ...]
    pool_over: NDArray[np.int64] | None = None
    tokens: bool = False
    cuts: Sequence[tuple[int, ...]] | None = None


@dataclass(frozen=True)
class Progress:
    """How far the run is, counting windows done in an earlier run."""

    rows: int
    tokens: int


@dataclass
class _Window:
    """A window's states on the device, in input order: batches scatter their rows into place.

    ``token_start``: where in ``tokens[layer]`` each row of the window begins.
    """

    start: int
    pooled: dict[tuple[str, int], Tensor]
    tokens: dict[int, Tensor] = field(default_factory=dict)
    token_start: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    split_batches: int = 0


def run(
    backbone: Backbone,
    forward: ForwardPlan,
    sink: FeatureSink,
    *,
    on_progress: Callable[[Progress], None] = lambda _progress: None,
) -> None:
    """Fill every window that ``sink`` says is pending.

    Peak memory is one batch of the model, one layer's states, and two windows' output, whatever the number of layers.
    Raises OutOfMemoryError if a single row doesn't fit, and whatever the sink raises.
    """
    pending = set(sink.pending())
    sizes = np.array([len(row) for row in forward.ids])
    done = [slice(*window) for i, window in enumerate(forward.plan.windows) if i not in pending]
    rows, tokens = sum(part.stop - part.start for part in done), int(sum(sizes[part].sum() for part in done))
    on_progress(Progress(rows, tokens))
    writing: Future[None] | None = None
    with ThreadPoolExecutor(1) as writer:
        for index in sorted(pending):
            window = _empty_window(backbone, forward, *forward.plan.windows[index], sizes)
            for batch in forward.plan.batches[index]:
                _read_batch(backbone, forward, batch, window)
                rows, tokens = rows + len(batch), tokens + int(sizes[batch].sum())
                on_progress(Progress(rows, tokens))
            if writing is not None:
                writing.result()
            writing = writer.submit(_write, sink, index, window)
        if writing is not None:
            writing.result()


def _empty_window(backbone: Backbone, forward: ForwardPlan, start: int, stop: int, sizes: NDArray[np.int64]) -> _Window:
    def room(n: int) -> Tensor:
        return torch.empty(n, backbone.stack.d_model, device=backbone.device)

    pooled = {(pooling, layer): room(stop - start) for pooling in forward.poolings for layer in forward.layers}
    if not forward.tokens:
        return _Window(start, pooled)
    ends = np.cumsum(sizes[start:stop])
    return _Window(start, pooled, {layer: room(int(ends[-1])) for layer in forward.layers}, ends - sizes[start:stop])


def _write(sink: FeatureSink, index: int, window: _Window) -> None:
    pooled = {key: states.cpu().numpy() for key, states in window.pooled.items()}
    tokens = {key: states.cpu().numpy() for key, states in window.tokens.items()}
    sink.write_window(WindowStates(index, pooled, tokens, window.split_batches))


def _read_batch(backbone: Backbone, forward: ForwardPlan, batch: NDArray[np.int64], window: _Window) -> None:
    """Read one batch into the window; out of memory, halve it and try again."""
    sequences = [piece for row in batch.tolist() for piece in _pieces(forward, row)]
    sizes = np.array([len(forward.ids[row]) for row in batch.tolist()])
    chosen, counts = _chosen_tokens(forward, batch, sizes)
    device = backbone.device
    lengths = torch.from_numpy(counts).to(device)
    picked = None if chosen is None else torch.from_numpy(chosen).to(device)
    rows = torch.from_numpy(batch - window.start).to(device)
    places = torch.from_numpy(_ranges(window.token_start[batch - window.start], sizes)) if forward.tokens else None
    places = None if places is None else places.to(device)

    def receive(layer: int, states: Tensor) -> None:
        if places is not None:
            window.tokens[layer][places] = states
        pooled_over = states if picked is None else states[picked]
        for pooling in forward.poolings:
            window.pooled[pooling, layer][rows] = POOLINGS[pooling](pooled_over, lengths)

    try:
        backbone.stream(sequences, layers=forward.layers, receive=receive)
        return
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "memory" not in str(error):
            raise
        if len(batch) == 1:
            raise OutOfMemoryError(
                f"a text of {sizes.sum()} tokens",
                "must fit into the device's memory; try --max-length",
                str(error).splitlines()[0],
            ) from error
    torch.cuda.empty_cache()
    window.split_batches += 1
    half = len(batch) // 2
    _read_batch(backbone, forward, batch[:half], window)
    _read_batch(backbone, forward, batch[half:], window)


def _pieces(forward: ForwardPlan, row: int) -> list[Any]:
    """What the model reads of a row, piece by piece."""
    ids = forward.ids[row]
    bounds = [0, *(forward.cuts[row] if forward.cuts is not None else ()), len(ids)]
    return [ids[start:stop] for start, stop in pairwise(bounds)]


def _chosen_tokens(
    forward: ForwardPlan, batch: NDArray[np.int64], sizes: NDArray[np.int64]
) -> tuple[NDArray[np.int64] | None, NDArray[np.int64]]:
    """Which tokens of the batch are pooled over (None: all), and how many of each row."""
    if forward.pool_over is None:
        return None, sizes
    first, last = forward.pool_over[batch].T
    return _ranges(np.cumsum(sizes) - sizes + first, last - first), last - first


def _ranges(starts: NDArray[np.int64], counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """The numbers starts[i] .. starts[i] + counts[i] - 1, one range after the other.

    >>> _ranges(np.array([5, 0]), np.array([2, 3])).tolist()
    [5, 6, 0, 1, 2]
    """
    within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    return np.asarray(np.repeat(starts, counts) + within)
