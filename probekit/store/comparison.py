"""Was an existing file made from the same things? If not, what differs?"""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from probekit.errors import StaleCacheError
from probekit.spec import CacheLayout, Json
from probekit.store import layout as names
from probekit.store.fingerprint import fingerprint
from probekit.store.structure import Structure

_HASH = re.compile(r"[0-9a-f]{64}")  # says nothing to a reader


def compare_specs(structure: Structure, spec: Json, *, kind: str) -> None:
    """Raise StaleCacheError naming the first field of ``spec`` that differs from the file's."""
    if structure.fingerprint != fingerprint(spec):
        raise stale(structure.spec, spec, f"the {kind} {structure.path.name}")


def stale(there: Json, here: Json, what: str) -> StaleCacheError:
    """The error that names the first field that differs; ``what``: the cache, as a reader knows it."""
    field, was, now = first_difference(there, here)
    if any(_HASH.search(value) for value in (was, now)):
        return StaleCacheError(field, f"{what} was made from other {field}; use --overwrite or another --out")
    return StaleCacheError(field, f"{what} was made with {was}, now {now}; use --overwrite or another --out")


def compare_layouts(structure: Structure, layout: CacheLayout) -> None:
    """Raise StaleCacheError if the file is not laid out like ``layout``.

    The spec decides the layout; a file that differs all the same was made by other code and can't be filled.
    """
    plans = names.state_plans(layout)
    blocks = structure.blocks
    same = all(
        p.name in blocks
        and (blocks[p.name].shape, blocks[p.name].dtype, blocks[p.name].attrs) == (p.shape, p.dtype, p.attrs)
        for p in plans
    )
    arrays: dict[str, Any] = {
        names.WINDOWS: layout.windows,
        names.N_TOKENS: layout.n_tokens,
        names.TRUNCATED: layout.truncated,
    }
    if layout.tokens is not None:
        arrays[names.TOKEN_IDS] = layout.tokens.ids
        arrays[names.TOKEN_SPECIAL] = layout.tokens.special
        arrays[names.TOKEN_WORD] = layout.tokens.word
    if not same or not all(np.array_equal(structure.read(name), values) for name, values in arrays.items()):
        raise StaleCacheError(
            "layout",
            f"the unfinished {structure.path.name} has other layers, sizes or windows; "
            "use --overwrite or another --out",
        )


def first_difference(there: Json, here: Json) -> tuple[str, str, str]:
    """Name of the first field (in the order of ``here``) that differs, its value there and its value here.

    >>> first_difference({"revision": "a", "model": {"id": 1}}, {"model": {"id": 2}, "revision": "a"})
    ('model.id', '1', '2')
    """
    for key in [*here, *(key for key in there if key not in here)]:
        old, new = there.get(key), here.get(key)
        if isinstance(old, dict) and isinstance(new, dict) and _plain(old) != _plain(new):
            field, was, now = first_difference(old, new)
            return f"{key}.{field}", was, now
        if key not in there or key not in here or _plain(old) != _plain(new):
            return key, _shown(old, key in there), _shown(new, key in here)
    return "spec", "the same values", "the same"


def _plain(value: object) -> str:
    """A value as JSON would keep it: a tuple equals a list, and 1 differs from True."""
    return fingerprint({"value": value})


def _shown(value: object, present: bool) -> str:
    text = repr(value) if present else "nothing"
    return text if len(text) <= 80 else f"{text[:77]}..."
