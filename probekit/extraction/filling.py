"""The work behind ``extract``, for which torch is loaded."""

from __future__ import annotations

import platform
import time
from importlib.metadata import version
from pathlib import Path

from probekit.errors import CacheError
from probekit.extraction.preparing import prepare_extraction
from probekit.extraction.request import Handling, Job
from probekit.extraction.run import run
from probekit.models.backbone import Backbone
from probekit.spec import Examples, Json, Listener
from probekit.store import fingerprint, open_writer, partial_path, stored_spec


def fill(job: Job, out: Path, *, handling: Handling, listener: Listener) -> None:
    """Load the model, then write the cache ``out``, or what is missing of it."""
    started = time.time()
    prepared = prepare_extraction(job, handling, listener, out=out)
    n_windows, n_tokens = len(prepared.layout.windows), int(prepared.layout.n_tokens.sum())
    try:
        writer = open_writer(
            out,
            spec=prepared.spec,
            provenance=_provenance(prepared.backbone, job.examples, started),
            layout=prepared.layout,
            examples=job.examples,
            overwrite=handling.overwrite,
            store_text=job.request.store_text,
            allow_nonfinite=handling.allow_nonfinite,
        )
    except CacheError:
        if handling.overwrite or not _is_finished(out, prepared.spec):
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
        run(
            prepared.backbone,
            prepared.reading,
            writer,
            on_progress=lambda progress: listener.advance(progress.tokens),
        )
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
