"""The work behind ``extract``, for which torch is loaded."""

from __future__ import annotations

import platform
import time
from importlib.metadata import version
from pathlib import Path

from probekit.api.preparing import prepare_extraction
from probekit.api.request import Handling, Job
from probekit.extraction import run
from probekit.models.backbone import Backbone
from probekit.spec import Examples, Json, Listener
from probekit.store import open_writer, partial_path


def fill(job: Job, out: Path, *, handling: Handling, listener: Listener) -> None:
    """Load the model, then write the cache ``out``, or what is missing of it."""
    started = time.time()
    prepared = prepare_extraction(job, handling, listener)
    n_windows, n_tokens = len(prepared.layout.windows), int(prepared.layout.n_tokens.sum())
    with open_writer(
        out,
        spec=prepared.spec,
        provenance=_provenance(prepared.backbone, job.examples, started),
        layout=prepared.layout,
        examples=job.examples,
        overwrite=handling.overwrite,
        store_text=job.request.store_text,
        allow_nonfinite=handling.allow_nonfinite,
    ) as writer:
        left = len(writer.pending())
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
