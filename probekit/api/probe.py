"""Caches to the layer table."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from typing import Any

import numpy as np
import pandas as pd
from joblib.externals.loky import ProcessPoolExecutor

from probekit.api.random_model import random_model_cache
from probekit.controls import control_names
from probekit.errors import SpecError
from probekit.evaluate import Origin, Question, StateSource, evaluate, plan_fits
from probekit.models.layers import parse_layers
from probekit.spec import ChosenProbe, Evaluation, Json, Listener, Silent
from probekit.splits import DEFAULT_FRACTION, Column, read_target
from probekit.store import Cache, open_cache

SPLIT_COLUMN = "split"
"""An input column of this name is used as the split where none is asked for."""


class ProbekitWarning(UserWarning):
    """Something a careful reader of the table must know."""


@dataclass(frozen=True)
class ProbeRun:
    """The layer table of one or more caches. ``record``: JSON with the provenance and how the rows were divided.

    ``chosen``: the probes of the selected layers, each with the spec of its cache. ``classes``: the selected layers by
    class (precision, recall, F1 and support on the test rows), columns ``CLASS_COLUMNS``.
    """

    table: pd.DataFrame
    warnings: tuple[str, ...]
    record: Json
    chosen: tuple[tuple[ChosenProbe, Json], ...]
    classes: pd.DataFrame


def probe_layers(
    cache: Cache | str | os.PathLike[str],
    target: str,
    *,
    layers: str = "all",
    probe: str | None = None,
    pooling: str | None = None,
    split: str | float | None = None,
    group: str | None = None,
    task: str = "auto",
    seeds: int = 1,
    controls: bool | str = False,
    random_cache: Cache | str | os.PathLike[str] | None = None,
    model: str | os.PathLike[str] | None = None,
    jobs: int = 1,
) -> pd.DataFrame:
    """Fit a probe on every layer of a cache: the layer table, one row per target x pooling x layer x probe.

    ``target``: label columns, comma-separated. ``probe``: names, comma-separated; by default logistic for classes and
    ridge for numbers. ``split``: the column that says train, dev or test, or the fraction of rows for the test; by
    default the column ``split`` if there is one, else 0.2, stratified. ``group``: a column; no group is on both sides.
    ``task``: "auto", "classification" or "regression". ``seeds``: how many random splits. ``controls``: True for all,
    or names, comma-separated, of "shuffled", "length", "conditional", "mdl" and "random". ``random_cache``: the same
    texts read by the same model with random weights, to be probed alike; without it the control "random" makes one
    beside the cache, for which ``model`` says where a local model is. ``jobs``: processes.

    Hyper-parameters are chosen on the training rows, the best layer (``selected``) on the validation rows; ``score``
    is of the test rows. What a careful reader must know comes as a ``ProbekitWarning``.

    Raises SpecError for an option that can't be, InputError for labels, groups or splits that can't be used.
    """
    run = run_probes(
        [cache],
        target.split(","),
        options=ProbeOptions(
            layers=layers,
            probes=tuple(probe.split(",")) if probe else (),
            poolings=tuple(pooling.split(",")) if pooling else (),
            split=split,
            group=group,
            task=task,
            seeds=seeds,
            controls=controls,
        ),
        random_cache=random_cache,
        model=model,
        jobs=jobs,
    )
    for text in run.warnings:
        warnings.warn(text, ProbekitWarning, stacklevel=2)
    return run.table


@dataclass(frozen=True)
class ProbeOptions:
    """The arguments of ``probe_layers``, parsed; empty ``probes`` and ``poolings``: logistic or ridge, and all."""

    layers: str = "all"
    probes: tuple[str, ...] = ()
    poolings: tuple[str, ...] = ()
    split: str | float | None = None
    group: str | None = None
    task: str = "auto"
    seeds: int = 1
    controls: bool | str = False


def run_probes(
    caches: Sequence[Cache | str | os.PathLike[str]],
    targets: Sequence[str],
    *,
    options: ProbeOptions,
    random_cache: Cache | str | os.PathLike[str] | None = None,
    model: str | os.PathLike[str] | None = None,
    jobs: int = 1,
    listener: Listener | None = None,
) -> ProbeRun:
    """``probe_layers`` for several caches, giving the warnings and the record as well as the table."""
    if random_cache is not None and len(caches) > 1:
        raise SpecError("--random-cache", "is of one cache; probe each of several by itself", f"{len(caches)} caches")
    check_run(targets, options, jobs)
    started = time.time()
    listener = listener or Silent()
    with ExitStack() as closing:
        opened = closing.enter_context(opened_caches(caches))
        random = closing.enter_context(opened_caches([] if random_cache is None else [random_cache]))
        # All mistakes are found before the work begins.
        asked = [prepare(cache, targets, options, random=random[0] if random else None) for cache in opened]
        for _, read, question in asked:
            for target in read:
                plan_fits(target, question)
        if not random and "random" in control_names(options.controls):
            made = [random_model_cache(cache, model=model, threads=jobs, listener=listener) for cache in opened]
            random = [closing.enter_context(cache) for cache in made]
            asked = [prepare(cache, targets, options, random=r) for cache, r in zip(opened, random, strict=True)]
        with workers(jobs) as executor:
            done = [
                evaluate(sources, read, question, origin=origin_of(cache), executor=executor, listener=listener)
                for cache, (sources, read, question) in zip(opened, asked, strict=True)
            ]
        table = pd.concat([evaluation.table for evaluation in done], ignore_index=True)
        found = tuple(dict.fromkeys(text for evaluation in done for text in evaluation.warnings))
        chosen = tuple((c, cache.spec) for cache, part in zip(opened, done, strict=True) for c in part.chosen)
        classes = pd.concat([evaluation.classes for evaluation in done], ignore_index=True)
        record = _record(opened, done, options, started=started)
        for part, cache in zip(record["caches"], random, strict=False):
            part["random_cache"] = {"file": cache.path.name, "fingerprint": cache.fingerprint}
        return ProbeRun(table, found, record, chosen, classes)


def check_run(targets: Sequence[str], options: ProbeOptions, jobs: int) -> None:
    """Raise SpecError for what no cache can make right."""
    if options.seeds < 1:
        raise SpecError(f"--seeds {options.seeds}", "at least 1")
    if jobs < 1:
        raise SpecError(f"--jobs {jobs}", "at least 1")
    if len(set(targets)) < len(targets) or not all(targets):
        raise SpecError("--target", "column names, comma-separated, none twice", ",".join(targets))


@contextmanager
def opened_caches(caches: Sequence[Cache | str | os.PathLike[str]]) -> Iterator[list[Cache]]:
    """Caches; those given by their path are closed at the end."""
    with ExitStack() as closing:
        yield [given if isinstance(given, Cache) else closing.enter_context(open_cache(given)) for given in caches]


def prepare(
    cache: Cache, targets: Sequence[str], options: ProbeOptions, *, random: Cache | None = None
) -> tuple[list[StateSource], list[Any], Question]:
    """What ``evaluate`` takes: the states, the targets and the question. Raises for every mistake in the options."""
    for pooling in options.poolings:
        if pooling not in cache.poolings:
            raise SpecError(f"--pooling {pooling}", f"the cache {cache.path.name} has {', '.join(cache.poolings)}")
    layers = _layers(cache, options.layers)
    poolings = options.poolings or cache.poolings
    if random is not None:
        _check_random(random, cache, layers, poolings)
    sources = [
        StateSource(
            pooling,
            layers,
            cache.final_norm,
            partial(cache.layer, pooling=pooling),
            read_random=None if random is None else partial(random.layer, pooling=pooling),
        )
        for pooling in poolings
    ]
    split, fraction = _split(cache, options.split)
    question = Question(
        ids=cache.ids,
        texts=cache.texts if cache.spec.get("store_text") else None,
        probes=options.probes,
        groups=None if options.group is None else _column(cache, options.group, "--group"),
        split=split,
        fraction=fraction,
        seeds=tuple(range(options.seeds)),
        controls=control_names(options.controls),
        n_tokens=cache.n_tokens,
    )
    read = [
        read_target(_column(cache, name, "--target").values, name, ids=cache.ids, task=options.task) for name in targets
    ]
    return sources, read, question


def _check_random(random: Cache, cache: Cache, layers: tuple[int, ...], poolings: tuple[str, ...]) -> None:
    """Raise SpecError unless ``random`` holds the same texts, layers and poolings, of the same model's random form."""
    option = f"--random-cache {random.path.name}"
    if random.spec.get("random_seed") is None:
        raise SpecError(option, "must be extracted with --random-seed", "the model's own weights")
    for field in ("model", "texts", "n_layers"):
        if random.spec[field] != cache.spec[field]:
            raise SpecError(
                option, f"must have the {field} of {cache.path.name}: {cache.spec[field]}", str(random.spec[field])
            )
    if not np.array_equal(random.ids, cache.ids):
        raise SpecError(option, f"must have the rows of {cache.path.name} in the same order")
    if not set(layers) <= set(random.layers) or not set(poolings) <= set(random.poolings):
        shown = f"layers {', '.join(map(str, random.layers))}; {', '.join(random.poolings)} pooling"
        raise SpecError(option, "must have the layers and poolings that are probed", shown)


