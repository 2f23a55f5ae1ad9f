"""The texts of a cache to be read once more, in another way."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

from probekit.errors import SpecError
from probekit.extraction.request import Job, check_request, known_spec
from probekit.models.source import ModelSource
from probekit.readspec import ReadSpec
from probekit.spec import Examples
from probekit.store import Cache


def same_texts(cache: Cache, option: str) -> Examples:
    """What a cache was made from. Raises SpecError where the texts were not stored; ``option`` asks for them."""
    if not cache.spec["store_text"]:
        raise SpecError(option, f"needs the texts, which {cache.path.name} was made without")
    examples = Examples(
        source=str(cache.provenance.get("dataset", "")),
        text_column=str(cache.provenance.get("text_column", "")),
        texts=cache.texts,
        ids=cache.ids,
        columns={name: cache.column(name) for name in cache.columns},
        words=cache.words,
    )
    return examples if cache.words is None else replace(examples, text_column=cache.spec["words"])


def prompt_path(cache: Path, prompt: str) -> Path:
    """Where the states behind a prompt are kept: ``reviews.prompt-1a2b3c4d.h5`` beside ``reviews.h5``."""
    short = hashlib.sha256(prompt.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return cache.with_name(f"{cache.stem}.prompt-{short}{cache.suffix}")


def prompt_job(cache: Cache, source: ModelSource, prompt: str) -> Job:
    """The texts of a cache inside ``prompt``, read by the same model as the cache was; all checked, nothing done.

    Raises SpecError for a prompt without its place for the text and for a cache without texts.
    """
    spec = replace(ReadSpec.from_json(cache.spec), prompt=prompt, batching=None, rendered=None, rendered_trim=None)
    check_request(spec)
    examples = same_texts(cache, f"--prompt {prompt!r}")
    return Job(source, examples, known_spec(spec, source, examples), cache.layers)
