"""Where everything is in a cache file: names, shapes and dtypes, all fixed before the first byte is written."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from probekit.errors import SpecError
from probekit.spec import CacheLayout, Examples

FORMAT = "probekit"
FORMAT_VERSION = 1

STORAGE_DTYPES: dict[str, np.dtype[Any]] = {
    "float32": np.dtype("<f4"),
    "float16": np.dtype("<f2"),
    "bfloat16": np.dtype("<u2"),
}
"""NumPy has no bfloat16: its bits are kept as uint16, with the attribute ``dtype="bfloat16"``."""

DONE = "/progress/done"
SEALED = "/progress/sealed"
WINDOWS = "/progress/windows"
WINDOW_CHECKSUMS = "/progress/checksums"
"""Per window, written before its mark: see ``hashing.py``. Absent in files of earlier versions."""
CREATED = "/progress/created"
"""What the file was before its states came: see ``verify.py``. Absent in files of earlier versions."""
WHOLE = "/checksums/whole"
"""What the finished file is as a whole: see ``verify.py``. Absent in files of earlier versions."""
EXAMPLE_IDS = "/examples/id"
TEXTS = "/examples/text"
N_TOKENS = "/examples/n_tokens"
TRUNCATED = "/examples/truncated"
TOKEN_OFFSETS = "/tokens/offsets"
TOKEN_IDS = "/tokens/ids"
TOKEN_SPECIAL = "/tokens/special"
TOKEN_WORD = "/tokens/word"

OWN_COLUMNS = {"id": EXAMPLE_IDS, "n_tokens": N_TOKENS, "truncated": TRUNCATED}
"""What every cache knows of its rows besides the input's columns."""

_BYTES_PER_OBJECT = 16384
"""Room for a dataset's header, its checksum and its alignment in the size estimate."""

_LONG_TEXT = 4000
_BYTES_PER_LONG_TEXT = 512
"""HDF5 gives a text of about 4 kB or more a heap of its own, which wastes up to this much (measured)."""


@dataclass(frozen=True)
class DatasetPlan:
    """A dataset that is allocated at creation and filled later by offset."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    attrs: Mapping[str, Any]


def pooled_name(pooling: str, layer: int) -> str:
    """Name of a pooled layer's dataset.

    >>> pooled_name("mean", 8)
    '/pooled/mean/008'
    """
    return f"/pooled/{pooling}/{layer:03d}"


def token_states_name(layer: int) -> str:
    """Name of a layer's dataset of token states."""
    return f"/tokens/states/{layer:03d}"


def checksum_name(name: str) -> str:
    """Name of the dataset that holds the SHA-256 of the dataset ``name``."""
    return f"/checksums{name}"


def is_states(name: str) -> bool:
    """Whether the dataset ``name`` holds hidden states (all else is known at creation)."""
    return name.startswith(("/pooled/", "/tokens/states/"))


def column_name(column: str) -> str:
    """Name of an input column's dataset; what HDF5 can't hold in a name, or probekit uses itself, is %-escaped.

    >>> column_name("label"), column_name("km/h"), column_name("text")
    ('/examples/label', '/examples/km%2Fh', '/examples/%74ext')
    """
    if not column:
        return "/examples/%"
    escaped = column.replace("%", "%25").replace("/", "%2F").replace("\0", "%00")
    if column in (*OWN_COLUMNS, "text", "."):
        escaped = f"%{ord(column[0]):02X}{column[1:]}"
    return f"/examples/{escaped}"


def state_plans(layout: CacheLayout) -> list[DatasetPlan]:
    """The datasets of hidden states, in the order in which a window is written."""
    n, d = len(layout.n_tokens), layout.d_model
    plans = [
        _states_plan(pooled_name(pooling, layer), (n, d), layout.pooled_dtype, layer in layout.final_norm)
        for pooling in layout.poolings
        for layer in layout.layers
    ]
    if layout.tokens is not None:
        total = len(layout.tokens.ids)
        plans += [
            _states_plan(token_states_name(layer), (total, d), layout.tokens.dtype, layer in layout.final_norm)
            for layer in layout.layers
        ]
    return plans


