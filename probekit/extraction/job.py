"""A cache made as asked: what is there is found, else it is made or gone on with."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from probekit.errors import CacheError, SpecError
from probekit.extraction.request import RENDERED, Handling, Job, Request, check_request, found_cache, known_fields
from probekit.inputs import read_examples
from probekit.models.source import locate
from probekit.spec import Examples, Listener
from probekit.store import Cache, open_cache


def make_job(
    model: str | os.PathLike[str],
    data: Any,
    *,
    text: str | None,
    split: str | Mapping[str, str] | None,
    id_column: str | None = None,
    revision: str | None,
    request: Request,
) -> Job:
    """Check the request, read the data and find the model; ``data``: as for ``read_examples``."""
    check_request(request)
    found = read_examples(data, text=text, split=split, id_column=id_column)
    examples = _with_words(found, store_text=request.store_text)
    source = locate(os.fspath(model), revision=revision)
    return Job(source, examples, request, known_fields(request, source, examples))


def _with_words(examples: Examples, *, store_text: bool) -> Examples:
    """Words travel to the cache as a column of lists, which is JSON text as every other one."""
    if examples.words is None:
        return examples
    if not store_text:
        raise SpecError("--no-store-text", f"{examples.source} has words, whose tags are of no use without them")
    column = np.array([json.dumps(words, ensure_ascii=False) for words in examples.words], dtype=np.object_)
    return replace(examples, columns={**examples.columns, examples.text_column: column})


def _ragged(examples: Examples) -> Iterator[str]:
    """Columns of lists that nearly are a tag for each word: said now, since the probe will refuse them."""
    from probekit.tasks.label_sets import parse_lists  # here, because it loads scikit-learn

    for name, values in examples.columns.items() if examples.words is not None else ():
        lists = parse_lists(values)
        if lists is None:
            continue
        pairs = zip(lists, examples.words or [], strict=True)
        wrong = [row for row, (tags, words) in enumerate(pairs) if len(tags) != len(words)]
        if wrong:
            first = f"{len(lists[wrong[0]])} for {len((examples.words or [])[wrong[0]])} words"
            where = f"example {examples.ids[wrong[0]]}: {first}"
            yield f"column {name!r} has no tag for each word in {len(wrong):,} of {len(lists):,} examples ({where})"


def run_job(job: Job, out: str | os.PathLike[str], *, handling: Handling, listener: Listener) -> Cache:
    """Open the cache ``out`` if it is what is asked for, else make it or go on with it."""
    if not Path(out).expanduser().resolve().parent.is_dir():
        raise CacheError(f"--out {out}", "the folder must exist", str(Path(out).parent))
    if not handling.overwrite:
        found = found_cache(out, job.known, job.request)
        if isinstance(found, Cache):
            listener.note(f"{out} is finished and made from the same things; nothing to do")
            return found
        if found is not None:  # what a chat template with a clock in it rendered then
            job = replace(job, known={name: found.spec[name] for name in RENDERED if name in found.spec} | job.known)
    for text in (*job.examples.notes, *_ragged(job.examples)):
        listener.note(text)
    from probekit.extraction.filling import fill  # here, because it loads torch

    fill(job, Path(out), handling=handling, listener=listener)
    return open_cache(out)
