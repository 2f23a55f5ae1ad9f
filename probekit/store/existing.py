"""What is there already under a cache's names: a finished file, an unfinished one to go on with, or something else."""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np

from probekit.errors import CacheError, StaleCacheError
from probekit.spec import CacheLayout, Json
from probekit.store import layout as names
from probekit.store.fingerprint import fingerprint
from probekit.store.structure import Structure, damage_errors, inspect_file, open_checked
from probekit.store.verify import check_examples

PARTIAL_SUFFIX = ".partial"
_HASH = re.compile(r"[0-9a-f]{64}")  # says nothing to a reader


def partial_path(path: Path) -> Path:
    """Where the work on ``path`` happens until it is finished."""
    return path.with_name(path.name + PARTIAL_SUFFIX)


def found_or_partial(path: str | os.PathLike[str]) -> Path:
    """``path``, or where there is only its ``.partial``, that."""
    found = Path(path)
    return partial_path(found) if not os.path.exists(found) and os.path.exists(partial_path(found)) else found


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
    arrays = names.known_arrays(layout).items()
    if not same or not all(np.array_equal(structure.read(name), values) for name, values in arrays):
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
