"""What a cache was made from, as one short string: equal fingerprints mean equal bytes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from probekit.errors import SpecError
from probekit.spec import Json


class _Hash(Protocol):
    def update(self, data: bytes, /) -> None: ...


def fingerprint(spec: Json) -> str:
    """SHA-256 (hex) of the canonical JSON of ``spec``: sorted keys, no blanks, no NaN.

    Raises SpecError if ``spec`` holds something that JSON can't say exactly (NaN, an array, an object).

    >>> fingerprint({"a": 1, "b": 2}) == fingerprint({"b": 2, "a": 1})
    True
    """
    try:
        text = json.dumps(spec, sort_keys=True, allow_nan=False, separators=(",", ":"))
    except (TypeError, ValueError) as error:
        raise SpecError("spec", "must be plain JSON without NaN", str(error)) from error
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def text_digest(texts: Iterable[str]) -> str:
    """SHA-256 (hex) of texts in their order, each with its length before it.

    >>> text_digest(["ab", "c"]) == text_digest(["a", "bc"])
    False
    """
    digest = hashlib.sha256()
    update_with_texts(digest, texts)
    return digest.hexdigest()


def columns_digest(columns: Mapping[str, NDArray[Any]], ids: Sequence[str] | NDArray[np.object_]) -> str:
    """SHA-256 (hex) of the ids and of every column with its name, dtype and values, in their order.

    A cache carries labels, groups and splits along, so an edited label must give another fingerprint even though no
    hidden state depends on it.
    """
    digest = hashlib.sha256()
    update_with_texts(digest, ids)
    for name, values in columns.items():
        array = np.asarray(values)
        is_text = array.dtype.kind in "OU"
        update_with_texts(digest, [name, "text" if is_text else array.dtype.str, str(len(array))])
        if is_text:
            update_with_texts(digest, array)
        else:
            digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def update_with_texts(digest: _Hash, texts: Iterable[str]) -> None:
    """Feed UTF-8 texts into a hash, each after its length in bytes, so that no two lists give the same bytes."""
    for text in texts:
        # A lone surrogate has no UTF-8 form; a digest need not be the place that complains about it.
        raw = text.encode("utf-8", "surrogatepass")
        digest.update(len(raw).to_bytes(8, "little"))
        digest.update(raw)