def _layers(cache: Cache, asked: str) -> tuple[int, ...]:
    if asked.strip() == "all":
        return cache.layers
    layers = parse_layers(asked, int(cache.spec["n_layers"]))
    missing = [layer for layer in layers if layer not in cache.layers]
    if missing:
        shown = ", ".join(map(str, cache.layers))
        raise SpecError(f"--layers {asked}", f"this cache has layers {shown}", ", ".join(map(str, missing)))
    return layers


def _split(cache: Cache, asked: str | float | None) -> tuple[Column | None, float]:
    """The split column, or none and the fraction."""
    if asked is None:
        return (_column(cache, SPLIT_COLUMN, "--split") if SPLIT_COLUMN in cache.columns else None), DEFAULT_FRACTION
    if isinstance(asked, str) and asked in cache.columns:
        return _column(cache, asked, "--split"), DEFAULT_FRACTION
    try:
        return None, float(asked)
    except ValueError:
        return _column(cache, str(asked), "--split"), DEFAULT_FRACTION  # says which columns there are


def _column(cache: Cache, name: str, option: str) -> Column:
    try:
        return Column(name, cache.column(name))
    except SpecError as error:
        raise SpecError(f"{option} {name}", error.allowed, error.got) from error


def origin_of(cache: Cache) -> Origin:
    """The cache's part of every row."""
    return Origin(
        model=cache.model,
        revision=cache.revision,
        dataset=str(cache.provenance.get("dataset", "")),
        n_layers=int(cache.spec["n_layers"]),
        n_truncated=int(np.count_nonzero(cache.truncated)),
    )


