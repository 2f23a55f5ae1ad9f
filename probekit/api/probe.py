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

from probekit.api.shots import shot_table
from probekit.api.transfer import transfer_domains, transfer_table
from probekit.arguments import layer_text, names, whole
from probekit.errors import CacheError, SpecError
from probekit.evaluate.controls import control_names
from probekit.evaluate.names import cache_names
from probekit.evaluate.plan import Asked, ProbeOptions, check_run, prepare
from probekit.evaluate.tagging import Tagging
from probekit.evaluate.transfer import Domain, transfer_warnings
from probekit.evaluate.workers import workers
from probekit.extraction.random_model import random_model_job, run_random_model
from probekit.readspec import check_made
from probekit.spec import ChosenProbe, Evaluation, Json, Listener, Silent
from probekit.store import Cache, open_cache


class ProbekitWarning(UserWarning):
    """Something a careful reader of the table must know."""


@dataclass(frozen=True)
class ProbeRun:
    """The layer table of one or more caches. ``record``: JSON with the provenance and how the rows were divided.

    ``chosen``: the probes of the selected layers, each with the spec of its cache. ``classes``: the selected layers by
    class (precision, recall, F1 and support on the test rows), columns ``CLASS_COLUMNS``. ``shots``, ``transfer``: the
    tables of few-shot curves and of transfer, columns ``SHOT_COLUMNS`` and ``TRANSFER_COLUMNS``, where asked for.
    """

    table: pd.DataFrame
    warnings: tuple[str, ...]
    record: Json
    chosen: tuple[tuple[ChosenProbe, Json], ...]
    classes: pd.DataFrame
    shots: pd.DataFrame | None = None
    transfer: pd.DataFrame | None = None


