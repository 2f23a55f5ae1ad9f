"""Building the whole file at once: after this no metadata is ever touched again."""

from __future__ import annotations

import json
import os
import platform
import time
import zlib
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from probekit.errors import DiskError, InputError
from probekit.output import sync
from probekit.spec import CacheLayout, Examples, Json
from probekit.store import layout as names
from probekit.store.disk import SparseImage, check_free, disk_errors, reserve, write_at
from probekit.store.fingerprint import fingerprint
from probekit.store.hashing import hash_datasets
from probekit.store.pread import Identity, identity_of
from probekit.store.structure import damage_errors, open_checked
from probekit.store.verify import spec_mismatches, whole_digest

_ALIGN_ABOVE = 512
_ALIGNMENT = 4096
_BUILDING = ".creating"
_OLD_SECONDS = 24 * 3600
_ADVICE = "free some space or use another --out; nothing was written"


def create_partial(
    partial: Path,
    *,
    spec: Json,
    provenance: Json,
    layout: CacheLayout,
    examples: Examples,
    store_text: bool,
    stale: Identity | None = None,
) -> None:
    """Create ``partial`` complete but for the states.

    It is built under a third name, this process's own, synced and linked, so that neither a kill during creation nor
    another process that does the same (where locks do nothing) can leave a broken ``partial``. ``stale``: the file
    there that may be replaced.

    Raises DiskError if the disk lacks room, InputError if a text can't be stored (a NUL character), FileExistsError if
    another process was first.
    """
    strings = _string_datasets(examples, store_text=store_text)
    n_bytes = names.estimated_bytes(layout, examples, store_text=store_text)
    building = _building_path(partial)
    with disk_errors(partial, _ADVICE):
        _remove_left_over(partial)  # its space counts as taken
        check_free(partial, n_bytes)
        fd = os.open(building, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o666)
        try:
            reserve(fd, n_bytes)
            image = SparseImage()
            with h5py.File(
                image,
                "w",
                driver="fileobj",
                locking=False,
                libver=("v108", "v110"),  # from 1.8 on HDF5 keeps checksums of its metadata
                alignment_threshold=_ALIGN_ABOVE,
                alignment_interval=_ALIGNMENT,
            ) as file:
                file.attrs["format"] = names.FORMAT
                file.attrs["format_version"] = names.FORMAT_VERSION
                file.attrs["spec"] = json.dumps(spec, allow_nan=False)
                file.attrs["provenance"] = json.dumps(provenance, allow_nan=False)
                file.attrs["provenance_digest"] = fingerprint(provenance)
                file.attrs["fingerprint"] = fingerprint(spec)
                _write_known(file, layout, examples, strings)
                for plan in names.state_plans(layout):
                    _allocate(file, plan)
                _write_checksums(file)
            image.save(fd)
            reserve(fd, image.n_bytes)
            os.fsync(fd)
            _write_digests(building, fd)
            os.fsync(fd)
            _publish(building, partial, stale)
            sync(partial.parent)
        finally:
            os.close(fd)
            building.unlink(missing_ok=True)


def _write_digests(building: Path, fd: int) -> None:
    """Read the new file back, see that it holds the examples of its spec, and write what tells if they change."""
    file, structure = open_checked(building)
    with file, damage_errors(building):
        digests = hash_datasets(file, structure, structure.example_names)
        wrong = spec_mismatches(file, structure, digests)
    if wrong:
        raise DiskError(str(building), f"the disk gave back other {' and '.join(wrong)} than were written to it")
    for name, digest in digests.items():
        write_at(fd, memoryview(digest), structure.blocks[names.checksum_name(name)].offset)
    write_at(fd, memoryview(whole_digest(structure, created=True)), structure.blocks[names.CREATED].offset)


def _publish(building: Path, partial: Path, stale: Identity | None) -> None:
    """Give the new file its name, unless another process was first: then FileExistsError."""
    if stale is not None and partial.exists() and identity_of(partial.stat()) == stale:
        partial.unlink()
    try:
        os.link(building, partial)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links
        if partial.exists():
            raise FileExistsError(str(partial)) from None
        building.replace(partial)


def _building_path(partial: Path) -> Path:
    return partial.with_name(f"{partial.name}{_BUILDING}.{_host()}-{os.getpid()}")