@contextmanager
def workers(jobs: int) -> Iterator[Executor | None]:
    """Processes that fit layers; none for a single job. (joblib's kind: needs no ``__main__`` guard in user code.)"""
    if jobs == 1:
        yield None
        return
    executor = ProcessPoolExecutor(max_workers=jobs)
    try:
        yield executor
    except BaseException:
        executor.shutdown(wait=False, kill_workers=True)
        raise
    executor.shutdown(wait=True)


def _record(caches: Sequence[Cache], done: Sequence[Evaluation], options: ProbeOptions, *, started: float) -> Json:
    names = ("probekit-layers", "scikit-learn", "numpy", "scipy", "pandas")
    return {
        "versions": {name: version(name) for name in names},
        "options": {
            "layers": options.layers,
            "probes": list(options.probes),
            "poolings": list(options.poolings),
            "split": options.split,
            "group": options.group,
            "task": options.task,
            "seeds": options.seeds,
            "controls": list(control_names(options.controls)),
        },
        "caches": [
            {
                "file": cache.path.name,
                "fingerprint": cache.fingerprint,
                "spec": cache.spec,
                "provenance": cache.provenance,
                **evaluation.details,
            }
            for cache, evaluation in zip(caches, done, strict=True)
        ],
        "seconds": round(time.time() - started, 3),
    }
