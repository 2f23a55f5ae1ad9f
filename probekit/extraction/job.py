"""A cache made as asked: what is there is found, else it is made or gone on with."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from probekit.errors import CacheError, SpecError
from probekit.extraction.request import Job, found_cache, known_spec
from probekit.inputs.read import read_examples
from probekit.layers import LayerChoice
from probekit.models.source import locate
from probekit.readspec import ReadSpec, RunOptions
from probekit.spec import Examples, Json, Listener
from probekit.store import Cache, fingerprint, open_cache, open_writer, partial_path, stored_spec

if TYPE_CHECKING:
    from probekit.models.backbone import Backbone


def make_job(
    model: str | os.PathLike[str],
    data: Any,
    *,
    text: str | None,
    split: str | Mapping[str, str] | None,
    id_column: str | None = None,
    revision: str | None,
    spec: ReadSpec,
    layers: LayerChoice,
) -> Job:
    """Read the data and find the model; ``data``: as for ``read_examples``, ``spec``: checked by ``check_request``."""
    found = read_examples(data, text=text, split=split, id_column=id_column)
    examples = _with_words(found, store_text=spec.store_text)
    source = locate(os.fspath(model), revision=revision)
    return Job(source, examples, known_spec(spec, source, examples), layers)


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


def run_job(job: Job, out: str | os.PathLike[str], *, options: RunOptions, listener: Listener) -> Cache:
    """Open the cache ``out`` if it is what is asked for, else make it or go on with it."""
    if not Path(os.path.expanduser(out)).resolve().parent.is_dir():
        raise CacheError(f"--out {out}", "the folder must exist", str(Path(out).parent))
    if not options.overwrite:
        found = found_cache(out, job)
        if isinstance(found, Cache):
            listener.note(f"{out} is finished and made from the same things; nothing to do")
            return found
        if found is not None:  # what a chat template with a clock in it rendered then
            begun = ReadSpec.from_json(found.spec)
            job = replace(job, spec=replace(job.spec, rendered=begun.rendered, rendered_trim=begun.rendered_trim))
    for text in (*job.examples.notes, *_ragged(job.examples)):
        listener.note(text)
    _fill(job, Path(out), options, listener)
    return open_cache(out)


def _fill(job: Job, out: Path, options: RunOptions, listener: Listener) -> None:
    """Load the model, then write the cache ``out``, or what is missing of it."""
    from probekit.extraction.reader import cache_layout, prepare_job  # here, because they load torch
    from probekit.extraction.run import run

    started = time.time()
    prepared = prepare_job(job, options, listener, out=out)
    layout = cache_layout(prepared, job.examples)
    n_windows, n_tokens = len(layout.windows), int(layout.n_tokens.sum())
    spec = job.spec.json() | prepared.spec.json()  # what was asked for first
    try:
        writer = open_writer(
            out,
            spec=spec,
            provenance=_provenance(prepared.backbone, job.examples, started),
            layout=layout,
            examples=job.examples,
            overwrite=options.overwrite,
            store_text=job.spec.store_text,
            allow_nonfinite=options.allow_nonfinite,
        )
    except CacheError:
        if options.overwrite or not _is_finished(out, spec):
            raise
        listener.note(f"another process finished {out.name} meanwhile")
        return
    with writer:
        left = len(writer.pending())
        if writer.damaged:
            changed = len(writer.damaged)
            listener.note(f"{changed} of {n_windows} windows are not as they were written: damaged, and done again")
        if left < n_windows:
            listener.note(f"going on with {partial_path(out).name}: {left} of {n_windows} windows to do")
        listener.stage("extracting", total=n_tokens, unit="tokens")
        run(prepared.backbone, prepared.forward, writer, on_progress=lambda done: listener.advance(done.tokens))
        writer.seal()


def _is_finished(out: Path, spec: Json) -> bool:
    """Whether ``out`` is the finished cache of ``spec``."""
    stored = stored_spec(out)
    return stored is not None and stored.sealed and stored.fingerprint == fingerprint(spec)


def _provenance(backbone: Backbone, examples: Examples, started: float) -> Json:
    """Good to know, but without influence on the values (or not promised to have none)."""
    return {
        "dataset": examples.source,
        "text_column": examples.text_column,
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(started)),
        "versions": {
            name: version(name) for name in ("probekit-layers", "torch", "transformers", "tokenizers", "h5py", "numpy")
        },
        "python": platform.python_version(),
        "machine": platform.machine(),
        "dtype_reason": backbone.dtype_reason,
        "batching": backbone.batching,
    }
