"""SHA-256 of datasets, read back from the file."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import h5py

from probekit.store.fingerprint import update_with_texts
from probekit.store.layout import checksum_name, is_states
from probekit.store.pread import Identity, hash_span
from probekit.store.structure import Structure

_MAX_THREADS = 4


def data_names(structure: Structure) -> list[str]:
    """The datasets that have a checksum: everything but progress and the checksums themselves."""
    return [name for name in sorted(structure.blocks) if not name.startswith(("/progress/", "/checksums/"))]


def example_names(structure: Structure) -> list[str]:
    """Those of them that are known at creation: all but the states."""
    return [name for name in data_names(structure) if not is_states(name)]


def hash_datasets(
    file: h5py.File, structure: Structure, which: Iterable[str], *, identity: Identity | None = None
) -> dict[str, bytes]:
    """SHA-256 of each dataset: of its bytes in the file, or for text of each UTF-8 string after its length."""
    which = list(which)
    digests = {name: _hash_text(file, name) for name in which if structure.blocks[name].is_text}
    numbers = {name: () for name in which if name not in digests}
    return digests | {name: whole for name, (whole, _) in hash_parts(structure, numbers, identity=identity).items()}


def hash_parts(
    structure: Structure, edges: Mapping[str, Sequence[int]], *, identity: Identity | None = None
) -> dict[str, tuple[bytes, list[bytes]]]:
    """SHA-256 of numeric datasets, and of their parts that end at their ``edges`` (bytes)."""
    with ThreadPoolExecutor(max(1, min(_MAX_THREADS, os.cpu_count() or 1))) as pool:
        found = pool.map(lambda name: hash_span(structure.span(name, identity), edges[name]), edges)
        return dict(zip(edges, found, strict=True))


def stored_digest(structure: Structure, name: str) -> bytes:
    """The checksum of a dataset that stands in the file."""
    return structure.read(checksum_name(name)).tobytes()


def _hash_text(file: h5py.File, name: str) -> bytes:
    digest = hashlib.sha256()
    # Bytes, not str: a damaged text may be no UTF-8 any more and must still give a checksum (another one).
    texts = (raw.decode("utf-8", "surrogateescape") for raw in file[name][()])
    update_with_texts(digest, texts)
    return digest.digest()
