"""A checksum for each window of an unfinished file: a bit that flips before sealing is found, and done again.

It is the SHA-256 of the SHA-256s of the window's parts, one part per dataset of states in the order of
``layout.state_plans``; so parts can be hashed dataset by dataset, whole and in pieces in one go.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from probekit.spec import CacheLayout
from probekit.store import layout as names
from probekit.store.hashing import hash_parts
from probekit.store.pread import hash_span
from probekit.store.structure import Structure


def window_checksum(parts: Iterable[bytes]) -> bytes:
    """The checksum of a window, of the digests of its parts."""
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
    tokens = np.concatenate([[0], np.cumsum(layout.n_tokens, dtype=np.int64)])
    edges = {}
    for plan in names.state_plans(layout):
        row_bytes = plan.shape[1] * plan.dtype.itemsize
        of_tokens = plan.name.startswith("/tokens/")
        edges[plan.name] = [int(tokens[row]) * row_bytes if of_tokens else row * row_bytes for row in rows]
    return edges
