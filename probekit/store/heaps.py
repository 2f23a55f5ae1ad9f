"""HDF5's global heaps, where its texts lie, looked at before HDF5 reads them: on a damaged one it never returns.

The format is that of the HDF5 File Format Specification 3.0, III.E: a collection is "GCOL", a version, its size, and
objects one behind the other, each with a header of 16 bytes (index, references, reserved, size). An object of index 0
is the free rest, whose size counts its header; HDF5 walks on by that size, and by zero for ever.
"""

from __future__ import annotations

import os
import struct
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
_OBJECT = struct.Struct("<H6xQ")
_BACKWARDS = np.uint64(2**64 - 2**40)
"""Sizes from which HDF5 would wrap around and go back. (No UTF-8 text has such bytes.)"""


def check_heaps(path: Path, taken: Sequence[tuple[int, int]]) -> NDArray[np.int64]:
    """The addresses of all sound heap collections outside of ``taken`` (start, stop), ascending.

    Raises CacheError for a collection whose objects HDF5 could not walk through.
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
        raw = piece.tobytes()
        heaps, resume = _collections(path, raw, left=stop - start)
        for heap in heaps:
            _check_heap(path, raw, *heap)
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


def _check_heap(path: Path, raw: bytes, start: int, stop: int) -> None:
    """Walk a collection as HDF5 does, if anything in it could be an object that does not lead on."""
    words = np.frombuffer(raw, dtype="<u8", count=(stop - start) // 8, offset=start)
    index, size = words[2:-1] & 0xFFFF, words[3:]
    if not (((index == 0) & (size == 0)) | (size >= _BACKWARDS)).any():
        return
    at = start + _HEADER
    while at + _HEADER <= stop:
        number, length = _OBJECT.unpack_from(raw, at)
        need = _HEADER + (length + 7) // 8 * 8 if number else length
        if need < _HEADER or need % 8 or need > stop - at:
            raise _damaged(path)
        at += need


def _damaged(path: Path) -> CacheError:
    return CacheError(str(path), "the file is damaged: HDF5 would not get through a text heap")
