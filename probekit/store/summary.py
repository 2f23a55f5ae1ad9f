"""What a cache holds, finished or not, without reading a state."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from probekit.spec import Json
from probekit.store import layout as names
from probekit.store.existing import found_or_partial
from probekit.store.structure import Structure, inspect_file


@dataclass(frozen=True)
class CacheSummary:
    """The contents of a cache file. ``columns``: name to dtype ("text" for strings), in the input's order.

    ``token_dtype``: None without token states. ``split_windows``: windows in which a batch had to be split for memory
    (their values are close to, but not the bytes of, an undisturbed run).
    """

    path: Path
    sealed: bool
    format_version: int
    fingerprint: str
    spec: Json
    provenance: Json
    n_examples: int
    d_model: int
    layers: tuple[int, ...]
    final_norm: frozenset[int]
    poolings: tuple[str, ...]
    pooled_dtype: str | None
    token_dtype: str | None
    columns: Mapping[str, str]
    has_text: bool
    total_tokens: int
    n_truncated: int
    n_windows: int
    windows_done: int
    rows_done: int
    split_windows: int
    file_bytes: int


def describe(path: str | os.PathLike[str]) -> CacheSummary:
    """Summarise the cache at ``path``; where there is only its ``.partial``, that.

    Raises CacheError if the file is missing, foreign, damaged or hostile.
    """
    return _summary(inspect_file(found_or_partial(path)))


def stored_spec(path: str | os.PathLike[str]) -> CacheSummary | None:
    """The same of the file at exactly ``path`` (finished or ``.partial``); None if there is no such file."""
    return _summary(inspect_file(Path(path))) if os.path.exists(path) else None


def _summary(structure: Structure) -> CacheSummary:
    blocks = structure.blocks
    done, windows = structure.done(), structure.read(names.WINDOWS)
    first = structure.layers[0]
    has_tokens = names.TOKEN_OFFSETS in blocks
    pooled = blocks[names.pooled_name(structure.poolings[0], first)] if structure.poolings else None
    kinds = {column: blocks[names.column_name(column)] for column in structure.columns}
    return CacheSummary(
        path=structure.path,
        sealed=structure.sealed(),
        format_version=names.FORMAT_VERSION,
        fingerprint=structure.fingerprint,
        spec=structure.spec,
        provenance=structure.provenance,
        n_examples=structure.n_examples,
        d_model=structure.d_model,
        layers=structure.layers,
        final_norm=structure.final_norm,
        poolings=structure.poolings,
        pooled_dtype=pooled.attrs["dtype"] if pooled is not None else None,
        token_dtype=blocks[names.token_states_name(first)].attrs["dtype"] if has_tokens else None,
        columns={column: "text" if block.is_text else str(block.dtype) for column, block in kinds.items()},
        has_text=names.TEXTS in blocks,
        total_tokens=int(structure.read(names.N_TOKENS).sum(dtype=np.int64)),
        n_truncated=int(structure.read(names.TRUNCATED).sum()),
        n_windows=len(done),
        windows_done=int(np.count_nonzero(done)),
        rows_done=int((windows[:, 1] - windows[:, 0])[done > 0].sum()),
        split_windows=int(np.count_nonzero(done == 2)),
        file_bytes=structure.file_bytes,
    )
