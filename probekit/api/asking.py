"""What is asked of a cache, in the terms of ``evaluate``: every mistake is found here, before the work."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from probekit.api.arguments import check_counts
from probekit.api.words import cache_tags, has_tags, word_source
from probekit.controls import control_names
from probekit.errors import SpecError
from probekit.evaluate import Origin, Question, StateSource, evaluate, plan_fits
from probekit.evaluate.tagging import Tagging, Tags, WordSource, evaluate_tags, plan_tag_fits
from probekit.models.layers import parse_layers
from probekit.spec import Evaluation, Listener
from probekit.splits import DEFAULT_FRACTION, Column, Target, read_target
from probekit.store import Cache

SPLIT_COLUMN = "split"
"""An input column of this name is used as the split where none is asked for."""


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
    subword: str = "mean"
    tagging: Tagging = field(default_factory=Tagging)


@dataclass(frozen=True)
class Asked:
    """The states of one cache and what is asked of them: ``targets`` of whole texts, ``tags`` of words."""

    sources: list[StateSource]
    targets: list[Target]
    question: Question
    tags: list[Tags]
    words: WordSource | None
    tagging: Tagging
    origin: Origin

    def check(self) -> None:
        """Raise what ``evaluate`` would raise for probes, groups and splits that can't be used."""
        for target in self.targets:
            plan_fits(target, self.question)
        if self.words is not None:
            for tags in self.tags:
                plan_tag_fits(self.words, tags, self.question, self.tagging)

    def evaluate(self, executor: Executor | None, listener: Listener) -> Iterator[Evaluation]:
        """Fit and score: the targets of texts together, then those of words."""
        if self.targets:
            yield evaluate(
                self.sources,
                self.targets,
                self.question,
                origin=self.origin,
                executor=executor,
                listener=listener,
            )
        if self.words is not None:
            yield evaluate_tags(
                self.words,
                self.tags,
                self.question,
                tagging=self.tagging,
                origin=self.origin,
                executor=executor,
                listener=listener,
            )


def check_run(targets: Sequence[str], options: ProbeOptions, jobs: int) -> None:
    """Raise SpecError for what no cache can make right."""
    check_counts(targets, options.seeds, jobs)


def prepare(cache: Cache, targets: Sequence[str], options: ProbeOptions, *, random: Cache | None = None) -> Asked:
    """The states, the targets and the question. Raises for every mistake in the options, ``targets`` and ``random``."""
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
    columns = [_column(cache, name, "--target") for name in targets]
    of_words = [column.name for column in columns if has_tags(cache, column.name, options.task)]
    _check_of_words(options, all_texts=not of_words, all_words=len(of_words) == len(columns))
    return Asked(
        sources=sources,
        targets=[
            read_target(column.values, column.name, ids=cache.ids, task=options.task)
            for column in columns
            if column.name not in of_words
        ],
        question=question,
        tags=[cache_tags(cache, name) for name in of_words],
        words=word_source(cache, layers, options.subword) if of_words else None,
        tagging=options.tagging,
        origin=origin_of(cache),
    )


def _check_of_words(options: ProbeOptions, *, all_texts: bool, all_words: bool) -> None:
    """Raise SpecError for an option that would do nothing."""
    if all_texts and (options.tagging.viterbi or options.subword != "mean"):
        option = "--viterbi" if options.tagging.viterbi else f"--subword {options.subword}"
        raise SpecError(option, "is for tags of words; the targets are of whole texts")
    if all_words and isinstance(options.controls, str):
        message = "is for targets of whole texts; tags of words always have their own control task"
        raise SpecError(f"--control {options.controls}", message)


def prepare_texts(cache: Cache, targets: Sequence[str], options: ProbeOptions, what: str) -> Asked:
    """The same for ``what`` is of whole texts only. Raises SpecError for tags of words."""
    for name in targets:
        if has_tags(cache, name, options.task):
            raise SpecError(f"--target {name}", f"{what} are of whole texts; this column has a tag for each word")
    return prepare(cache, targets, options)


def _check_random(random: Cache, cache: Cache, layers: tuple[int, ...], poolings: tuple[str, ...]) -> None:
    """Raise SpecError unless ``random`` holds the same texts, layers and poolings, of the same model's random form."""
    option = f"--random-cache {random.path.name}"
    if random.spec.get("random_seed") is None:
        raise SpecError(option, "must be extracted with --random-seed", "the model's own weights")
    for name in ("model", "texts", "n_layers"):
        if random.spec[name] != cache.spec[name]:
            raise SpecError(
                option, f"must have the {name} of {cache.path.name}: {cache.spec[name]}", str(random.spec[name])
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
        model=_utf8(cache.model),
        revision=cache.revision,
        dataset=_utf8(str(cache.provenance.get("dataset", ""))),
        n_layers=int(cache.spec["n_layers"]),
        n_truncated=int(np.count_nonzero(cache.truncated)),
    )


def _utf8(name: str) -> str:
    """A name of a file or folder that is no UTF-8 has its bytes as escapes, for pandas takes no other."""
    return name.encode("utf-8", "backslashreplace").decode()
