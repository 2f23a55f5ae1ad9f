"""Which rows are read together, decided from the data and the spec alone so that a resumed run repeats it exactly."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

WINDOW_ROWS = 4096
WINDOW_TOKENS = 256 * 1024
WINDOW_BYTES = 512 * 1024**2


@dataclass(frozen=True)
class Plan:
    """``windows``: (start, stop) rows; ``batches[w]``: row indices read together, shortest rows first."""

    windows: tuple[tuple[int, int], ...]
    batches: tuple[tuple[NDArray[np.int64], ...], ...]


def make_plan(
    n_tokens: NDArray[np.int32],
    *,
    batch_tokens: int,
    bytes_per_row: int = 0,
    bytes_per_token: int = 0,
    padded: bool = False,
    window_rows: int = WINDOW_ROWS,
) -> Plan:
    """Cut rows into windows (by rows, tokens and output bytes), and each window, sorted by length, into batches.

    A batch holds at most ``batch_tokens`` tokens (counting padding if ``padded``), but always at least one row.
    ``n_tokens``: (n,). ``bytes_per_row``, ``bytes_per_token``: what is kept of a row and of a token.
    """
    most_rows = max(1, min(window_rows, WINDOW_BYTES // max(1, bytes_per_row)))
    most_tokens = min(WINDOW_TOKENS, WINDOW_BYTES // max(1, bytes_per_token))
    windows, start, tokens = [], 0, 0
    for row, length in enumerate(n_tokens.tolist()):
        if row > start and (row - start >= most_rows or tokens + length > most_tokens):
            windows.append((start, row))
            start, tokens = row, 0
        tokens += length
    windows.append((start, len(n_tokens)))
    batches = tuple(_batches(n_tokens, start, stop, batch_tokens, padded) for start, stop in windows)
    return Plan(tuple(windows), batches)


def _batches(
    n_tokens: NDArray[np.int32], start: int, stop: int, batch_tokens: int, padded: bool
) -> tuple[NDArray[np.int64], ...]:
    order = start + np.argsort(n_tokens[start:stop], kind="stable")
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
