"""Building the whole file at once: after this no metadata is ever touched again."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from probekit.errors import InputError
from probekit.spec import CacheLayout, Examples, Json
from probekit.store import layout as names
from probekit.store.disk import check_free, disk_errors, reserve, sync_folder
from probekit.store.fingerprint import fingerprint

_ALIGN_ABOVE = 512
_ALIGNMENT = 4096
_ADVICE = "free some space or use another --out; nothing was written"


def create_partial(
    partial: Path, *, spec: Json, provenance: Json, layout: CacheLayout, examples: Examples, store_text: bool
) -> None:
    """Create ``partial`` complete but for the states, replacing what had that name.

    It is built under a third name, synced and renamed, so a kill during creation can't leave a broken ``partial``.

    Raises DiskError if the disk lacks room, InputError if a text can't be stored (a NUL character).
    """
    strings = _string_datasets(examples, store_text=store_text)
    n_bytes = names.estimated_bytes(layout, examples, store_text=store_text)
    building = partial.with_name(partial.name + ".creating")
    with disk_errors(partial, _ADVICE):
        building.unlink(missing_ok=True)  # left by a kill: its space counts as taken
        check_free(partial, n_bytes)
        try:
            # h5py must never meet a full disk (it crashes there), so the file system is asked for the room first.
            _reserve_path(building, n_bytes, flags=os.O_CREAT | os.O_TRUNC)
            with h5py.File(
                building,
                "w",
                libver=("v108", "v110"),  # from 1.8 on HDF5 keeps checksums of its metadata
                locking=False,
                alignment_threshold=_ALIGN_ABOVE,
                alignment_interval=_ALIGNMENT,
            ) as file:
                file.attrs["format"] = names.FORMAT
                file.attrs["format_version"] = names.FORMAT_VERSION
                file.attrs["spec"] = json.dumps(spec, allow_nan=False)
                file.attrs["provenance"] = json.dumps(provenance, allow_nan=False)
                file.attrs["fingerprint"] = fingerprint(spec)
                _write_examples(file, layout, examples, strings)
                _write_progress(file, layout)
                for plan in names.state_plans(layout):
                    _allocate(file, plan)
                _write_checksums(file)
            _reserve_path(building, building.stat().st_size, flags=0)
            building.replace(partial)
            sync_folder(partial.parent)
        finally:
            building.unlink(missing_ok=True)


def _reserve_path(path: Path, n_bytes: int, *, flags: int) -> None:
    fd = os.open(path, os.O_RDWR | flags, 0o666)
    try:
        reserve(fd, n_bytes)
        os.fsync(fd)
    finally:
        os.close(fd)


def _write_examples(
    file: h5py.File, layout: CacheLayout, examples: Examples, strings: dict[str, NDArray[np.object_]]
) -> None:
    group = file.create_group("examples")
    group.attrs["columns"] = json.dumps(list(examples.columns))
    for name, texts in strings.items():
        file.create_dataset(name, data=texts, dtype=h5py.string_dtype(), track_times=False)
    for column, values in examples.columns.items():
        if names.column_name(column) not in strings:
            file.create_dataset(names.column_name(column), data=values, track_times=False)
    file.create_dataset(names.N_TOKENS, data=layout.n_tokens, dtype="<i4", track_times=False)
    file.create_dataset(names.TRUNCATED, data=layout.truncated, dtype=bool, track_times=False)
    pooled = file.create_group("pooled")
    pooled.attrs["poolings"] = json.dumps(list(layout.poolings))
    if layout.tokens is None:
        return
    offsets = np.zeros(len(layout.n_tokens) + 1, dtype="<i8")
    np.cumsum(layout.n_tokens, out=offsets[1:])
    file.create_dataset(names.TOKEN_OFFSETS, data=offsets, track_times=False)
    file.create_dataset(names.TOKEN_IDS, data=layout.tokens.ids, dtype="<i4", track_times=False)
    file.create_dataset(names.TOKEN_SPECIAL, data=layout.tokens.special, dtype=bool, track_times=False)
    file.create_dataset(names.TOKEN_WORD, data=layout.tokens.word, dtype="<i4", track_times=False)


def _write_progress(file: h5py.File, layout: CacheLayout) -> None:
    file.create_dataset(names.WINDOWS, data=np.array(layout.windows, dtype="<i8"), track_times=False)
    _write_zeros(file, names.DONE, len(layout.windows))
    _write_zeros(file, names.SEALED, 1)


def _write_checksums(file: h5py.File) -> None:
    found: list[str] = []
    file.visititems(lambda name, item: found.append(f"/{name}") if isinstance(item, h5py.Dataset) else None)
    for name in found:
        if not name.startswith("/progress/"):
            _write_zeros(file, names.checksum_name(name), 32)


def _write_zeros(file: h5py.File, name: str, length: int) -> None:
    file.create_dataset(name, data=np.zeros(length, dtype="u1"), track_times=False)


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
