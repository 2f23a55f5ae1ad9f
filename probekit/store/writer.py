"""The sink that extraction writes to: rows go by ``pwrite`` to places that were fixed at creation."""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from probekit.errors import CacheError, DiskError, NonFiniteError, SpecError
from probekit.output import sync
from probekit.spec import CacheLayout, Examples, Json, WindowStates
from probekit.store import layout as names
from probekit.store.creation import create_partial
from probekit.store.disk import disk_errors, locked, release, sync_data, write_at
from probekit.store.encoding import ENCODERS, LARGEST, first_misfit
from probekit.store.existing import (
    PARTIAL_SUFFIX,
    check_final,
    compare_layouts,
    fingerprint_of,
    partial_path,
    resumable,
)
from probekit.store.hashing import damaged_windows, hash_states, window_checksum
from probekit.store.pread import identity_of
from probekit.store.structure import Structure, damage_errors, open_checked
from probekit.store.verify import check_examples, whole_digest

_ENCODE_VALUES = 1 << 18
_WRITTEN, _SPLIT = 1, 2  # marks of a window; see Structure.done
_ADVICE = "free some space and run the same command again: the windows written so far are kept"


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
    check_final(final, spec, overwrite=overwrite)
    lock = locked(partial)
    try:
        structure, created = None, False
        while structure is None:
            # Again, for another process may have finished it while this one waited for the lock, or had none.
            try:
                check_final(final, spec, overwrite=overwrite)
            except CacheError:
                if created:
                    partial.unlink(missing_ok=True)
                raise
            there = identity_of(partial.stat()) if partial.exists() else None
            structure = None if there is None else resumable(partial, spec, layout, overwrite=overwrite and not created)
            if structure is None:
                with suppress(FileExistsError):  # another process was first, where locks do nothing
                    create_partial(
                        partial,
                        spec=spec,
                        provenance=provenance,
                        layout=layout,
                        examples=examples,
                        store_text=store_text,
                        stale=there,
                    )
                    created = True
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
        release(lock)
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
        self._digests_at = structure.blocks.get(names.WINDOW_CHECKSUMS)
        self._token_offsets = names.token_offsets(layout)
        with disk_errors(structure.path, _ADVICE):
            self._fd = os.open(structure.path, os.O_RDWR)
            # Marked as done, but not as they were written: to be done again.
            done = np.flatnonzero(self._done)
            no_mark = done[self._done[done] > _SPLIT].tolist()
            self.damaged = sorted({*no_mark, *damaged_windows(structure, layout, done.tolist())})
            self._mark_pending(self.damaged)

    def __enter__(self) -> CacheWriter:
        return self

    def __exit__(self, *_raised: object) -> None:
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
        if self._is_lost():
            self._done[states.index] = _WRITTEN
            return
        start, stop = self._layout.windows[states.index]
        parts = []
        with disk_errors(self._structure.path, _ADVICE):
            for pooling, layer in product(self._layout.poolings, self._layout.layers):
                name, where = names.pooled_name(pooling, layer), f"layer {layer}, pooling {pooling!r}"
                given = states.pooled.get((pooling, layer))
                parts.append(self._write_states(name, given, rows=(start, stop), where=where))
            first, last = self._token_offsets[[start, stop]].tolist()
            for layer in self._layout.layers if self._layout.tokens is not None else ():
                name, where = names.token_states_name(layer), f"layer {layer}, tokens"
                parts.append(self._write_states(name, states.tokens.get(layer), rows=(first, last), where=where))
            if self._digests_at is not None:
                write_at(self._fd, memoryview(window_checksum(parts)), self._digests_at.offset + 32 * states.index)
            # The mark must not reach the disk before what it vouches for.
            sync_data(self._fd)
            mark = _SPLIT if states.split_batches else _WRITTEN
            write_at(self._fd, memoryview(bytes([mark])), self._structure.blocks[names.DONE].offset + states.index)
            sync_data(self._fd)
        self._done[states.index] = mark

    def seal(self) -> None:
        """Write the checksums, mark the file sealed and rename it to its final name; closes the writer.

        Raises CacheError while windows are pending, after ``close()``, for a damaged file, or if meanwhile something
        else came to lie under the final name (it is kept, and so is the work); DiskError if the disk fails or gave back
        other states than were written.
        """
        self._check_open()
        pending = len(self.pending())
        if pending:
            raise CacheError(
                str(self._structure.path), "can be sealed once all windows are written", f"{pending} to do"
            )
        if not self._is_lost():
            self._seal_file()
        self.close()

    def _seal_file(self) -> None:
        file, structure = open_checked(self._structure.path)
        with file, damage_errors(structure.path):
            digests = check_examples(file, structure)
            compare_layouts(structure, self._layout)
        of_states, of_windows = hash_states(structure, self._layout)
        if self._digests_at is not None:
            stored = structure.read(names.WINDOW_CHECKSUMS)
            damaged = [i for i, now in enumerate(of_windows) if stored[i].tobytes() != now]
            if damaged:
                self._mark_pending(damaged)
                raise DiskError(
                    str(structure.path),
                    f"the disk gave back other states than were written to it, in {len(damaged)} of {len(of_windows)} "
                    "windows; run the same command again: these are done anew",
                )
        with disk_errors(structure.path, _ADVICE):
            for name, digest in {**digests, **of_states}.items():
                write_at(self._fd, memoryview(digest), structure.blocks[names.checksum_name(name)].offset)
            if names.WHOLE in structure.blocks:
                write_at(self._fd, memoryview(whole_digest(structure)), structure.blocks[names.WHOLE].offset)
            sync_data(self._fd)
            write_at(self._fd, memoryview(b"\1"), structure.blocks[names.SEALED].offset)
            os.fsync(self._fd)
            # Where locks do not work, another process may have finished the very same cache: then nothing is lost.
            taken = not self._overwrite and self.path.exists()
            if taken and fingerprint_of(self.path) != structure.fingerprint:
                raise CacheError(
                    str(self.path),
                    "something was put here while the cache was made; move it away or use --overwrite, and run again",
                )
            try:
                os.replace(structure.path, self.path)
            except FileNotFoundError:
                if not self._is_lost():
                    raise
            sync(self.path.parent)

    def close(self) -> None:
        """Let go of the file and the lock; what is unfinished stays for the next run. Safe to repeat."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
            release(self._lock)

    def _check_open(self) -> None:
        if self._fd < 0:
            raise CacheError(str(self.path), "this writer is closed")

    def _mark_pending(self, windows: list[int]) -> None:
        """Have these windows done again, by the next run too should this one end before."""
        with disk_errors(self._structure.path, _ADVICE):
            for index in windows:
                self._done[index] = 0
                write_at(self._fd, memoryview(b"\0"), self._structure.blocks[names.DONE].offset + index)

    def _is_lost(self) -> bool:
        """Whether another process finished this very cache, which can be where locks do nothing.

        Raises CacheError if the unfinished file is gone and the finished one is not this.
        """
        with suppress(FileNotFoundError):
            if os.path.samestat(self._structure.path.stat(), os.fstat(self._fd)):
                return False
        if fingerprint_of(self.path) == self._structure.fingerprint:
            return True
        raise CacheError(
            str(self._structure.path), "was replaced or removed while it was written; run the same command again"
        )

    def _write_states(
        self, name: str, given: NDArray[np.float32] | None, *, rows: tuple[int, int], where: str
    ) -> bytes:
        """Write what is given for ``rows`` of one dataset of states; SHA-256 of the bytes written."""
        if given is None:
            raise SpecError(where, "is in the layout of the cache, so each window must have it")
        values = np.ascontiguousarray(given, dtype="<f4")
        first, last = rows
        if values.shape != (last - first, self._layout.d_model):
            raise SpecError(where, f"must have shape {(last - first, self._layout.d_model)}", str(values.shape))
        block = self._structure.blocks[name]
        dtype = block.attrs["dtype"]
        misfit = first_misfit(values, dtype, allow_nonfinite=self._allow_nonfinite)
        if misfit is not None:
            raise self._misfit_error(float(values[misfit]), dtype, where, row=first + misfit[0])
        offset = block.offset + first * values.shape[1] * block.dtype.itemsize
        encode = ENCODERS.get(dtype)
        flat = values.reshape(-1)
        if encode is None:
            write_at(self._fd, _raw(flat), offset)
            return hashlib.sha256(_raw(flat)).digest()
        digest = hashlib.sha256()
        buffer = np.empty(min(_ENCODE_VALUES, flat.size), dtype=block.dtype)
        for start in range(0, flat.size, _ENCODE_VALUES):
            piece = flat[start : start + _ENCODE_VALUES]
            encode(piece, buffer[: piece.size])
            write_at(self._fd, _raw(buffer[: piece.size]), offset + start * block.dtype.itemsize)
            digest.update(_raw(buffer[: piece.size]))
        return digest.digest()

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


def _raw(values: NDArray[Any]) -> memoryview:
    """The bytes of a contiguous array, not copied."""
    return values.view(np.uint8).data if values.size else memoryview(b"")
