"""SHA-256 of datasets and of windows, read back from the file.

The checksum of a window of an unfinished file says whether a bit flipped before sealing: then it is done again.
Datasets of states are hashed whole and by window in one reading.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import h5py

from probekit.spec import CacheLayout
from probekit.store import layout as names
from probekit.store.fingerprint import update_with_texts
from probekit.store.pread import Identity, hash_span
from probekit.store.structure import Structure

_MAX_THREADS = 4


def hash_datasets(
    file: h5py.File, structure: Structure, which: Sequence[str], *, identity: Identity | None = None
) -> dict[str, bytes]:
    """SHA-256 of each dataset: of its bytes in the file, or for text of each UTF-8 string after its length."""
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
    return structure.read(names.checksum_name(name)).tobytes()


def _hash_text(file: h5py.File, name: str) -> bytes:
    digest = hashlib.sha256()
    # Bytes, not str: a damaged text may be no UTF-8 any more and must still give a checksum (another one).
    texts = (raw.decode("utf-8", "surrogateescape") for raw in file[name][()])
    update_with_texts(digest, texts)
    return digest.digest()


def window_checksum(parts: Iterable[bytes]) -> bytes:
    """The checksum of a window: of the digests of its parts, one for each dataset in the order of ``state_plans``."""
    return hashlib.sha256(b"".join(parts)).digest()


def hash_states(structure: Structure, layout: CacheLayout) -> tuple[dict[str, bytes], list[bytes]]:
    """SHA-256 of each dataset of states, and the checksum of each window, of the same reading."""
    found = hash_parts(structure, _edges(layout))
    parts = [of_window for _, of_window in found.values()]
    return {name: whole for name, (whole, _) in found.items()}, [window_checksum(p) for p in zip(*parts, strict=True)]


def damaged_windows(structure: Structure, layout: CacheLayout, which: Iterable[int]) -> list[int]:
    """Those of the windows ``which`` that are not as they were written; none in a file of an earlier version."""
    if names.WINDOW_CHECKSUMS not in structure.blocks:
        return []
    edges = _edges(layout)
    stored = structure.read(names.WINDOW_CHECKSUMS)
    return [i for i in which if stored[i].tobytes() != _window_now(structure, edges, i)]


def _window_now(structure: Structure, edges: Mapping[str, Sequence[int]], index: int) -> bytes:
    parts = []
    for name, ends in edges.items():
        span = structure.span(name)
        start = ends[index - 1] if index else 0
        part = replace(span, offset=span.offset + start, n_bytes=ends[index] - start)
        parts.append(hash_span(part)[0])
    return window_checksum(parts)


def _edges(layout: CacheLayout) -> dict[str, list[int]]:
    """Where in each dataset of states, in bytes, each window ends."""
    rows = [stop for _, stop in layout.windows]
    tokens = names.token_offsets(layout)
    edges = {}
    for plan in names.state_plans(layout):
        row_bytes = plan.shape[1] * plan.dtype.itemsize
        of_tokens = plan.name.startswith("/tokens/")
        edges[plan.name] = [int(tokens[row]) * row_bytes if of_tokens else row * row_bytes for row in rows]
    return edges
