"""The sink that extraction writes to: rows go by ``pwrite`` to places that were fixed at creation."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from probekit.errors import CacheError, NonFiniteError, SpecError, StaleCacheError
from probekit.spec import CacheLayout, Examples, Json, WindowStates
from probekit.store import layout as names
from probekit.store.comparison import compare_layouts, compare_specs
from probekit.store.creation import create_partial
from probekit.store.disk import disk_errors, sync_data, sync_folder, write_at
from probekit.store.encoding import ENCODERS, LARGEST, first_misfit
from probekit.store.hashing import hash_blocks
from probekit.store.structure import Structure, inspect_file, open_checked

PARTIAL_SUFFIX = ".partial"
_ENCODE_VALUES = 1 << 18
_ADVICE = "free some space and run the same command again: the windows written so far are kept"


def partial_path(path: Path) -> Path:
    """Where the work on ``path`` happens until it is finished."""
    return path.with_name(path.name + PARTIAL_SUFFIX)


def open_writer(
    path: str | os.PathLike[str],
    *,
    spec: Json,
    provenance: Json,
    layout: CacheLayout,
    examples: Examples,
    overwrite: bool = False,
    store_text: bool = True,
    allow_nonfinite: bool = False,
) -> CacheWriter:
    """Create ``path``.partial, or go on with an unfinished one of the same fingerprint.

    ``spec`` holds everything that determines a value (its hash is the fingerprint); ``provenance`` what is only good
    to know. With ``overwrite`` a finished ``path`` stays until the new one is sealed, and an unfinished one made from
    something else is replaced. Use as a context manager; ``seal()`` publishes the file under its final name.

    Raises CacheError if ``path`` is there already (without ``overwrite``) or another process writes it,
    StaleCacheError if it was made from another spec, DiskError if there is no room, InputError if a text or id can't
    be stored, SpecError if ``layout`` contradicts itself.
    """
    names.check_layout(layout, examples)
    final = Path(os.path.realpath(path))  # through a link: the file it points to is replaced, not the link
    if final.name.endswith(PARTIAL_SUFFIX):
        raise CacheError(str(path), f"must be the final name, without {PARTIAL_SUFFIX}")
    if not final.parent.is_dir():
        raise CacheError(str(path), "the folder does not exist", str(final.parent))
    partial = partial_path(final)
    _check_final(final, spec, overwrite=overwrite)
    lock = _locked(partial)
    try:
        # Again, for another process may have finished it while this one waited for the lock.
        _check_final(final, spec, overwrite=overwrite)
        structure = None
        if partial.exists():
            structure = _resumable(partial, spec, layout, overwrite=overwrite)
        if structure is None:
            create_partial(
                partial, spec=spec, provenance=provenance, layout=layout, examples=examples, store_text=store_text
            )
            structure = inspect_file(partial)
        return CacheWriter(
            final,
            structure,
            layout=layout,
            ids=examples.ids,
            lock=lock,
            overwrite=overwrite,
            allow_nonfinite=allow_nonfinite,
        )
    except BaseException:
        _release(lock)
        raise


class CacheWriter:
    """Writes windows into an unfinished cache file (a ``spec.FeatureSink``); made by ``open_writer``."""

    def __init__(
        self,
        path: Path,
        structure: Structure,
        *,
        layout: CacheLayout,
        ids: NDArray[np.object_],
        lock: FileLock,
        overwrite: bool,
        allow_nonfinite: bool,
    ) -> None:
        self.path = path
        self._structure = structure
        self._layout = layout
        self._ids = ids
        self._lock = lock
        self._overwrite = overwrite
        self._allow_nonfinite = allow_nonfinite
        self._done = structure.done()
        self._token_offsets = np.zeros(len(layout.n_tokens) + 1, dtype=np.int64)
        np.cumsum(layout.n_tokens, out=self._token_offsets[1:])
        with disk_errors(structure.path, _ADVICE):
            self._fd = os.open(structure.path, os.O_RDWR)

    def __enter__(self) -> CacheWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def pending(self) -> list[int]:
        """Indices of the windows that are not yet written, ascending."""
        return [int(index) for index in np.flatnonzero(self._done == 0)]

    def write_window(self, states: WindowStates) -> None:
        """Write one window, wait until it is on the disk, then mark it done. Safe to repeat.

        Raises NonFiniteError for a value that can't be stored (the window then stays pending), DiskError if the disk
        fails, SpecError if the states do not fit the layout, CacheError after ``close()``.
        """
        self._check_open()
        if not 0 <= states.index < len(self._layout.windows):
            raise SpecError("window", f"this cache has windows 0..{len(self._layout.windows) - 1}", str(states.index))
        start, stop = self._layout.windows[states.index]
        with disk_errors(self._structure.path, _ADVICE):
            for pooling in self._layout.poolings:
                for layer in self._layout.layers:
                    where = f"layer {layer}, pooling {pooling!r}"
                    values = _part(states.pooled, (pooling, layer), (stop - start, self._layout.d_model), where)
                    self._write_states(names.pooled_name(pooling, layer), values, first_row=start, where=where)
            if self._layout.tokens is not None:
                first, last = (int(self._token_offsets[row]) for row in (start, stop))
                for layer in self._layout.layers:
                    where = f"layer {layer}, tokens"
                    values = _part(states.tokens, layer, (last - first, self._layout.d_model), where)
                    self._write_states(names.token_states_name(layer), values, first_row=first, where=where)
            # The mark must not reach the disk before what it vouches for.
            sync_data(self._fd)
            mark = 2 if states.split_batches else 1
            write_at(self._fd, memoryview(bytes([mark])), self._structure.blocks[names.DONE].offset + states.index)
            sync_data(self._fd)
        self._done[states.index] = mark

    def seal(self) -> None:
        """Write the checksums, mark the file sealed and rename it to its final name; closes the writer.

        Raises CacheError while windows are pending, after ``close()``, or if meanwhile something else came to lie under
        the final name (it is kept, and so is the work); DiskError if the disk fails.
        """
        self._check_open()
        pending = len(self.pending())
        if pending:
            raise CacheError(
                str(self._structure.path), "can be sealed once all windows are written", f"{pending} to do"
            )
        file, structure = open_checked(self._structure.path)
        with file, disk_errors(structure.path, _ADVICE):
            for name, digest in hash_blocks(file, structure).items():
                write_at(self._fd, memoryview(digest), structure.blocks[names.checksum_name(name)].offset)
            sync_data(self._fd)
            write_at(self._fd, memoryview(b"\1"), structure.blocks[names.SEALED].offset)
            os.fsync(self._fd)
            self._check_name_is_free()
            os.replace(structure.path, self.path)
            sync_folder(self.path.parent)
        self.close()

    def close(self) -> None:
        """Let go of the file and the lock; what is unfinished stays for the next run. Safe to repeat."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
            _release(self._lock)

    def _check_open(self) -> None:
        if self._fd < 0:
            raise CacheError(str(self.path), "this writer is closed")

    def _check_name_is_free(self) -> None:
        if self._overwrite or not self.path.exists():
            return
        # Where locks do not work, another process may have finished the very same cache: then nothing is lost.
        if _fingerprint_of(self.path) != self._structure.fingerprint:
            raise CacheError(
                str(self.path),
                "something was put here while the cache was made; move it away or use --overwrite, and run again",
            )

    def _write_states(self, name: str, values: NDArray[np.float32], *, first_row: int, where: str) -> None:
        block = self._structure.blocks[name]
        dtype = block.attrs["dtype"]
        misfit = first_misfit(values, dtype, allow_nonfinite=self._allow_nonfinite)
        if misfit is not None:
            raise self._misfit_error(float(values[misfit]), dtype, where, row=first_row + misfit[0])
        offset = block.offset + first_row * values.shape[1] * block.dtype.itemsize
        encode = ENCODERS.get(dtype)
        flat = values.reshape(-1)
        if encode is None:
            write_at(self._fd, _raw(flat), offset)
            return
        buffer = np.empty(min(_ENCODE_VALUES, flat.size), dtype=block.dtype)
        for start in range(0, flat.size, _ENCODE_VALUES):
            piece = flat[start : start + _ENCODE_VALUES]
            encode(piece, buffer[: piece.size])
            write_at(self._fd, _raw(buffer[: piece.size]), offset + start * block.dtype.itemsize)

    def _misfit_error(self, value: float, dtype: str, where: str, *, row: int) -> NonFiniteError:
        if where.endswith("tokens"):
            example = int(np.searchsorted(self._token_offsets, row, side="right")) - 1
            where = f"{where}, position {row - int(self._token_offsets[example])}"
            row = example
        where = f"{where}, row {row + 1} (id {self._ids[row]!r})"
        if not np.isfinite(value):
            return NonFiniteError(
                where, "hidden states must be finite (or be allowed by --allow-nonfinite)", str(value)
            )
        return NonFiniteError(where, f"{dtype} ends at {LARGEST[dtype]:.6g}; store a wider dtype", f"{value:.6g}")


