"""Caches get names that tell them apart in one table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from probekit.errors import SpecError
from probekit.readspec import shown_fields
from probekit.spec import Json
from probekit.store import Cache

SAME_WORK = ("model", "texts")
"""Caches that share these hold the same texts as the same model reads them: what else differs belongs in the name."""

MOST_CHARACTERS = 40
"""Of one value; a prompt may be long, a hash says no more by its end."""


def cache_names(caches: Sequence[Cache]) -> list[str]:
    """A short readable name for each cache, none twice: its file's stem, and what sets it apart from the same work's.

    Of two that are still alike the folder stands before the stem. Raises SpecError for one file given twice.
    """
    paths = [cache.path.resolve() for cache in caches]
    if len(set(paths)) < len(paths):
        twice = next(cache.path.name for cache, path in zip(caches, paths, strict=True) if paths.count(path) > 1)
        raise SpecError("CACHE, --transfer", "different caches, none twice", twice)
    stems = [path.stem for path in paths]
    for parents in range(max(len(path.parents) for path in paths)):
        if len(set(stems)) == len(stems):
            break
        count = Counter(stems)
        stems = [
            "/".join([*path.parent.parts[-parents - 1 :], path.stem]) if count[stem] > 1 else stem
            for stem, path in zip(stems, paths, strict=True)
        ]
    return [stem + _differences(cache, caches) for stem, cache in zip(stems, caches, strict=True)]


def _differences(cache: Cache, caches: Sequence[Cache]) -> str:
    alike = [other.spec for other in caches if _work(other.spec) == _work(cache.spec)]
    shown = [
        f"{field.replace('_', ' ')}: {_short(value)}"
        for field, value in shown_fields(cache.spec).items()
        if any(spec.get(field) != value for spec in alike)
    ]
    return f" ({'; '.join(shown)})" if shown else ""


def _work(spec: Json) -> tuple[object, ...]:
    return tuple(spec[field] for field in SAME_WORK)


def _short(value: object) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= MOST_CHARACTERS else f"{text[: MOST_CHARACTERS - 1]}…"
