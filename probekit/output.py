"""How every file of the user's is written: whole under another name in the same folder, then renamed.

A full disk or a kill leaves the old file as it was, or the new one whole, never a part of either.
"""

from __future__ import annotations

import math
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from probekit.errors import DiskError, SpecError

_NAME = 40
"""Characters of the name that the temporary one repeats: with four bytes each it stays far below 255 bytes."""


@contextmanager
def replacing(path: Path, *, durable: bool = False) -> Iterator[Path]:
    """A temporary name to write to, which becomes ``path`` if the block ends well, and is removed if it does not.

    Where ``path`` is a link, the file that it leads to is replaced. ``durable``: on the disk before it is renamed.

    Raises DiskError for what the system says no to.
    """
    final = Path(os.path.realpath(path))
    partial = _partial(final)
    try:
        yield partial
        if durable:
            sync(partial)
        partial.replace(final)
    except OSError as error:
        raise DiskError(str(path), "can't be written", error.strerror or str(error)) from error
    finally:
        partial.unlink(missing_ok=True)


def write_whole(path: Path, data: bytes, *, durable: bool = False) -> None:
    """Write ``data`` to ``path`` in this way."""
    with replacing(path, durable=durable) as partial:
        partial.write_bytes(data)


def json_path(csv: Path) -> Path:
    """Where the JSON beside a table is."""
    return csv.with_suffix(".json")


def side_path(csv: Path, name: str) -> Path:
    """Where the table ``name`` that belongs to ``csv`` is.

    >>> side_path(Path("layers.csv"), "classes").name
    'layers.classes.csv'
    """
    return csv.with_suffix(f".{name}.csv")


def check_can_write(option: str, path: Path, *, overwrite: bool) -> None:
    """Raise SpecError, before the work, if a file could not be written to ``path`` after it."""
    source = f"{option} {path}"
    try:
        if path.is_symlink() and not path.exists():
            raise SpecError(source, "must be a file or free", f"a link to {os.readlink(path)}, which is not there")
        final = Path(os.path.realpath(path))
        if not final.parent.is_dir():
            raise SpecError(source, "the folder must exist", str(path.parent))
        if os.path.lexists(final):
            if not stat.S_ISREG(final.stat().st_mode):
                raise SpecError(source, "must be a file", "a folder" if final.is_dir() else "a device")
            if not overwrite:
                raise SpecError(source, "exists already; use --overwrite or another name")
        _try_folder(final)
    except OSError as error:
        raise SpecError(source, "must be a name that can be written to", error.strerror or str(error)) from error


def check_can_fill(option: str, folder: Path, *, overwrite: bool) -> None:
    """Raise SpecError, before the work, if files could not be put into ``folder``, which may not be there yet."""
    source = f"{option} {folder}"
    try:
        if os.path.lexists(folder) and not folder.is_dir():
            raise SpecError(source, "must be a folder")
        if folder.exists() and any(folder.iterdir()) and not overwrite:
            raise SpecError(source, "is not empty; use --overwrite or another folder")
        nearest = Path(os.path.realpath(folder))
        while not nearest.exists():
            nearest = nearest.parent
        _try_folder(nearest / "probe")
    except OSError as error:
        raise SpecError(source, "must be a folder that can be written to", error.strerror or str(error)) from error


def _try_folder(file: Path) -> None:
    """Permissions do not tell all (read-only disks, root): so something is put there, and taken away again."""
    partial = _partial(file)
    os.close(os.open(partial, os.O_CREAT | os.O_WRONLY, 0o666))
    partial.unlink()


def _partial(final: Path) -> Path:
    return final.with_name(f"{final.name[:_NAME]}.{os.getpid()}{final.suffix[-8:]}.partial")


def sync(path: Path) -> None:
    """Wait until a file, or a rename inside a folder, is on the disk."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def plain_value(value: Any) -> Any:
    """A value as JSON has it: NumPy's scalars as Python's, and null for NaN, infinity and what is missing."""
    if hasattr(value, "item"):
        value = value.item()
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return None
    return value
