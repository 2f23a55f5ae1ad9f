"""The run: window after window, states pooled as the layers stream by, written while the next window is read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

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
class Progress:
    """How far the run is, counting windows done in an earlier run."""

    rows: int
    tokens: int


@dataclass
class _Window:
    """A window's pooled states on the device, in input order: batches scatter their rows into place."""

    start: int
    pooled: dict[tuple[str, int], Tensor]
    split_batches: int = 0


def run(
    backbone: Backbone,
    ids: Sequence[list[int]],
    plan: Plan,
    sink: FeatureSink,
    *,
    layers: tuple[int, ...],
    poolings: tuple[str, ...],
    on_progress: Callable[[Progress], None] = lambda _progress: None,
) -> None:
    """Fill every window that ``sink`` says is pending.

    Peak memory is one batch of the model, one layer's states, and two windows' pooled output, whatever the number of
    layers. Raises OutOfMemoryError if a single row doesn't fit, and whatever the sink raises.
    """
    pending = set(sink.pending())
    sizes = np.array([len(row) for row in ids])
    done = [slice(*window) for i, window in enumerate(plan.windows) if i not in pending]
    rows, tokens = sum(part.stop - part.start for part in done), int(sum(sizes[part].sum() for part in done))
    on_progress(Progress(rows, tokens))
    writing: Future[None] | None = None
    with ThreadPoolExecutor(1) as writer:
        for index in sorted(pending):
            start, stop = plan.windows[index]
            pooled = {
                (pooling, layer): torch.empty(stop - start, backbone.stack.d_model, device=backbone.device)
                for pooling in poolings
                for layer in layers
            }
            window = _Window(start, pooled)
            for batch in plan.batches[index]:
                _read_batch(backbone, ids, batch, window)
                rows, tokens = rows + len(batch), tokens + int(sizes[batch].sum())
                on_progress(Progress(rows, tokens))
            if writing is not None:
                writing.result()
            writing = writer.submit(_write, sink, index, window)
        if writing is not None:
            writing.result()


def _write(sink: FeatureSink, index: int, window: _Window) -> None:
    pooled = {key: states.cpu().numpy() for key, states in window.pooled.items()}
    sink.write_window(WindowStates(index, pooled, split_batches=window.split_batches))


def _read_batch(backbone: Backbone, ids: Sequence[list[int]], batch: NDArray[np.int64], window: _Window) -> None:
    """Read one batch into the window; out of memory, halve it and try again."""
    sequences = [ids[row] for row in batch.tolist()]
    lengths = torch.tensor([len(sequence) for sequence in sequences], device=backbone.device)
    rows = torch.from_numpy(batch - window.start).to(backbone.device)
    layers = tuple(sorted({layer for _, layer in window.pooled}))

    def receive(layer: int, states: Tensor) -> None:
        for (pooling, wanted), out in window.pooled.items():
            if wanted == layer:
                out[rows] = POOLINGS[pooling](states, lengths)

    try:
        backbone.stream(sequences, layers=layers, receive=receive)
        return
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "memory" not in str(error):
            raise
        if len(batch) == 1:
            raise OutOfMemoryError(
                f"a text of {len(sequences[0])} tokens",
                "must fit into the device's memory; try --max-length",
                str(error).splitlines()[0],
            ) from error
    torch.cuda.empty_cache()
    window.split_batches += 1
    half = len(batch) // 2
    _read_batch(backbone, ids, batch[:half], window)
    _read_batch(backbone, ids, batch[half:], window)
