"""A file under construction, in memory: HDF5 never meets a disk that may fail, and each write to the disk is checked.

(HDF5 swallows a failed write when it closes a file, and goes on; a disk that stays full makes it print or crash.)
"""

from __future__ import annotations

import io
import os
from typing import Any

from probekit.store.disk import write_at

_PAGE = 1 << 16


class SparseImage(io.RawIOBase):
    """Keeps only the pages that were written to: room that is set aside for states takes no memory."""

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