def _part(
    parts: Mapping[Any, NDArray[np.float32]], key: object, shape: tuple[int, int], where: str
) -> NDArray[np.float32]:
    if key not in parts:
        raise SpecError(where, "is in the layout of the cache, so each window must have it")
    values = np.ascontiguousarray(parts[key], dtype="<f4")
    if values.shape != shape:
        raise SpecError(where, f"must have shape {shape}", str(values.shape))
    return values


def _raw(values: NDArray[Any]) -> memoryview:
    """The bytes of a contiguous array, not copied."""
    return values.view(np.uint8).data if values.size else memoryview(b"")


def _check_final(final: Path, spec: Json, *, overwrite: bool) -> None:
    """Raise the error that says why ``final`` is in the way, if it is."""
    if not final.exists():
        return
    if not final.is_file():
        raise CacheError(str(final), "must be a file", "a folder" if final.is_dir() else "a device")
    if overwrite:
        return
    try:
        structure = inspect_file(final)
    except CacheError as error:
        raise CacheError(
            str(final), "exists and is not a usable cache; use --overwrite or another --out", error.allowed
        ) from error
    compare_specs(structure, spec, kind="finished")
    raise CacheError(str(final), "this cache is finished already; open it, or use --overwrite")


def _fingerprint_of(path: Path) -> str | None:
    try:
        structure = inspect_file(path)
    except CacheError:
        return None
    return structure.fingerprint if structure.sealed() else None


def _resumable(partial: Path, spec: Json, layout: CacheLayout, *, overwrite: bool) -> Structure | None:
    """The unfinished file, if it fits; None if it may be replaced; else an error."""
    try:
        structure = inspect_file(partial)
        compare_specs(structure, spec, kind="unfinished")
        compare_layouts(structure, layout)
    except CacheError as error:
        if overwrite:
            return None
        if isinstance(error, StaleCacheError):
            raise
        raise CacheError(error.source, f"{error.allowed}; use --overwrite or another --out", error.got) from error
    return structure


def _locked(partial: Path) -> FileLock:
    # Not per thread: the writer may be closed by another thread than the one that opened it.
    lock = FileLock(f"{partial}.lock", timeout=0, thread_local=False)
    try:
        lock.acquire()
    except Timeout as error:
        raise CacheError(
            str(partial), "another process is writing this cache; wait for it or use another --out"
        ) from error
    except OSError as error:
        raise CacheError(str(partial), "can't be written here", error.strerror or str(error)) from error
    return lock


def _release(lock: FileLock) -> None:
    # Removed while still held: whoever waits for it notices and starts over.
    Path(lock.lock_file).unlink(missing_ok=True)
    lock.release()
