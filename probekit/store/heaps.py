"""HDF5's global heaps, where its texts lie, looked at before HDF5 reads them: on a damaged one it never returns.

The format is that of the HDF5 File Format Specification 3.0, III.E: a collection is "GCOL", a version, its size, and
objects one behind the other, each with a header of 16 bytes (index, references, reserved, size). An object of index 0
is the free rest, whose size counts its header; HDF5 walks on by that size, and by zero for ever.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from probekit.errors import CacheError
from probekit.store.pread import Span, read_span

_SIGNATURE = b"GCOL\x01"
_HEADER = 16
_SMALLEST = 4096
_PIECE = 32 << 20
_MOST_OBJECTS = 1 << 16


def check_heaps(path: Path, taken: Sequence[tuple[int, int]]) -> NDArray[np.int64]:
    """The addresses of all sound heap collections outside of ``taken`` (start, stop), ascending.

    Raises CacheError for a collection whose objects do not fill it one behind the other.
    """
    size = os.stat(path).st_size
    found: list[int] = []
    at = 0
    for start, stop in [*sorted(taken), (size, size)]:
        if start > at:
            found += _check_region(path, at, start)
        at = max(at, stop)
    return np.array(found, dtype=np.int64)


def _check_region(path: Path, start: int, stop: int) -> list[int]:
    """Look through a region piece by piece; the next piece begins with the collection that this one cuts."""
    found: list[int] = []
    length = _PIECE
    while start < stop:
        count = min(length, stop - start)
        piece = read_span(Span(path, "text heaps", start, count))
        heaps, resume = _collections(path, piece.tobytes(), left=stop - start)
        _check_objects(path, piece, heaps)
        found += [start + first for first, _ in heaps]
        if start + count == stop and resume >= count:
            return found
        start, length = start + resume, max(_PIECE, 2 * count if resume == 0 else 0)
    return found


def _collections(path: Path, raw: bytes, *, left: int) -> tuple[list[tuple[int, int]], int]:
    """(start, stop) of the collections that lie wholly in ``raw``, and from where the next piece has to be read."""
    heaps: list[tuple[int, int]] = []
    at = raw.find(_SIGNATURE)
    while at >= 0:
        if at + _HEADER > len(raw):
            return heaps, at if len(raw) < left else len(raw)
        size = int.from_bytes(raw[at + 8 : at + _HEADER], "little")
        if size < _SMALLEST:  # HDF5 refuses it by itself
            at = raw.find(_SIGNATURE, at + 1)
            continue
        if at + size > left:
            raise _damaged(path)
        if at + size > len(raw):
            return heaps, at
        heaps.append((at, at + size))
        at = raw.find(_SIGNATURE, at + size)
    return heaps, len(raw) if len(raw) >= left else max(len(raw) - len(_SIGNATURE) + 1, heaps[-1][1] if heaps else 0)


def _check_objects(path: Path, data: NDArray[np.uint8], heaps: Sequence[tuple[int, int]]) -> None:
    """Walk all collections at once, one object further in each step."""
    at, stop = (
        (np.array(ends, dtype=np.int64) for ends in zip(*heaps, strict=True)) if heaps else (np.zeros(0, int),) * 2
    )
    at = at + _HEADER
    for _ in range(_MOST_OBJECTS + 1):
        more = at + _HEADER <= stop
        at, stop = at[more], stop[more]
        if not len(at):
            return
        headers = data[at[:, None] + np.arange(_HEADER)]
        index = headers[:, :2].copy().view("<u2")[:, 0]
        size = headers[:, 8:].copy().view("<u8")[:, 0]
        # (A size above that of the file would wrap around when it is rounded up.)
        size = np.minimum(size, np.uint64(1 << 62)).astype(np.int64)
        need = np.where(index > 0, _HEADER + (size + 7) // 8 * 8, size)
        if ((need < _HEADER) | (need > stop - at)).any():
            raise _damaged(path)
        at = at + need
    raise _damaged(path)


def _damaged(path: Path) -> CacheError:
    return CacheError(str(path), "the file is damaged: the objects of a text heap do not fill it")
