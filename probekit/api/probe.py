"""Caches to the layer table."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.metadata import version

import pandas as pd

from probekit.api.arguments import layer_text, names, whole
from probekit.api.asking import ProbeOptions, check_run, prepare
from probekit.api.random_model import random_model_cache
from probekit.api.workers import workers
from probekit.controls import control_names
from probekit.errors import CacheError, SpecError
from probekit.evaluate.tagging import Tagging
from probekit.schema import check_made
from probekit.spec import ChosenProbe, Evaluation, Json, Listener, Silent
from probekit.store import Cache, open_cache


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
    target: str | Sequence[str],
    *,
    layers: str | int | Sequence[int] = "all",
    probe: str | Sequence[str] | None = None,
    pooling: str | Sequence[str] | None = None,
    split: str | float | None = None,
    group: str | None = None,
    task: str = "auto",
    seeds: int = 1,
    controls: bool | str | Sequence[str] = False,
    random_cache: Cache | str | os.PathLike[str] | None = None,
    model: str | os.PathLike[str] | None = None,
    subword: str = "mean",
    viterbi: bool = False,
    max_words: int = Tagging.max_words,
    jobs: int = 1,
) -> pd.DataFrame:
    """Fit a probe on every layer of a cache: the layer table, one row per target x pooling x layer x probe.

    Several names are a list, or one text with commas. ``target``: label columns. ``layers``: "all", numbers, or what
    the command line takes ("0:12:2"). ``probe``: names; by default logistic for classes and
    ridge for numbers. ``split``: the column that says train, dev or test, or the fraction of rows for the test; by
    default the column ``split`` if there is one, else 0.2, stratified. ``group``: a column; no group is on both sides.
    ``task``: "auto", "classification" or "regression". ``seeds``: how many random splits. ``controls``: True for all,
    or names, comma-separated, of "shuffled", "length", "conditional", "mdl" and "random". ``random_cache``: the same
    texts read by the same model with random weights, to be probed alike; without it the control "random" makes one
    beside the cache, for which ``model`` says where a local model is. ``jobs``: processes.

    Where the data came as words, a column of lists is a tag for each word (named entities, parts of speech), and the
    cache must have token states. ``subword``: "mean", "first" or "last" of a word's tokens. ``viterbi``: decode whole
    sentences under IOB2's rule. ``max_words``: fit on so many words at most, of sentences drawn at random.

    Hyper-parameters are chosen on the training rows, the best layer (``selected``) on the validation rows; ``score``
    is of the test rows. What a careful reader must know comes as a ``ProbekitWarning``.

    Raises SpecError for an option that can't be, InputError for labels, groups or splits that can't be used.
    """
    run = run_probes(
        [cache],
        names(target, "target"),
        options=ProbeOptions(
            layers=layer_text(layers),
            probes=names(probe, "probe"),
            poolings=names(pooling, "pooling"),
            split=split,
            group=group,
            task=task,
            seeds=whole(seeds, "seeds"),
            controls=controls if isinstance(controls, bool | str) else ",".join(names(controls, "controls")),
            subword=subword,
            tagging=Tagging(viterbi, whole(max_words, "max_words")),
        ),
        random_cache=random_cache,
        models=() if model is None else (model,),
        jobs=whole(jobs, "jobs"),
    )
    for text in run.warnings:
        warnings.warn(text, ProbekitWarning, stacklevel=2)
    return run.table


def run_probes(
    caches: Sequence[Cache | str | os.PathLike[str]],
    targets: Sequence[str],
    *,
    options: ProbeOptions,
    random_cache: Cache | str | os.PathLike[str] | None = None,
    models: Sequence[str | os.PathLike[str]] = (),
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
        for one in asked:
            one.check()
        if not random and "random" in control_names(options.controls) and any(one.targets for one in asked):
            made = [random_model_cache(cache, models=models, threads=jobs, listener=listener) for cache in opened]
            random = [closing.enter_context(cache) for cache in made]
            asked = [prepare(cache, targets, options, random=r) for cache, r in zip(opened, random, strict=True)]
        with workers(jobs) as executor:
            done = [
                (cache, evaluation)
                for cache, one in zip(opened, asked, strict=True)
                for evaluation in one.evaluate(executor, listener)
            ]
        table = pd.concat([evaluation.table for _, evaluation in done], ignore_index=True)
        found = tuple(dict.fromkeys(text for _, evaluation in done for text in evaluation.warnings))
        chosen = tuple((probe, cache.spec) for cache, evaluation in done for probe in evaluation.chosen)
        classes = pd.concat([evaluation.classes for _, evaluation in done], ignore_index=True)
        record = _record(done, options, random=dict(zip(opened, random, strict=False)), started=started)
        return ProbeRun(table, found, record, chosen, classes)


@contextmanager
def opened_caches(caches: Sequence[Cache | str | os.PathLike[str]]) -> Iterator[list[Cache]]:
    """Caches; those given by their path are closed at the end. Raises CacheError for one that says too little."""
    with ExitStack() as closing:
        opened = [given if isinstance(given, Cache) else closing.enter_context(open_cache(given)) for given in caches]
        for cache in opened:
            check_made(cache.spec, f"{cache.path}, spec", error=CacheError)
        yield opened


def _record(
    done: Sequence[tuple[Cache, Evaluation]], options: ProbeOptions, *, random: Mapping[Cache, Cache], started: float
) -> Json:
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
            "subword": options.subword,
            "viterbi": options.tagging.viterbi,
            "max_words": options.tagging.max_words,
        },
        "caches": [
            {
                "file": cache.path.name,
                "fingerprint": cache.fingerprint,
                "spec": cache.spec,
                "provenance": cache.provenance,
                **evaluation.details,
                **_random_part(random.get(cache)),
            }
            for cache, evaluation in done
        ],
        "seconds": round(time.time() - started, 3),
    }


def _random_part(random: Cache | None) -> Json:
    return {} if random is None else {"random_cache": {"file": random.path.name, "fingerprint": random.fingerprint}}