def probe_layers(
    cache: Cache | str | os.PathLike[str],
    target: str | Sequence[str],
    *,
    layers: str | int | Sequence[int] = "all",
    probe: str | Sequence[str] | None = None,
    pooling: str | Sequence[str] | None = None,
    split: str | float | None = None,
    group: str | None = None,
    task: str | Mapping[str, str] = "auto",
    drop_rare: int = 0,
    seeds: int = 1,
    controls: bool | str | Sequence[str] = False,
    random_cache: Cache | str | os.PathLike[str] | None = None,
    model: str | os.PathLike[str] | None = None,
    subword: str = "mean",
    viterbi: bool = False,
    max_words: int = Tagging.max_words,
    jobs: int = 1,
    verify: bool = True,
) -> pd.DataFrame:
    """Fit a probe on every layer of a cache: the layer table, one row per target x pooling x layer x probe.

    Several names are a list, or one text with commas. ``target``: label columns. ``layers``: "all", numbers, or what
    the command line takes ("0:12:2"). ``probe``: names; by default logistic for classes and
    ridge for numbers. ``split``: the column that says train, dev or test, or the fraction of rows for the test; by
    default the column ``split`` if there is one, else 0.2, stratified. ``group``: a column; no group is on both sides.
    ``task``: "auto", "classification", "regression" or "multilabel", or one for each target, as ``{"stars":
    "regression"}``. Rows without a label are left out. ``drop_rare``: leave out classes with fewer rows, too.
    ``seeds``: how many random splits. ``controls``: True for all, or names, comma-separated, of "shuffled", "length",
    "conditional", "mdl" and "random". ``random_cache``: the same texts read by the same model with random weights, to
    be probed alike; without it the control "random" makes one beside the cache, for which ``model`` says where a local
    model is. ``jobs``: processes. ``verify``: compare what is read of a cache given by its path with its checksums.

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
            drop_rare=whole(drop_rare, "drop_rare"),
            refit=False,  # a table has no probes in it
            verify=verify,
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
    """``probe_layers`` for several caches, with all that is asked for beside the table.

    The names of the caches are in the tables' columns ``cache``, ``trained_on`` and ``tested_on``. All mistakes are
    found before the work begins.
    """
    if random_cache is not None and len(caches) > 1:
        raise SpecError("--random-cache", "is of one cache; probe each of several by itself", f"{len(caches)} caches")
    check_run(targets, options, jobs)
    started = time.time()
    listener = listener or Silent()
    with ExitStack() as closing:
        opened = closing.enter_context(opened_caches(caches, verify=options.verify))
        others = closing.enter_context(opened_caches(options.transfer, verify=options.verify))
        random = closing.enter_context(
            opened_caches([] if random_cache is None else [random_cache], verify=options.verify)
        )
        names = cache_names([*opened, *others])
        given = random[0] if random else None
        asked = [
            prepare(cache, targets, options, name=name, random=given)
            for cache, name in zip(opened, names, strict=False)
        ]
        if random and not any(one.targets for one in asked):
            raise SpecError("--random-cache", "is for targets of whole texts; all have a tag for each word")
        for one in asked:
            one.check(options.shots)
        domains = _domains([*opened, *others], asked, targets, options, names=names) if others else []
        if not random and "random" in control_names(options.controls) and any(one.targets for one in asked):
            work = [random_model_job(cache, models) for cache in opened]
            made = [
                run_random_model(cache, job, threads=jobs, listener=listener)
                for cache, job in zip(opened, work, strict=True)
            ]
            for cache in made:
                cache.close()
            random = closing.enter_context(opened_caches([cache.path for cache in made], verify=options.verify))
            asked = [
                prepare(cache, targets, options, name=name, random=r)
                for cache, name, r in zip(opened, names, random, strict=False)
            ]
        with workers(jobs) as executor:
            shots = transfer = None
            if options.shots is not None:
                shots = shot_table(asked, options.shots, executor=executor, listener=listener)
            if domains:
                transfer = transfer_table(domains, model=opened[0].model, executor=executor, listener=listener)
            done = [
                (cache, evaluation)
                for cache, one in zip(opened, asked, strict=True)
                for evaluation in one.evaluate(executor, listener)
            ]
        table = pd.concat([evaluation.table for _, evaluation in done], ignore_index=True)
        found = _warnings(done, domains, transfer)
        chosen = tuple((probe, cache.spec) for cache, evaluation in done for probe in evaluation.chosen)
        classes = pd.concat([evaluation.classes for _, evaluation in done], ignore_index=True)
        record = _record(done, options, random=dict(zip(opened, random, strict=False)), started=started)
        return ProbeRun(table, found, record, chosen, classes, shots, transfer)


def _domains(
    caches: Sequence[Cache],
    asked: Sequence[Asked],
    targets: Sequence[str],
    options: ProbeOptions,
    *,
    names: Sequence[str],
) -> list[list[Domain]]:
    """What is to be fitted on and tested on: the caches that are probed, which are the first, and the others."""
    more = [
        prepare(cache, targets, options, name=name)
        for cache, name in zip(caches[len(asked) :], names[len(asked) :], strict=True)
    ]
    return transfer_domains(caches, [*asked, *more])


def _warnings(
    done: Sequence[tuple[Cache, Evaluation]], domains: Sequence[Sequence[Domain]], transfer: pd.DataFrame | None
) -> tuple[str, ...]:
    """All warnings once; where there are several caches, with the name of the one that each is of."""
    caches = {evaluation.details["cache"] for _, evaluation in done}
    found = [
        f"{evaluation.details['cache']}: {text}" if len(caches) > 1 else text
        for _, evaluation in done
        for text in evaluation.warnings
    ]
    more = [domain for of_table in domains for domain in of_table if domain.name not in caches]
    found += [f"{domain.name}: {text}" for domain in more for text in domain.target.notes]
    return tuple(dict.fromkeys([*found, *(() if transfer is None else transfer_warnings(transfer))]))


@contextmanager
def opened_caches(caches: Sequence[Cache | str | os.PathLike[str]], *, verify: bool = True) -> Iterator[list[Cache]]:
    """Caches; those given by their path are closed at the end, and with ``verify`` checked as they are read.

    Raises CacheError for one that says too little of how it was made.
    """
    with ExitStack() as closing:
        opened = [
            given if isinstance(given, Cache) else closing.enter_context(open_cache(given, verify=verify))
            for given in caches
        ]
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
            "task": options.task if isinstance(options.task, str) else dict(options.task),
            "seeds": options.seeds,
            "controls": list(control_names(options.controls)),
            "subword": options.subword,
            "viterbi": options.tagging.viterbi,
            "max_words": options.tagging.max_words,
            "drop_rare": options.drop_rare,
            "refit": options.refit,
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
