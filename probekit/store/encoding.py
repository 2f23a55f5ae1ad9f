"""From float32 states to the bytes on disk and back; a value that does not fit is found, never stored as inf."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

LARGEST = {
    "float32": float(np.finfo(np.float32).max),
    "float16": float(np.finfo(np.float16).max),
    "bfloat16": 2.0**127 * (2 - 2.0**-7),
}
"""The largest finite value of each storage dtype."""


def first_misfit(states: NDArray[np.float32], dtype: str, *, allow_nonfinite: bool) -> tuple[int, int] | None:
    """Row and dimension of the first value that can't be stored as ``dtype``, or None.

    Without ``allow_nonfinite`` NaN and inf are misfits too; a finite value above ``LARGEST[dtype]`` always is.
    """
    if states.size == 0:
        return None
    limit = LARGEST[dtype]
    # NaN compares false with everything, so this quick look (two passes without temporaries) sends it to the slow path.
    if states.max() <= limit and states.min() >= -limit:
        return None
    misfit = ~(np.abs(states) <= limit)
    if allow_nonfinite:
        misfit &= np.isfinite(states)
    rows, dimensions = np.nonzero(misfit)
    return (int(rows[0]), int(dimensions[0])) if len(rows) else None


def to_bfloat16(states: NDArray[np.float32], out: NDArray[np.uint16]) -> None:
    """Round to nearest, ties to even, and keep the upper 16 bits (as PyTorch's ``round_to_nearest_even``)."""
    bits = states.view(np.uint32)
    rounded = bits >> np.uint32(16)
    rounded &= np.uint32(1)
    rounded += np.uint32(0x7FFF)
    rounded += bits
    rounded >>= np.uint32(16)
    # A NaN whose payload sits in the low bits would round to inf (or wrap to zero): keep it a quiet NaN.
    np.copyto(rounded, (bits >> np.uint32(16)) | np.uint32(0x40), where=np.isnan(states))
    np.copyto(out, rounded, casting="unsafe")


def from_bfloat16(stored: NDArray[np.uint16]) -> NDArray[np.float32]:
    """The float32 values of bfloat16 bits, exact.

    >>> from_bfloat16(np.array([0x3F80, 0xC000], dtype=np.uint16))
    array([ 1., -2.], dtype=float32)
    """
    return (stored.astype(np.uint32) << np.uint32(16)).view(np.float32)


ENCODERS: dict[str, Callable[[NDArray[np.float32], NDArray[Any]], None]] = {
    "float16": lambda states, out: np.copyto(out, states, casting="unsafe"),
    "bfloat16": to_bfloat16,
}
"""How states become stored values; float32 needs nothing."""


def stored_values(states: NDArray[np.float32], dtype: str) -> NDArray[np.float32]:
    """What a cache of that storage dtype would give back for ``states``, as float32."""
    if dtype == "float16":
        return states.astype(np.float16).astype(np.float32)
    if dtype == "bfloat16":
        bits = np.empty(states.shape, dtype=np.uint16)
        to_bfloat16(np.ascontiguousarray(states, dtype=np.float32), bits)
        return from_bfloat16(bits)
    return states
