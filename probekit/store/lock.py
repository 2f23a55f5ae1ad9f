"""One process at a time writes a cache, where the file system can lock."""

from __future__ import annotations

import errno
from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout

from probekit.errors import CacheError

_NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS)


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
