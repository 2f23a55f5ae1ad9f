"""Does a file still hold what it was created or sealed with?

Every dataset has a checksum, and the file as a whole one digest over its names, attributes and checksums: the checksum
of a dataset says nothing of which dataset it is, nor of its attributes, so two layers that change places together with
their checksums would go unseen.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
from numpy.typing import NDArray

from probekit.errors import CacheError
from probekit.store import layout as names
from probekit.store.fingerprint import columns_digest, fingerprint
from probekit.store.hashing import hash_datasets, stored_digest
from probekit.store.structure import Structure, damage_errors, open_checked

ATTRIBUTES = "attributes and names"
"""What the digest of the whole vouches for, in words."""


@dataclass(frozen=True)
class DatasetCheck:
    """One dataset: ``ok`` if its bytes have the SHA-256 that was written at sealing."""

    name: str
    ok: bool
    n_bytes: int


@dataclass(frozen=True)
class VerifyReport:
    """All datasets of a cache, by name, and what else is ``damaged``: attributes and names, or a digest in the spec.

    ``unchecked``: what a cache of an earlier version has no checksum of.
    """

    path: Path
    datasets: tuple[DatasetCheck, ...]
    damaged: tuple[str, ...] = ()
    unchecked: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether everything that can be checked is as it was sealed."""
        return not self.mismatches

    @property
    def mismatches(self) -> tuple[str, ...]:
        """Names of what changed."""
        return (*(check.name for check in self.datasets if not check.ok), *self.damaged)


def verify(path: str | os.PathLike[str]) -> VerifyReport:
    """Compare every dataset with its checksum; metadata that can't be read is an error, all else a mismatch.

    Raises CacheError if the file is missing, unfinished, foreign, hostile or cut short.
    """
    found = Path(path)
    file, structure = open_checked(found)
    with file, damage_errors(found):
        if not structure.sealed():
            raise CacheError(str(found), "only a finished cache has checksums; this one is unfinished")
        return _report(file, structure, structure.data_names)


def check_sealed(file: h5py.File, structure: Structure) -> None:
    """Raise CacheError if anything but states is not as it was sealed."""
    with damage_errors(structure.path):
        report = _report(file, structure, structure.example_names)
    if not report.ok:
        raise changed(structure.path, report.mismatches)


def changed(path: Path, what: Iterable[str]) -> CacheError:
    """The error for what is not as it was sealed."""
    return CacheError(str(path), f"is damaged: not as it was sealed: {', '.join(what)}")


def _report(file: h5py.File, structure: Structure, which: list[str]) -> VerifyReport:
    digests = hash_datasets(file, structure, which)
    checks = tuple(
        DatasetCheck(name, stored_digest(structure, name) == digest, structure.blocks[name].n_bytes)
        for name, digest in sorted(digests.items())
    )
    damaged = [f"{name} (another digest in the spec)" for name in spec_mismatches(file, structure, digests)]
    whole = is_kept(structure)
    if whole is False:
        damaged.insert(0, ATTRIBUTES)
    return VerifyReport(structure.path, checks, tuple(damaged), () if whole is not None else (ATTRIBUTES,))


def check_examples(file: h5py.File, structure: Structure) -> dict[str, bytes]:
    """SHA-256 of all that an unfinished file holds besides states. Raises CacheError if it is not as it was created."""
    digests = hash_datasets(file, structure, structure.example_names)
    wrong = spec_mismatches(file, structure, digests)
    created = is_kept(structure, created=True)
    if created is not None:  # files of earlier versions have their checksums from sealing only
        wrong += [name for name, digest in digests.items() if stored_digest(structure, name) != digest]
        wrong += [] if created else [ATTRIBUTES]
    if wrong:
        raise CacheError(str(structure.path), f"is damaged: changed since it was created: {', '.join(wrong)}")
    return digests


def whole_digest(structure: Structure, *, created: bool = False) -> bytes:
    """SHA-256 of all that a finished file says: spec, names, attributes, checksums and windows.

    Not of the provenance, which has a digest of its own: files made from the same things have the same datasets.
    ``created``: only of what is known before the states are.
    """
    datasets = {}
    for name in structure.data_names:
        block = structure.blocks[name]
        checksum = "" if created and names.is_states(name) else stored_digest(structure, name).hex()
        datasets[name] = [list(block.shape), "text" if block.is_text else block.dtype.str, block.attrs, checksum]
    progress = [names.WINDOWS] if created else [names.WINDOWS, names.DONE]
    content = {
        "format_version": names.FORMAT_VERSION,
        "spec": structure.spec,
        "columns": structure.columns,
        "poolings": structure.poolings,
        "datasets": datasets,
        "progress": {name: structure.read(name).tolist() for name in progress},
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode("ascii")).digest()


def is_kept(structure: Structure, *, created: bool = False) -> bool | None:
    """Whether attributes and names are as they were sealed, or created; None in a file of an earlier version."""
    name = names.CREATED if created else names.WHOLE
    if name not in structure.blocks:
        return None
    provenance = fingerprint(structure.provenance) == structure.provenance_digest
    return provenance and structure.read(name).tobytes() == whole_digest(structure, created=created)


def spec_mismatches(file: h5py.File, structure: Structure, digests: Mapping[str, bytes]) -> list[str]:
    """Those of "texts" and "columns" whose digest in the spec is not that of what the file holds.

    ``digests``: the SHA-256 of the datasets of examples.
    """
    found = []
    if names.TEXTS in digests and _is_digest(structure.spec.get("texts")):
        found += ["texts"] if structure.spec["texts"] != digests[names.TEXTS].hex() else []
    if _is_digest(structure.spec.get("columns")):
        found += ["columns"] if structure.spec["columns"] != _columns_digest(file, structure) else []
    return found


def _columns_digest(file: h5py.File, structure: Structure) -> str | None:
    def values(name: str) -> NDArray[Any]:
        return file[name].asstr()[()] if structure.blocks[name].is_text else structure.read(name)

    try:
        columns = {column: values(names.column_name(column)) for column in structure.columns}
        return columns_digest(columns, values(names.EXAMPLE_IDS))
    except UnicodeDecodeError:
        return None


def _is_digest(value: object) -> bool:
    return isinstance(value, str) and len(value) == 64
