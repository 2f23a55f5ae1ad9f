"""A cache to trained heads."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass, fields, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from probekit.api.probe import CacheLike, opened_caches
from probekit.arguments import names
from probekit.errors import SpecError
from probekit.evaluate.executor import workers
from probekit.evaluate.names import cache_names
from probekit.extraction.request import same_model
from probekit.output import check_can_fill, write_whole
from probekit.readspec import RunOptions
from probekit.spec import Json, Listener, Result, Silent
from probekit.training.options import TrainOptions, head_options

if TYPE_CHECKING:
    import pandas as pd

    from probekit.models.source import ModelSource
    from probekit.store import Cache
    from probekit.training.run import Training
    from probekit.training.saved_heads import Heads

PARTIAL = ".partial"
NOTE = "training.json"
"""What was asked, in a folder of a training that goes on; written first."""


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
    prompts: str | Sequence[str] = (),
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
    ``prompts``: templates with ``{text}`` in them, to be compared: each has a cache of its own beside ``cache``, made
    where it is not there, and the heads of the one that is best on validation are kept. ``options``: the fields of
    ``TrainOptions``: ``backbone`` ("frozen", "top:M", "lora", "full"), ``init``, ``epochs``, ``batch_size``, ``lr``,
    ``soft_prompt``, ``seeds`` and so on.

    A linear head begins at the probe that was fitted on the same states, so that training can only be compared with a
    head that was already good. Rows without a label of one target train the heads of the others. Several targets share
    one division of the rows. The weights that are kept are those of the best epoch on validation, the start included.

    Raises SpecError for options that can't be, InputError for labels and splits that can't be used, ModelError for
    another model than the cache's.
    """
    heads = head_options(
        names(target, "target"),
        tasks=task,
        weights=weights,
        head=head,
        layer=layer,
        pooling=pooling,
        width=width,
        dropout=dropout,
    )
    known = {field.name for field in fields(TrainOptions)}
    for name in options:
        if name not in known:
            raise SpecError(f"option {name}", f"one of {', '.join(sorted(known - {'heads'}))}")
    wanted = TrainOptions(heads, **options)
    run = RunOptions(device, threads, trust_remote_code=trust_remote_code, overwrite=overwrite)
    return run_heads(
        cache,
        wanted,
        run,
        out=out,
        model=model,
        prompts=[prompts] if isinstance(prompts, str) else prompts,
        jobs=jobs,
        executor=executor,
        listener=listener or Silent(),
    )


def run_heads(
    cache: CacheLike,
    options: TrainOptions,
    run: RunOptions,
    *,
    out: str | os.PathLike[str] | None,
    model: str | os.PathLike[str] | None,
    prompts: Sequence[str],
    jobs: int,
    executor: Executor | None,
    listener: Listener,
) -> TrainResult:
    """``train`` of options that are put together already."""
    from probekit.training.plan import plan_training  # here, because they load torch

    started = time.time()
    if out is not None:
        check_can_fill("--out", Path(out), overwrite=run.overwrite)
    with ExitStack() as closing:
        (given,) = closing.enter_context(opened_caches([cache], verify=options.verify))
        source = same_model(given.spec, model) if options.tuned or prompts else None
        caches = [given]
        if prompts and source is not None:
            caches = closing.enter_context(_prompt_caches(given, source, prompts, options, run, listener))
        plans = [plan_training(one, options, name=name) for one, name in zip(caches, cache_names(caches), strict=True)]
        from probekit.training.run import run_training

        found = []
        with (
            _states(out, options, caches, overwrite=run.overwrite) as states,
            nullcontext(executor) if executor else workers(jobs) as pool,
        ):
            for plan, state in zip(plans, states, strict=True):
                found.append(run_training(plan, source, run, state=state, executor=pool, listener=listener))
        best = max(range(len(found)), key=lambda k: found[k].val_score)
        result = TrainResult(*_tables(found), heads=found[best].heads)
        result.record.update(_record(caches, found, options, best, started))
    if out is not None:
        save_heads(result, Path(out), overwrite=run.overwrite)
        shutil.rmtree(Path(out).with_name(Path(out).name + PARTIAL))
    return result


