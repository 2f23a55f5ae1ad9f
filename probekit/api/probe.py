"""Caches to the layer table, few-shot curves and transfer."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import fields
from functools import partial
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from probekit.arguments import check_counts, names, whole
from probekit.errors import CacheError, SpecError
from probekit.evaluate.config import MAX_WORDS
from probekit.evaluate.executor import workers
from probekit.evaluate.few_shot import MTEB, PROTOCOLS, Shots, few_shots
from probekit.evaluate.names import cache_names
from probekit.evaluate.plan import ProbeOptions, ProbePlan, plan_domains, prepare, task_of
from probekit.evaluate.transfer import Domain, transfer_warnings
from probekit.evaluate.transfer import transfer as fit_transfer
from probekit.readspec import check_made
from probekit.spec import Evaluation, Json, Listener, Result, Silent
from probekit.store import Cache, open_cache

if TYPE_CHECKING:
    import pandas as pd

CacheLike = Cache | str | os.PathLike[str]


class ProbekitWarning(UserWarning):
    """Something a careful reader of the table must know."""


def probe(
    caches: CacheLike | Sequence[CacheLike],
    target: str | Sequence[str],
    *,
    layers: str | int | Sequence[int] = "all",
    probe: Any = None,
    pooling: str | Sequence[str] | None = None,
    split: str | float | None = None,
    group: str | None = None,
    task: str | Mapping[str, str] = "auto",
    drop_rare: int = 0,
    seeds: int = 1,
    controls: bool | str | Sequence[str] = False,
    random_cache: CacheLike | None = None,
    model: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | None = None,
    subword: str = "mean",
    viterbi: bool = False,
    max_words: int = MAX_WORDS,
    refit: bool = True,
    jobs: int = 1,
    executor: Executor | None = None,
    verify: bool = True,
    listener: Listener | None = None,
) -> Result:
    """Fit a probe on every layer of one or more caches: a row per cache x target x pooling x layer x probe.

    Several names are a list, or one text with commas. ``target``: label columns. ``layers``: "all", numbers, or what
    the command line takes ("0:12:2"). ``probe``: names, or scikit-learn estimators of your own (any with ``fit`` and
    ``predict``; they are cloned); by default logistic for classes and ridge for numbers. ``split``: the column that
    says train, dev or test, or the fraction of rows for the test; by default the column ``split`` if there is one, else
    0.2, stratified. ``group``: a column; no group is on both sides. ``task``: "auto", "classification", "regression" or
    "multilabel", or one for each target, as ``{"stars": "regression"}``. Rows without a label are left out.
    ``drop_rare``: leave out classes with fewer rows, too. ``seeds``: how many random splits. ``controls``: True for
    all, or names of "shuffled", "length", "conditional", "mdl" and "random". ``random_cache``: the same texts read by
    the same model with random weights, to be probed alike; without it the control "random" makes one beside the cache,
    for which ``model`` says where a local model is.

    Where the data came as words, a column of lists is a tag for each word (named entities, parts of speech), and the
    cache must have token states. ``subword``: "mean", "first" or "last" of a word's tokens. ``viterbi``: decode whole
    sentences under IOB2's rule. ``max_words``: fit on so many words at most, of sentences drawn at random.

    ``refit``: fit the selected layers' probes, which ``save`` keeps, once more on training and validation rows.
    ``jobs``: processes; or ``executor``: any of ``concurrent.futures``, which stays open. ``verify``: compare what is
    read of a cache given by its path with its checksums.

    Hyper-parameters are chosen on the training rows, the best layer (``selected``) on the validation rows; ``score``
    is of the test rows. The result has the tables "layers" and "classes".

    Raises SpecError for an option that can't be, InputError for labels, groups or splits that can't be used.
    """
    asked = locals()
    options = ProbeOptions(**{field.name: asked[field.name] for field in fields(ProbeOptions) if field.name in asked})
    models = [] if model is None else [model] if isinstance(model, str | os.PathLike) else model
    return run_probes(
        caches,
        target,
        options=options,
        random_cache=random_cache,
        models=models,
        jobs=jobs,
        executor=executor,
        listener=listener,
    )


def probe_layers(cache: CacheLike, target: str | Sequence[str], **options: Any) -> pd.DataFrame:
    """The layer table of ``probe`` alone, with the same options; what a careful reader must know is warned of.

    Every sentence of the result's ``warnings`` comes as a ``ProbekitWarning``.
    """
    run = probe([cache], target, **{"refit": False, **options})  # a table has no probes in it
    for text in run.warnings:
        warnings.warn(text, ProbekitWarning, stacklevel=2)
    return run.table


def few_shot(
    caches: CacheLike | Sequence[CacheLike],
    target: str | Sequence[str],
    *,
    shots: int | Sequence[int] = (1, 2, 4, 8, 16, 32),
    draws: int = 10,
    protocol: str = "probekit",
    jobs: int = 1,
    executor: Executor | None = None,
    listener: Listener | None = None,
    **options: Any,
) -> Result:
    """Few-shot curves of every layer: a probe learns from k training rows of each class and is scored on the test rows.

    ``shots``: all k; for numbers k rows in all, and where texts have several labels k rows with each. ``draws``: how
    often they are drawn. The probe is logistic regression with C = 1 or ridge with alpha = d_model on standardised
    states (so few rows can't choose), or an estimator of your own (``probe=make_pipeline(...)``). ``protocol="mteb"``:
    what MTEB's classification protocol says (Muennighoff et al. 2023): 8 rows of each class, 10 draws, states of length
    1, no scaler. ``options``: ``layers``, ``pooling``, ``split``, ``group``, ``task``, ``drop_rare``, ``seeds`` and
    ``verify``, as for ``probe``.

    The result's table "shots" has a row per cache x target x pooling x layer x k, columns ``SHOT_COLUMNS``. Raises as
    ``probe``; SpecError for tags of words.
    """
    if protocol not in PROTOCOLS:
        raise SpecError(f"protocol {protocol}", f"one of {', '.join(PROTOCOLS)}")
    given = [shots] if isinstance(shots, int) else list(shots)
    drawn = MTEB if protocol == "mteb" else Shots(tuple(sorted({whole(k, "shots") for k in given})), draws, protocol)
    wanted = ProbeOptions(**options, shots=drawn)
    return run_probes(caches, target, options=wanted, layers=False, jobs=jobs, executor=executor, listener=listener)


def transfer(
    caches: Sequence[CacheLike],
    target: str | Sequence[str],
    *,
    jobs: int = 1,
    executor: Executor | None = None,
    listener: Listener | None = None,
    **options: Any,
) -> Result:
    """Fit on each cache's training rows and test on the test rows of all of them, at every layer.

    ``caches``: of one model, with the same layers and poolings. ``options``: ``layers``, ``probe``, ``pooling``,
    ``split``, ``group``, ``task``, ``drop_rare``, ``seeds`` and ``verify``, as for ``probe``.

    The result's table "transfer" has a row per probe x pair x layer, columns ``TRANSFER_COLUMNS``. Raises as ``probe``;
    SpecError for caches whose states don't mean the same and for tags of words.
    """
    first, *others = _several(caches)
    if not others:
        raise SpecError("transfer", "two caches or more", "one")
    wanted = ProbeOptions(**options, transfer=tuple(others))
    return run_probes(first, target, options=wanted, layers=False, jobs=jobs, executor=executor, listener=listener)


def run_probes(
    caches: CacheLike | Sequence[CacheLike],
    target: str | Sequence[str],
    *,
    options: ProbeOptions,
    layers: bool = True,
    random_cache: CacheLike | None = None,
    models: Sequence[str | os.PathLike[str]] = (),
    jobs: int = 1,
    executor: Executor | None = None,
    listener: Listener | None = None,
) -> Result:
    """Everything that is asked of caches: with ``layers`` the layer table, and what ``options`` say beside it.

    The names of the caches are in the tables' columns ``cache``, ``trained_on`` and ``tested_on``. All mistakes are
    found before the work begins. ``executor``: where layers are fitted; else ``jobs`` processes are started for it.
    """
    paths, targets, jobs = _several(caches), names(target, "target"), whole(jobs, "jobs")
    if random_cache is not None and len(paths) > 1:
        raise SpecError("--random-cache", "is of one cache; probe each of several by itself", f"{len(paths)} caches")
    check_counts(targets, options.seeds, jobs)
    task_of(options.task, targets)
    started = time.time()
    listener = listener or Silent()
    with ExitStack() as closing:
        opened, others, random = (
            closing.enter_context(opened_caches(given, verify=options.verify))
            for given in (paths, options.transfer, [] if random_cache is None else [random_cache])
        )
        called = cache_names([*opened, *others])
        plan = partial(prepare, targets=targets, options=options)
        plans = [
            plan(cache, name=name, random=next(iter(random), None)) for cache, name in zip(opened, called, strict=False)
        ]
        if random and not any(one.targets for one in plans):
            raise SpecError("--random-cache", "is for targets of whole texts; all have a tag for each word")
        for one in plans:
            one.check(options.shots, layers=layers)
        more = [plan(cache, name=name) for cache, name in zip(others, called[len(opened) :], strict=True)]
        domains = plan_domains([*opened, *others], [*plans, *more]) if more else []
        if layers and not random and "random" in options.controls and any(one.targets for one in plans):
            random = closing.enter_context(
                _random_caches(opened, models, verify=options.verify, threads=jobs, listener=listener)
            )
            plans = [plan(c, name=name, random=r) for c, name, r in zip(opened, called, random, strict=False)]
        tables: dict[str, pd.DataFrame] = {}
        done: list[tuple[Cache, Evaluation]] = []
        with nullcontext(executor) if executor else workers(jobs) as pool:
            if options.shots is not None:
                tables["shots"] = _few_shots(plans, options.shots, pool, listener)
            if domains:
                tables["transfer"] = _transfer(domains, opened[0].model, pool, listener)
            if layers:
                pairs = zip(opened, plans, strict=True)
                done = [(cache, found) for cache, one in pairs for found in one.evaluate(pool, listener)]
                import pandas as pd

                of_layers = pd.concat([found.table for _, found in done], ignore_index=True)
                classes = pd.concat([found.classes for _, found in done], ignore_index=True)
                tables = {"layers": of_layers, "classes": classes, **tables}
        return Result(
            tables=tables,
            warnings=_warnings(done, plans, domains, tables.get("transfer")),
            record=_record(opened, done, options, random=dict(zip(opened, random, strict=False)), started=started),
            chosen=tuple((chosen, cache.spec) for cache, found in done for chosen in found.chosen),
        )


def _several(caches: CacheLike | Sequence[CacheLike]) -> list[CacheLike]:
    return [caches] if isinstance(caches, Cache | str | os.PathLike) else list(caches)


@contextmanager
def _random_caches(
    caches: Sequence[Cache],
    models: Sequence[str | os.PathLike[str]],
    *,
    verify: bool,
    threads: int,
    listener: Listener,
) -> Iterator[list[Cache]]:
    """For each of ``caches`` that of its model with random weights, made where it is not there."""
    from probekit.extraction.random_model import random_model_job, run_random_model

    jobs = [random_model_job(cache, models) for cache in caches]
    paths = []
    for cache, job in zip(caches, jobs, strict=True):
        with run_random_model(cache, job, threads=threads, listener=listener) as made:
            paths.append(made.path)
    with opened_caches(paths, verify=verify) as random:
        yield random


def _few_shots(plans: Sequence[ProbePlan], shots: Shots, executor: Executor | None, listener: Listener) -> pd.DataFrame:
    import pandas as pd

    draw = partial(few_shots, shots=shots, executor=executor, listener=listener)
    found = [draw(one.pooled, one.targets, one.config, origin=one.origin) for one in plans]
    return pd.concat(found, ignore_index=True)


def _transfer(
    domains: Sequence[Sequence[Domain]], model: str, executor: Executor | None, listener: Listener
) -> pd.DataFrame:
    import pandas as pd

    found = [fit_transfer(one, model=model, executor=executor, listener=listener) for one in domains]
    return pd.concat(found, ignore_index=True)


def _warnings(
    done: Sequence[tuple[Cache, Evaluation]],
    plans: Sequence[ProbePlan],
    domains: Sequence[Sequence[Domain]],
    transferred: pd.DataFrame | None,
) -> tuple[str, ...]:
    """All warnings once; where there are several caches, with the name of the one that each is of."""
    several = len(plans) > 1
    found = [(found.details["cache"], text) for _, found in done for text in found.warnings]
    if not done:
        found += [(plan.origin.cache, text) for plan in plans for target in plan.targets for text in target.notes]
    named = [f"{cache}: {text}" if several else text for cache, text in found]
    known = {plan.origin.cache for plan in plans}
    more = [domain for of_table in domains for domain in of_table if domain.name not in known]
    named += [f"{domain.name}: {text}" for domain in more for text in domain.target.notes]
    return tuple(dict.fromkeys([*named, *(() if transferred is None else transfer_warnings(transferred))]))


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
    caches: Sequence[Cache],
    done: Sequence[tuple[Cache, Evaluation]],
    options: ProbeOptions,
    *,
    random: Mapping[Cache, Cache],
    started: float,
) -> Json:
    packages = ("probekit-layers", "scikit-learn", "numpy", "scipy", "pandas")
    return {
        "versions": {name: version(name) for name in packages},
        "options": options.json(),
        "caches": [
            {
                "file": cache.path.name,
                "fingerprint": cache.fingerprint,
                "spec": cache.spec,
                "provenance": cache.provenance,
                **details,
                **_random_part(random.get(cache)),
            }
            for cache, details in [(cache, found.details) for cache, found in done] or [(cache, {}) for cache in caches]
        ],
        "seconds": round(time.time() - started, 3),
    }


def _random_part(random: Cache | None) -> Json:
    return {} if random is None else {"random_cache": {"file": random.path.name, "fingerprint": random.fingerprint}}