def token_offsets(layout: CacheLayout) -> NDArray[np.int64]:
    """(n_examples + 1,) where each example's tokens begin, and the end of the last one's."""
    return np.concatenate([[0], np.cumsum(layout.n_tokens, dtype=np.int64)])


def known_arrays(layout: CacheLayout) -> dict[str, NDArray[Any]]:
    """The datasets of numbers that are known at creation, besides the input's columns, as they are stored."""
    arrays: dict[str, NDArray[Any]] = {
        N_TOKENS: np.asarray(layout.n_tokens, dtype="<i4"),
        TRUNCATED: np.asarray(layout.truncated, dtype=bool),
    }
    if layout.tokens is not None:
        arrays[TOKEN_OFFSETS] = np.asarray(token_offsets(layout), dtype="<i8")
        arrays[TOKEN_IDS] = np.asarray(layout.tokens.ids, dtype="<i4")
        arrays[TOKEN_SPECIAL] = np.asarray(layout.tokens.special, dtype=bool)
        arrays[TOKEN_WORD] = np.asarray(layout.tokens.word, dtype="<i4")
    return arrays | {WINDOWS: np.array(layout.windows, dtype="<i8")}


def check_layout(layout: CacheLayout, examples: Examples) -> None:
    """Raise SpecError if the parts of ``layout`` contradict each other or the examples."""
    n = len(examples)
    edges = [0, *(stop for _, stop in layout.windows)]
    total = int(layout.n_tokens.sum(dtype=np.int64))
    tokens = layout.tokens
    dtypes = {layout.pooled_dtype} | ({tokens.dtype} if tokens is not None else set())
    checks = {
        "rows": n > 0 and len(examples.ids) == len(layout.n_tokens) == len(layout.truncated) == n,
        "columns": all(np.shape(values) == (n,) for values in examples.columns.values()),
        "layers": len(layout.layers) > 0
        and list(layout.layers) == sorted(set(layout.layers))
        and layout.layers[0] >= 0,
        "final_norm": set(layout.final_norm) <= set(layout.layers),
        "poolings": len(set(layout.poolings)) == len(layout.poolings)
        and (bool(layout.poolings) or tokens is not None)
        and all(pooling.isidentifier() for pooling in layout.poolings),
        "d_model": layout.d_model > 0,
        "windows": [start for start, _ in layout.windows] == edges[:-1]
        and edges[-1] == n
        and all(start < stop for start, stop in layout.windows),
        "tokens": tokens is None or total == len(tokens.ids) == len(tokens.special) == len(tokens.word),
        "dtype": dtypes <= set(STORAGE_DTYPES),
    }
    for source, right in checks.items():
        if not right:
            raise SpecError(f"layout, {source}", "does not fit the examples or the rest of the layout")


def estimated_bytes(layout: CacheLayout, examples: Examples, *, store_text: bool) -> int:
    """Bytes that the whole file will take, slightly more than less."""
    plans = state_plans(layout)
    n = len(examples)
    total = sum(math.prod(plan.shape) * plan.dtype.itemsize for plan in plans)
    total += (len(plans) + len(examples.columns) + 16) * _BYTES_PER_OBJECT
    total += n * (4 + 1 + 8)
    if layout.tokens is not None:
        total += len(layout.tokens.ids) * (4 + 1 + 4)
    texts = [examples.ids, *(values for values in examples.columns.values() if values.dtype.kind in "OU")]
    if store_text:
        texts.append(np.asarray(examples.texts, dtype=object))
    # A string takes a 16-byte reference, a 16-byte heap header and its bytes rounded up to 8.
    lengths = (len(str(text).encode("utf-8", "surrogatepass")) for values in texts for text in values)
    total += sum(48 + length + (_BYTES_PER_LONG_TEXT if length > _LONG_TEXT else 0) for length in lengths)
    return total + 8 * n * sum(values.dtype.kind not in "OU" for values in examples.columns.values())


def _states_plan(name: str, shape: tuple[int, ...], dtype: str, final_norm: bool) -> DatasetPlan:
    return DatasetPlan(name, shape, STORAGE_DTYPES[dtype], {"dtype": dtype, "final_norm": final_norm})