def _remove_left_over(partial: Path) -> None:
    """Remove what killed processes left of the same creation; those of other machines once they are a day old."""
    prefix = partial.name + _BUILDING
    for path in partial.parent.iterdir():
        if not path.name.startswith(prefix):
            continue
        host, _, process = path.name[len(prefix) + 1 :].partition("-")
        with suppress(FileNotFoundError):
            ours, old = host in ("", _host()), path.stat().st_mtime < time.time() - _OLD_SECONDS
            if old or (ours and not _runs(process)):
                path.unlink()


def _runs(process: str) -> bool:
    """Whether another process of this number is there."""
    if not process.isdecimal() or int(process) == os.getpid():
        return False
    try:
        os.kill(int(process), 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def _host() -> str:
    return f"{zlib.crc32(platform.node().encode()):08x}"


def _write_known(
    file: h5py.File, layout: CacheLayout, examples: Examples, strings: dict[str, NDArray[np.object_]]
) -> None:
    group = file.create_group("examples")
    group.attrs["columns"] = json.dumps(list(examples.columns))
    for name, texts in strings.items():
        file.create_dataset(name, data=texts, dtype=h5py.string_dtype(), track_times=False)
    for column, values in examples.columns.items():
        if names.column_name(column) not in strings:
            file.create_dataset(names.column_name(column), data=values, track_times=False)
    file.create_group("pooled").attrs["poolings"] = json.dumps(list(layout.poolings))
    for name, numbers in names.known_arrays(layout).items():
        file.create_dataset(name, data=numbers, track_times=False)
    _write_zeros(file, names.DONE, len(layout.windows))
    _write_zeros(file, names.SEALED, 1)
    _write_zeros(file, names.WINDOW_CHECKSUMS, len(layout.windows), 32)
    _write_zeros(file, names.CREATED, 32)


def _write_checksums(file: h5py.File) -> None:
    found: list[str] = []
    file.visititems(lambda name, item: found.append(f"/{name}") if isinstance(item, h5py.Dataset) else None)
    for name in found:
        if not name.startswith("/progress/"):
            _write_zeros(file, names.checksum_name(name), 32)
    _write_zeros(file, names.WHOLE, 32)


def _write_zeros(file: h5py.File, name: str, *shape: int) -> None:
    file.create_dataset(name, data=np.zeros(shape, dtype="u1"), track_times=False)


def _allocate(file: h5py.File, plan: names.DatasetPlan) -> None:
    """A dataset with a fixed place in the file, and nothing written there (not even zeros)."""
    dcpl = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    dcpl.set_layout(h5py.h5d.CONTIGUOUS)
    dcpl.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    dcpl.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    dcpl.set_obj_track_times(False)
    dataset = file.create_dataset(plan.name, shape=plan.shape, dtype=plan.dtype, dcpl=dcpl)
    for key, value in plan.attrs.items():
        dataset.attrs[key] = value


def _string_datasets(examples: Examples, *, store_text: bool) -> dict[str, NDArray[np.object_]]:
    datasets = {names.EXAMPLE_IDS: _checked_texts(examples.ids, examples, "id")}
    if store_text:
        datasets[names.TEXTS] = _checked_texts(examples.texts, examples, examples.text_column)
    for column, values in examples.columns.items():
        if not _is_unicode(column):
            raise InputError(examples.source, "column names must be Unicode text", repr(column)[:60])
        if values.dtype.kind not in "OUiufb":
            raise InputError(
                f"{examples.source}, column {column!r}", "must hold numbers, true/false or text", str(values.dtype)
            )
        if values.dtype.kind in "OU":
            datasets[names.column_name(column)] = _checked_texts(values, examples, column)
    return datasets


def _checked_texts(values: Iterable[Any], examples: Examples, column: str) -> NDArray[np.object_]:
    """Strings as HDF5 can hold them: it ends a string at a NUL, which would cut the text off silently."""
    texts = np.array([*values, None], dtype=object)[:-1]  # the None keeps NumPy from guessing a shape
    for row, text in enumerate(texts):
        if not isinstance(text, str) or "\0" in text or not _is_unicode(text):
            raise InputError(
                f"{examples.source}, row {row + 1}, column {column!r}",
                "must be Unicode text without NUL characters",
                repr(text)[:60],
            )
    return texts


def _is_unicode(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
