"""Which rows are read together, decided from the data and the spec alone so that a resumed run repeats it exactly."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from probekit.errors import SpecError

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
    padded: bool = False,
    window_rows: int = WINDOW_ROWS,
) -> Plan:
    """Cut rows into windows (by rows, tokens and output bytes), and each window, sorted by length, into batches.

    A batch holds at most ``batch_tokens`` tokens (counting padding if ``padded``), but always at least one row.
    ``n_tokens``: (n,). ``bytes_per_row``: what one row puts out.
    """
    most_rows = max(1, min(window_rows, WINDOW_BYTES // max(1, bytes_per_row)))
    windows, start, tokens = [], 0, 0
    for row, length in enumerate(n_tokens.tolist()):
        if row > start and (row - start >= most_rows or tokens + length > WINDOW_TOKENS):
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


def parse_layers(text: str, n_layers: int) -> tuple[int, ...]:
    """Read ``all``, ``0,4,8``, ``0:12:2`` (stop excluded, as in Python) or ``-1`` into layer indices 0..n_layers.

    >>> parse_layers("0,4:7,-1", 12)
    (0, 4, 5, 6, 12)
    """
    every = range(n_layers + 1)
    if text.strip() == "all":
        return tuple(every)
    chosen: set[int] = set()
    for part in text.split(","):
        try:
            numbers = [int(number) if number.strip() else None for number in part.split(":")]
            if len(numbers) == 1 and numbers[0] is not None:
                chosen.add(every[numbers[0]])
            elif len(numbers) in (2, 3):
                chosen.update(every[slice(*numbers)])
            else:
                raise ValueError(part)
        except ValueError as error:
            raise SpecError("--layers", "all, or numbers and ranges like 0,4,8 or 0:12:2 or -1", repr(text)) from error
        except IndexError as error:
            raise SpecError(f"--layers {text}", f"there are layers 0..{n_layers}") from error
    if not chosen:
        raise SpecError(f"--layers {text}", f"there are layers 0..{n_layers}", "no layer at all")
    return tuple(sorted(chosen))
