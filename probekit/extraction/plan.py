"""Which rows are read together, decided from the data and the spec alone so that a resumed run repeats it exactly."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

WINDOW_ROWS = 4096
WINDOW_TOKENS = 256 * 1024
WINDOW_BYTES = 512 * 1024**2
WINDOW_WORK = {"cpu": 7.5e11, "mps": 1e14, "cuda": 9e14}
"""Floating-point operations of a window: about half a minute on a slow device of each kind, which a kill may cost."""


@dataclass(frozen=True)
class Plan:
    """``windows``: (start, stop) rows; ``batches[w]``: row indices read together, shortest rows first."""

    windows: tuple[tuple[int, int], ...]
    batches: tuple[tuple[NDArray[np.int64], ...], ...]


def make_plan(
    n_tokens: NDArray[np.int32],
    *,
    batch_tokens: int,
    padded: bool = False,
    length_limit: int | None = None,
    **windows: int,
) -> Plan:
    """``cut_windows``, and each window, sorted by length, into batches: see ``plan_batches``."""
    cut = cut_windows(n_tokens, **windows)
    return plan_batches(n_tokens, cut, batch_tokens=batch_tokens, padded=padded, length_limit=length_limit)


def cut_windows(
    n_tokens: NDArray[np.int32],
    *,
    bytes_per_row: int = 0,
    bytes_per_token: int = 0,
    window_rows: int = WINDOW_ROWS,
    window_tokens: int = WINDOW_TOKENS,
) -> list[tuple[int, int]]:
    """Cut rows into windows, by rows, tokens and output bytes.

    ``n_tokens``: (n,). ``bytes_per_row``, ``bytes_per_token``: what is kept of a row and of a token.
    """
    most_rows = max(1, min(window_rows, WINDOW_BYTES // max(1, bytes_per_row)))
    most_tokens = min(WINDOW_TOKENS, window_tokens, WINDOW_BYTES // max(1, bytes_per_token))
    windows: list[tuple[int, int]] = []
    start = tokens = 0
    for row, length in enumerate(n_tokens.tolist()):
        if row > start and (row - start >= most_rows or tokens + length > most_tokens):
            windows.append((start, row))
            start, tokens = row, 0
        tokens += length
    return [*windows, (start, len(n_tokens))]


def affordable_tokens(n_parameters: int, *, device: str, batch_tokens: int) -> int:
    """How many tokens a window may have, so that little work is lost by a kill; at least a batch.

    From the size of the model's blocks and the kind of device alone, never from timing: a resumed run repeats it.
    """
    work = WINDOW_WORK.get(device, WINDOW_WORK["cpu"])
    return max(batch_tokens, int(work / (2 * max(1, n_parameters))))


def plan_batches(
    n_tokens: NDArray[np.int32],
    windows: Sequence[tuple[int, int]],
    *,
    batch_tokens: int,
    padded: bool = False,
    length_limit: int | None = None,
) -> Plan:
    """Sort each window by length and cut it into batches.

    A batch holds at most ``batch_tokens`` tokens (counting padding if ``padded``), but always at least one row.
    ``length_limit``: no batch has texts both up to and above this length, where a model reads the two differently.
    """
    batches = []
    for start, stop in windows:
        order = start + np.argsort(n_tokens[start:stop], kind="stable")
        n_short = int(np.searchsorted(n_tokens[order], length_limit or n_tokens.max(), side="right"))
        parts = [part for part in (order[:n_short], order[n_short:]) if len(part)]
        batches.append(tuple(batch for part in parts for batch in _batches(n_tokens, part, batch_tokens, padded)))
    return Plan(tuple(windows), tuple(batches))


def _batches(
    n_tokens: NDArray[np.int32], order: NDArray[np.int64], batch_tokens: int, padded: bool
) -> tuple[NDArray[np.int64], ...]:
    """Cut rows, in the order of their length, into batches."""
    batches, first, tokens = [], 0, 0
    for i, row in enumerate(order.tolist()):
        length = int(n_tokens[row])
        cost = (i - first + 1) * length if padded else tokens + length
        if i > first and cost > batch_tokens:
            batches.append(order[first:i])
            first, tokens = i, 0
        tokens += length
    batches.append(order[first:])
    return tuple(batches)
