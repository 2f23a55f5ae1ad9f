"""A cache to trained heads."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, fields
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from probekit.api.probe import CacheLike, opened_caches
from probekit.arguments import names
from probekit.errors import SpecError
from probekit.evaluate.executor import workers
from probekit.evaluate.names import cache_names
from probekit.extraction.request import same_model
from probekit.readspec import RunOptions
from probekit.spec import Json, Listener, Result, Silent
from probekit.training.options import HeadOptions, TrainOptions

if TYPE_CHECKING:
    from probekit.training.saved_heads import Heads

PARTIAL = ".partial"


@dataclass(frozen=True)
class TrainResult(Result):
    """``Result`` with the table "heads" (columns ``HEAD_COLUMNS``), and the ``heads`` themselves, of the first seed."""

    heads: Heads | None = None


def train(
    cache: CacheLike,
    target: str | Sequence[str],
    *,
    out: str | os.PathLike[str] | None = None,
    head: str = "linear",
    layer: int | None = None,
    pooling: str | None = None,
    width: int = 128,
    dropout: float = 0.1,
    task: str | Mapping[str, str] = "auto",
    weights: Mapping[str, float] | None = None,
    model: str | os.PathLike[str] | None = None,
    device: str = "auto",
    threads: int | None = None,
    trust_remote_code: bool = False,
    overwrite: bool = False,
    jobs: int = 1,
    executor: Executor | None = None,
    listener: Listener | None = None,
    **options: Any,
) -> TrainResult:
    """Train a head for each target on the states of a cache, or with the backbone; scores come from the test rows once.

    ``head``: "linear", "mlp", "attention" (a learnt query over tokens) or "mix" (a learnt weighting of all layers).
    ``layer``, ``pooling``: by default those whose probe is best on validation. ``weights``: of each target's loss.
    ``out``: a folder to save to (``heads.safetensors``, what was trained of the backbone, a card, and the table); a
    training that was killed goes on from ``OUT.partial``. ``model``: where a local model is, if texts go through it.
    ``options``: the fields of ``TrainOptions``: ``backbone`` ("frozen", "top:M", "lora", "full"), ``init``, ``epochs``,
    ``batch_size``, ``lr``, ``soft_prompt``, ``seeds`` and so on.

    A linear head begins at the probe that was fitted on the same states, so that training can only be compared with a
    head that was already good. Rows without a label of one target train the heads of the others. Several targets share
    one division of the rows. The weights that are kept are those of the best epoch on validation, the start included.

    Raises SpecError for options that can't be, InputError for labels and splits that can't be used, ModelError for
    another model than the cache's.
    """
    targets = names(target, "target")
    tasks = dict(task) if not isinstance(task, str) else dict.fromkeys(targets, task)
    heads = tuple(
        HeadOptions(
            name,
            head=head,
            layer=layer,
            pooling=pooling,
            width=width,
            dropout=dropout,
            task=tasks.get(name, "auto"),
            weight=(weights or {}).get(name, 1.0),
        )
        for name in targets
    )
    for name in {**(weights or {}), **({} if isinstance(task, str) else tasks)}:
        if name not in targets:
            raise SpecError("weights, task", f"of targets: {', '.join(targets)}", str(name))
    known = {field.name for field in fields(TrainOptions)}
    for name in options:
        if name not in known:
            raise SpecError(f"option {name}", f"one of {', '.join(sorted(known - {'heads'}))}")
    wanted = TrainOptions(heads, **options)
    run = RunOptions(device, threads, trust_remote_code=trust_remote_code, overwrite=overwrite)
    return run_heads(
        cache, wanted, run, out=out, model=model, jobs=jobs, executor=executor, listener=listener or Silent()
    )


def run_heads(
    cache: CacheLike,
    options: TrainOptions,
    run: RunOptions,
    *,
    out: str | os.PathLike[str] | None,
    model: str | os.PathLike[str] | None,
    jobs: int,
    executor: Executor | None,
    listener: Listener,
) -> TrainResult:
    """``train`` of options that are put together already."""
    from probekit.training.plan import plan_training  # here, because they load torch

    started = time.time()
    with ExitStack() as closing:
        (opened,) = closing.enter_context(opened_caches([cache], verify=options.verify))
        plan = plan_training(opened, options, name=cache_names([opened])[0])
        source = same_model(opened.spec, model) if options.tuned else None
        from probekit.training.run import run_training

        state = None if out is None else _state(Path(out), options, opened.fingerprint, overwrite=run.overwrite)
        with nullcontext(executor) if executor else workers(jobs) as pool:
            found = run_training(plan, source, run, state=state, executor=pool, listener=listener)
        packages = ("probekit-layers", "torch", "transformers", "scikit-learn", "numpy")
        record: Json = {
            "versions": {name: version(name) for name in packages},
            **found.record,
            "caches": [{"file": opened.path.name, "fingerprint": opened.fingerprint, "spec": opened.spec}],
            "seconds": round(time.time() - started, 3),
        }
        result = TrainResult(
            {"heads": found.table, "classes": found.evaluation.classes}, found.warnings, record, (), found.heads
        )
    if out is not None:
        save_heads(result, Path(out), overwrite=run.overwrite)
        if state is not None:
            shutil.rmtree(state)
    return result


def save_heads(result: TrainResult, folder: Path, *, overwrite: bool = False) -> list[Path]:
    """Write the heads, and beside them in the folder the table ``heads.csv`` and its JSON."""
    from probekit.output import check_can_fill
    from probekit.report import write_table

    if result.heads is None:
        raise SpecError("heads", "trained ones", "none")
    check_can_fill("--out", folder, overwrite=overwrite)
    written = result.heads.save(folder)
    record = {**result.record, "warnings": list(result.warnings)}
    return [*written, *write_table(result.table, record, folder / "heads.csv")]


def _state(out: Path, options: TrainOptions, fingerprint: str, *, overwrite: bool) -> Path:
    """The folder of what a killed training left, or a new one. Raises SpecError if it is of another training."""
    folder = out.with_name(out.name + PARTIAL)
    asked = json.dumps({"cache": fingerprint, "options": options.json()}, sort_keys=True)
    mine = hashlib.sha256(asked.encode()).hexdigest()
    note = folder / "training.json"
    if folder.exists() and overwrite:
        shutil.rmtree(folder)
    if folder.exists():
        theirs = json.loads(note.read_text())["sha256"] if note.is_file() else ""
        if theirs != mine:
            message = "holds a training that was broken off, of other options or another cache; --overwrite removes it"
            raise SpecError(f"--out {out}, {folder.name}", message)
        return folder
    folder.mkdir(parents=True)
    note.write_text(json.dumps({"sha256": mine, "asked": json.loads(asked)}, indent=1))
    return folder
