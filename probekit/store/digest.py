"""What a file is as a whole: one digest over its names, attributes and checksums, and the spec's own digests.

The checksum of a dataset says nothing of which dataset it is, nor of its attributes: two layers that change places
together with their checksums would go unseen.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import h5py
from numpy.typing import NDArray

from probekit.store import layout as names
from probekit.store.fingerprint import columns_digest, fingerprint
from probekit.store.hashing import data_names, stored_digest
from probekit.store.structure import Structure

ATTRIBUTES = "attributes and names"
"""What the digest of the whole vouches for, in words."""


def sealed_digest(structure: Structure) -> bytes:
    """SHA-256 of all that a finished file says: spec, names, attributes, checksums and windows.

    Not of the provenance, which has a digest of its own: files made from the same things have the same datasets.
    """
    return _digest(structure, created=False)


def created_digest(structure: Structure) -> bytes:
    """The same of all that is known before the states are."""
    return _digest(structure, created=True)


def _digest(structure: Structure, *, created: bool) -> bytes:
    datasets = {}
    for name in data_names(structure):
        block = structure.blocks[name]
        checksum = "" if created and names.is_states(name) else stored_digest(structure, name).hex()
        datasets[name] = [list(block.shape), "text" if block.is_text else block.dtype.str, block.attrs, checksum]
    progress = [names.WINDOWS] if created else [names.WINDOWS, names.DONE]
    content = {
        "format_version": structure.format_version,
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
    digest = created_digest(structure) if created else sealed_digest(structure)
    provenance = fingerprint(structure.provenance) == structure.provenance_digest
    return provenance and structure.read(name).tobytes() == digest


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
