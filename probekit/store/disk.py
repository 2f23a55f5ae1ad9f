"""Plain file work: a lock, room reserved ahead, writes by offset, and a clear error when the disk says no.

HDF5 never meets a disk that may fail: it swallows a failed write when it closes a file, and goes on, and a disk that
stays full makes it print or crash. So it builds a file in memory, and each write to the disk is checked.
"""

from __future__ import annotations

import errno
import io
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from probekit.errors import CacheError, DiskError

PIECE_BYTES = 1 << 20
"""Bytes handed to the kernel at a time: 9 MB at once took 2.5 to 4 times as long (ext4, dirty pages throttled)."""

_NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS)
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_NO_RESERVE = (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS)
_PAGE = 1 << 16


def locked(partial: Path) -> FileLock:
    """The lock of ``partial``; where the file system knows no locks it holds nothing, and the rest does without.

    Raises CacheError if another process has it.
    """
    # Not per thread: the writer may be closed by another thread than the one that opened it.
    lock = FileLock(f"{partial}.lock", timeout=0, thread_local=False)
    try:
        lock.acquire()
    except Timeout as error:
        raise CacheError(
            str(partial), "another process is writing this cache; wait for it or use another --out"
        ) from error
    except NotImplementedError:
        release(lock)
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise CacheError(str(partial), "can't be written here", error.strerror or str(error)) from error
        release(lock)
    return lock


def release(lock: FileLock) -> None:
    """Let go of the lock and remove its file; a failing disk must not hide how the work itself ended."""
    # Removed while still held: whoever waits for it notices and starts over.
    with suppress(OSError):
        Path(lock.lock_file).unlink(missing_ok=True)
    with suppress(OSError):
        lock.release()


@contextmanager
def disk_errors(path: Path, advice: str) -> Iterator[None]:
    """Turn an OSError into a DiskError that says what to do."""
    try:
        yield
    except FileExistsError:
        raise  # says that another process was first, not that the disk fails
    except OSError as error:
        if error.errno in _FULL:
            raise DiskError(str(path), f"the disk or quota is full; {advice}", error.strerror or "") from error
        raise DiskError(str(path), f"can't be written; {advice}", error.strerror or str(error)) from error


def check_free(path: Path, n_bytes: int) -> None:
    """Raise DiskError if the disk that holds ``path`` has less than ``n_bytes`` free."""
    free = shutil.disk_usage(path.parent).free
    if free < n_bytes:
        raise DiskError(
            str(path),
            f"the cache needs {readable(n_bytes)} of disk; free some space, or store fewer layers or poolings",
            f"{readable(free)} free",
        )


def reserve(fd: int, n_bytes: int) -> None:
    """Have the file system set the space aside, so that a full disk is an error now and not hours later.

    File systems that can't reserve (and macOS) are left alone; there a full disk shows as an error of ``write_at``.
    """
    if not hasattr(os, "posix_fallocate"):
        return
    try:
        os.posix_fallocate(fd, 0, n_bytes)
    except OSError as error:
        if error.errno not in _NO_RESERVE:
            raise


def write_at(fd: int, data: memoryview, offset: int) -> None:
    """Write all of ``data`` (bytes) at ``offset``; the kernel may take it in several pieces."""
    while data:
        written = os.pwrite(fd, data[:PIECE_BYTES], offset)
        data = data[written:]
        offset += written


def sync_data(fd: int) -> None:
    """Wait until the file's contents are on the disk (``fdatasync``; macOS has only ``fsync``)."""
    getattr(os, "fdatasync", os.fsync)(fd)


class SparseImage(io.RawIOBase):
    """A file under construction, in memory: only the pages that were written to, so room set aside takes none."""

    def __init__(self) -> None:
        self._pages: dict[int, bytearray] = {}
        self._at = 0
        self.n_bytes = 0

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to ``offset``, which may lie behind the end."""
        self._at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self.n_bytes}[whence]
        return self._at

    def tell(self) -> int:
        """Where the next byte is read or written."""
        return self._at

    def readinto(self, buffer: Any) -> int:
        """Fill ``buffer`` as far as the file goes; zeros where nothing was written."""
        out = memoryview(buffer).cast("B")
        count = max(0, min(len(out), self.n_bytes - self._at))
        done = 0
        while done < count:
            page, start = divmod(self._at, _PAGE)
            length = min(_PAGE - start, count - done)
            out[done : done + length] = self._pages.get(page, bytes(_PAGE))[start : start + length]
            self._at += length
            done += length
        return count

    def write(self, data: Any) -> int:
        """Keep ``data``."""
        left = memoryview(data).cast("B")
        count = len(left)
        while left:
            page, start = divmod(self._at, _PAGE)
            length = min(_PAGE - start, len(left))
            self._pages.setdefault(page, bytearray(_PAGE))[start : start + length] = left[:length]
            self._at += length
            left = left[length:]
        self.n_bytes = max(self.n_bytes, self._at)
        return count

    def truncate(self, size: int | None = None) -> int:
        """Set where the file ends."""
        self.n_bytes = self._at if size is None else size
        return self.n_bytes

    def save(self, fd: int) -> None:
        """Write the pages to the file ``fd`` and give it its length; the memory is let go on the way.

        Raises OSError where any of it fails.
        """
        os.ftruncate(fd, self.n_bytes)
        for page in sorted(self._pages):
            start = page * _PAGE
            content = memoryview(self._pages.pop(page))[: max(0, self.n_bytes - start)]
            write_at(fd, content, start)


def readable(n_bytes: int) -> str:
    """A size for people, in decimal units.

    >>> readable(999), readable(1_500_000)
    ('999 B', '1.5 MB')
    """
    size = float(n_bytes)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} B" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"
