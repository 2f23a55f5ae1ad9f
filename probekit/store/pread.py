"""Reading a dataset's bytes without a map: a file that is cut short or replaced meanwhile is an error, not a signal.

(Touching a map beyond the end of its file kills the process with SIGBUS.)
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from probekit.errors import CacheError

PIECE_BYTES = 4 << 20

Identity = tuple[int, int, int, int]
"""Device, inode, size and time of change: equal for the same file as long as nobody writes to it."""


@dataclass(frozen=True)
class Span:
    """``n_bytes`` at ``offset`` of a file. ``name``: for messages. ``identity``: the file's, where it is known."""

    path: Path
    name: str
    offset: int
    n_bytes: int
    identity: Identity | None = None


def identity_of(status: os.stat_result) -> Identity:
    """What tells this file from one that took its name."""
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def read_span(span: Span) -> NDArray[np.uint8]:
    """All bytes of ``span``. Raises CacheError if the file ends before it does, or is not the expected one."""
    values = np.empty(span.n_bytes, dtype=np.uint8)
    if span.n_bytes:
        with _opened(span) as fd:
            _fill(fd, values.data, span.offset, span)
    return values


def hash_span(span: Span, edges: Sequence[int] = ()) -> tuple[bytes, list[bytes]]:
    """SHA-256 of the bytes of ``span``, and of the parts that end at ``edges`` (ascending, the last is the end)."""
    whole, parts = hashlib.sha256(), []
    buffer = memoryview(bytearray(min(PIECE_BYTES, span.n_bytes)))
    start = 0
    with _opened(span) as fd:
        for stop in edges or [span.n_bytes]:
            part = hashlib.sha256()
            for at in range(start, stop, PIECE_BYTES):
                piece = buffer[: min(PIECE_BYTES, stop - at)]
                _fill(fd, piece, span.offset + at, span)
                whole.update(piece)
                if edges:
                    part.update(piece)
            parts.append(part.digest())
            start = stop
    return whole.digest(), parts if edges else []


@dataclass(frozen=True)
class FileRows:
    """The rows of a dataset as they are in the file, read when they are asked for: ``[rows]`` is a copy."""

    span: Span
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: NDArray[np.integer[Any]]) -> NDArray[Any]:
        values = np.empty((len(rows), *self.shape[1:]), dtype=self.dtype)
        if not values.size:
            return values
        row_bytes = values.nbytes // len(rows)
        raw = values.reshape(-1).view(np.uint8).data
        starts = np.flatnonzero(np.diff(rows, prepend=rows[0] - 2) != 1)  # of runs of rows that follow each other
        with _opened(self.span) as fd:
            for start, stop in zip(starts.tolist(), [*starts[1:].tolist(), len(rows)], strict=True):
                offset = self.span.offset + int(rows[start]) * row_bytes
                _fill(fd, raw[start * row_bytes : stop * row_bytes], offset, self.span)
        return values


@contextmanager
def _opened(span: Span) -> Iterator[int]:
    """A descriptor of the file, which must be the expected one before and after."""
    try:
        fd = os.open(span.path, os.O_RDONLY)
    except FileNotFoundError as error:
        raise replaced(span.path) from error
    except OSError as error:
        raise CacheError(str(span.path), "can't be read", error.strerror or str(error)) from error
    try:
        _check_identity(fd, span)
        yield fd
        _check_identity(fd, span)
    finally:
        os.close(fd)


def _check_identity(fd: int, span: Span) -> None:
    if span.identity is not None and identity_of(os.fstat(fd)) != span.identity:
        raise replaced(span.path)


def replaced(path: Path) -> CacheError:
    """The error for a file that is not the one that was opened."""
    return CacheError(str(path), "the file was replaced or removed since it was opened; open it again")


def _fill(fd: int, buffer: memoryview, offset: int, span: Span) -> None:
    while buffer:
        try:
            count = os.preadv(fd, [buffer[:PIECE_BYTES]], offset)
        except OSError as error:
            raise CacheError(f"{span.path}, {span.name}", "can't be read", error.strerror or str(error)) from error
        if not count:
            raise CacheError(f"{span.path}, {span.name}", "the file ends before the dataset does; it was cut off")
        buffer = buffer[count:]
        offset += count