def _tables(found: Sequence[Training]) -> tuple[dict[str, pd.DataFrame], tuple[str, ...]]:
    """The tables of all caches together, and their warnings."""
    import pandas as pd

    heads = pd.concat([one.table for one in found], ignore_index=True)
    classes = pd.concat([one.evaluation.classes for one in found], ignore_index=True)
    texts = [text if len(found) == 1 else f"{one.cache}: {text}" for one in found for text in one.warnings]
    return {"heads": heads, "classes": classes}, tuple(dict.fromkeys(texts))


def _record(
    caches: Sequence[Cache], found: Sequence[Training], options: TrainOptions, best: int, started: float
) -> Json:
    packages = ("probekit-layers", "torch", "transformers", "scikit-learn", "numpy")
    return {
        "versions": {name: version(name) for name in packages},
        "options": options.json(),
        "caches": [
            {"file": cache.path.name, "fingerprint": cache.fingerprint, "spec": cache.spec, **one.record}
            for cache, one in zip(caches, found, strict=True)
        ],
        "kept": caches[best].path.name,
        "seconds": round(time.time() - started, 3),
    }


@contextmanager
def _prompt_caches(
    cache: Cache,
    source: ModelSource,
    prompts: Sequence[str],
    options: TrainOptions,
    run: RunOptions,
    listener: Listener,
) -> Iterator[list[Cache]]:
    """The same texts inside each prompt, beside ``cache``; made where they are not there."""
    from probekit.extraction.job import run_job
    from probekit.extraction.same_texts import prompt_job, prompt_path

    if len(set(prompts)) < len(prompts):
        raise SpecError("--prompt", "different templates, none twice")
    jobs = [prompt_job(cache, source, prompt) for prompt in prompts]
    paths = [prompt_path(cache.path, prompt) for prompt in prompts]
    for job, path in zip(jobs, paths, strict=True):
        run_job(job, path, options=replace(run, overwrite=False), listener=listener).close()
    with opened_caches(paths, verify=options.verify) as opened:
        yield opened


def save_heads(result: TrainResult, folder: Path, *, overwrite: bool = False) -> list[Path]:
    """Write the heads, and beside them in the folder the table ``heads.csv`` and its JSON."""
    from probekit.report import write_table

    if result.heads is None:
        raise SpecError("heads", "trained ones", "none")
    check_can_fill("--out", folder, overwrite=overwrite)
    written = result.heads.save(folder)
    record = {**result.record, "warnings": list(result.warnings)}
    return [*written, *write_table(result.table, record, folder / "heads.csv")]


@contextmanager
def _states(
    out: str | os.PathLike[str] | None, options: TrainOptions, caches: Sequence[Cache], *, overwrite: bool
) -> Iterator[Sequence[Path | None]]:
    """For the training on each cache a folder: what a killed one left, or a new one; None where nothing is kept.

    Where the training ends early before there is anything to go on from, nothing stays.

    Raises SpecError for what another training left.
    """
    if out is None:
        yield [None] * len(caches)
        return
    partial = Path(out).with_name(Path(out).name + PARTIAL)
    if overwrite and partial.is_dir():
        shutil.rmtree(partial)
    folders = [partial / f"cache{k}" for k in range(len(caches))]
    try:
        for folder, cache in zip(folders, caches, strict=True):
            _begin(folder, f"--out {out}, {partial.name}", {"cache": cache.fingerprint, "options": options.json()})
        yield folders
    except BaseException:
        for folder in folders:
            if not _has_state(folder):
                (folder / NOTE).unlink(missing_ok=True)
            for emptied in (folder, partial):
                with suppress(OSError):  # something is in it
                    emptied.rmdir()
        raise


def _begin(folder: Path, source: str, asked: Json) -> None:
    """Note what is ``asked`` in a folder. Raises SpecError where one goes on that was asked something else."""
    mine = hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()
    note = folder / NOTE
    if note.is_file() and _has_state(folder):
        try:
            theirs = json.loads(note.read_text("utf-8"))["sha256"]
        except (OSError, ValueError, KeyError, TypeError):
            theirs = ""
        if theirs != mine:
            message = "holds a training that was broken off, of other options or another cache; --overwrite removes it"
            raise SpecError(source, message)
        return
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(note, json.dumps({"sha256": mine, "asked": asked}, indent=1).encode(), durable=True)


def _has_state(folder: Path) -> bool:
    """Whether there is anything to go on from."""
    return any(folder.glob("*.safetensors"))
