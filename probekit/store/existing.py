"""What is there already under a cache's names: a finished file, an unfinished one to go on with, or something else."""

from __future__ import annotations

import os
from pathlib import Path

import h5py
import numpy as np

from probekit.errors import CacheError, StaleCacheError
from probekit.spec import CacheLayout, Json
from probekit.store import layout as names
from probekit.store.comparison import compare_layouts, compare_specs
from probekit.store.digest import ATTRIBUTES, is_kept, spec_mismatches
from probekit.store.fingerprint import fingerprint
from probekit.store.hashing import example_names, hash_datasets, stored_digest
from probekit.store.structure import Structure, damage_errors, inspect_file, open_checked

PARTIAL_SUFFIX = ".partial"


def partial_path(path: Path) -> Path:
    """Where the work on ``path`` happens until it is finished."""
    return path.with_name(path.name + PARTIAL_SUFFIX)


def windows_of(path: str | os.PathLike[str], spec: Json) -> tuple[tuple[int, int], ...] | None:
    """The windows of an unfinished ``path`` that was made from ``spec``, which must be kept; None if there is none."""
    partial = partial_path(Path(os.path.realpath(path)))
    if not partial.exists():
        return None
    try:
        structure = inspect_file(partial)
    except CacheError:
        return None  # ``open_writer`` will say so, or replace it
    if structure.fingerprint != fingerprint(spec):
        return None
    windows = structure.read(names.WINDOWS)
    edges = np.concatenate([[0], windows[:, 1]])
    # (Windows that can't be are damage, which ``open_writer`` finds.)
    right = (
        np.array_equal(windows[:, 0], edges[:-1]) and edges[-1] == structure.n_examples and (np.diff(edges) > 0).all()
    )
    return tuple((int(start), int(stop)) for start, stop in windows) if right else None


def check_final(final: Path, spec: Json, *, overwrite: bool) -> None:
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


def fingerprint_of(path: Path) -> str | None:
    """The fingerprint of a finished cache; None if there is none."""
    try:
        structure = inspect_file(path)
    except CacheError:
        return None
    return structure.fingerprint if structure.sealed() else None


def resumable(partial: Path, spec: Json, layout: CacheLayout, *, overwrite: bool) -> Structure | None:
    """The unfinished file, if it fits; None if it may be replaced; else an error."""
    try:
        file, structure = open_checked(partial)
        with file, damage_errors(partial):
            compare_specs(structure, spec, kind="unfinished")
            check_examples(file, structure)
            compare_layouts(structure, layout)
    except CacheError as error:
        if overwrite or not partial.exists():
            return None
        if isinstance(error, StaleCacheError):
            raise
        raise CacheError(error.source, f"{error.allowed}; use --overwrite or another --out", error.got) from error
    return structure


def check_examples(file: h5py.File, structure: Structure) -> dict[str, bytes]:
    """SHA-256 of all that an unfinished file holds besides states. Raises CacheError if it is not as it was created."""
    digests = hash_datasets(file, structure, example_names(structure))
    wrong = spec_mismatches(file, structure, digests)
    created = is_kept(structure, created=True)
    if created is not None:  # files of earlier versions have their checksums from sealing only
        wrong += [name for name, digest in digests.items() if stored_digest(structure, name) != digest]
        wrong += [] if created else [ATTRIBUTES]
    if wrong:
        raise CacheError(str(structure.path), f"is damaged: changed since it was created: {', '.join(wrong)}")
    return digests
