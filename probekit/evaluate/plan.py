"""What is asked of a cache, in the terms of ``evaluate``: every mistake is found here, before the work."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from probekit.arguments import check_counts
from probekit.errors import SpecError
from probekit.evaluate import Origin, Question, Shots, StateSource, evaluate, plan_fits, plan_shots
from probekit.evaluate.controls import control_names
from probekit.evaluate.fit import has_code
from probekit.evaluate.tagging import Tagging, WordSource, evaluate_tags, plan_tag_fits
from probekit.evaluate.words import cache_tags, has_tags, word_source
from probekit.layers import parse_layers
from probekit.spec import Evaluation, Listener
from probekit.splits import DEFAULT_FRACTION, Column
from probekit.store import Cache
from probekit.tasks import KINDS, Target, read_target
from probekit.tasks.tags import Tags

MAY_DIFFER = (
    *("format_version", "revision", "random_seed", "layers", "poolings", "columns", "words"),
    *("store_dtype", "store_text", "tokens", "device", "dtype", "batching", "batch_tokens"),
)
"""Fields of its spec in which a random model's cache may differ; all others say what is read, and how."""

SPLIT_COLUMN = "split"
"""An input column of this name is used as the split where none is asked for."""


@dataclass(frozen=True)
class ProbeOptions:
    """The arguments of ``probe_layers``, parsed, and what is asked for beside the layer table.

    Empty ``probes`` and ``poolings``: logistic or ridge, and all. ``task``: of all targets, or by target (as a mapping,
    or as text: ``"stars=regression,label=classification"``). ``drop_rare``: leave out classes with fewer rows.
    ``refit``: fit the selected layers' probes once more, on training and validation rows, to be kept. ``shots``: draw
    few-shot curves. ``transfer``: more caches, to test on and to fit on too. ``verify``: caches given by their path are
    compared with their checksums as they are read.
    """

    layers: str = "all"
    probes: tuple[str, ...] = ()
    poolings: tuple[str, ...] = ()
    split: str | float | None = None
    group: str | None = None
    task: str | Mapping[str, str] = "auto"
    seeds: int = 1
    controls: bool | str = False
    subword: str = "mean"
    tagging: Tagging = field(default_factory=Tagging)
    drop_rare: int = 0
    refit: bool = True
    shots: Shots | None = None
    transfer: tuple[Cache | str | os.PathLike[str], ...] = ()
    verify: bool = True


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

    def check(self, shots: Shots | None) -> None:
        """Raise what ``evaluate`` and ``few_shots`` would raise for probes, groups, splits and draws that can't be."""
        if shots is not None:
            self.check_texts("few-shot curves")
            plan_shots(self.targets, self.question, shots)
        for target in self.targets:
            plan_fits(target, self.question)
        if self.words is not None:
            for tags in self.tags:
                plan_tag_fits(self.words, tags, self.question, self.tagging)

    def check_texts(self, what: str) -> None:
        """Raise SpecError for targets that have a tag for each word, where ``what`` is of whole texts only."""
        for tags in self.tags:
            message = f"{what} are of whole texts; this column has a tag for each word"
            raise SpecError(f"--target {tags.target.name}", message)

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
    for option, names in (("--probe", options.probes), ("--pooling", options.poolings)):
        if len(set(names)) < len(names) or not all(names):
            raise SpecError(option, "names, comma-separated, none twice", ",".join(names))
    if options.drop_rare < 0:
        raise SpecError(f"--drop-rare {options.drop_rare}", "at least 0")
    if options.tagging.max_words < 1:
        raise SpecError(f"--max-words {options.tagging.max_words}", "at least 1")
    control_names(options.controls)
    task_of(options.task, targets)


def task_of(asked: str | Mapping[str, str], targets: Sequence[str]) -> dict[str, str]:
    """The task of each target: a kind for all that have none of their own, ``COL=kind`` for one.

    >>> task_of("stars=regression,classification", ["label", "stars"])
    {'label': 'classification', 'stars': 'regression'}

    Raises SpecError for an unknown kind or column.
    """
    if isinstance(asked, str):
        shown = asked
        parts = [part.rpartition("=") for part in asked.split(",")]
    else:
        shown = ",".join(f"{name}={kind}" for name, kind in asked.items())
        parts = [(name, "=", kind) for name, kind in asked.items()]
    found: dict[str, str] = {}
    for name, _, kind in parts:
        if kind not in ("auto", *KINDS):
            raise SpecError(f"--task {shown}", f"one of auto, {', '.join(KINDS)}, or COLUMN=TASK for one target", kind)
        if name and name not in targets:
            raise SpecError(f"--task {shown}", f"columns are those of --target: {', '.join(targets)}", name)
        if name in found:
            raise SpecError(f"--task {shown}", "a task once for each column", name or kind)
        found[name] = kind
    return {target: found.get(target, found.get("", "auto")) for target in targets}


def prepare(
    cache: Cache, targets: Sequence[str], options: ProbeOptions, *, name: str, random: Cache | None = None
) -> Asked:
    """The states, the targets and the question. Raises for every mistake in the options, ``targets`` and ``random``.

    ``name``: of the cache, in the table.
    """
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
            partial(cache.layer, pooling=pooling, mapped=False),
            read_random=None if random is None else partial(random.layer, pooling=pooling, mapped=False),
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
        refit=options.refit,
    )
    tasks = task_of(options.task, targets)
    columns = [_column(cache, target, "--target") for target in targets]
    of_words = [column.name for column in columns if has_tags(cache, column.name, tasks[column.name])]
    _check_of_words(options, all_texts=not of_words, all_words=len(of_words) == len(columns))
    read = [
        read_target(column.values, column.name, ids=cache.ids, task=tasks[column.name], drop_rare=options.drop_rare)
        for column in columns
        if column.name not in of_words
    ]
    _check_use(options, read, layers)
    return Asked(
        sources=sources,
        targets=read,
        question=question,
        tags=[cache_tags(cache, target) for target in of_words],
        words=word_source(cache, layers, options.subword) if of_words else None,
        tagging=options.tagging,
        origin=origin_of(cache, name),
    )


def _check_of_words(options: ProbeOptions, *, all_texts: bool, all_words: bool) -> None:
    """Raise SpecError for an option that would do nothing."""
    if all_texts:
        of_words = {
            "--viterbi": options.tagging.viterbi,
            f"--subword {options.subword}": options.subword != "mean",
            f"--max-words {options.tagging.max_words}": options.tagging.max_words != Tagging.max_words,
        }
        for option in (option for option, asked in of_words.items() if asked):
            raise SpecError(option, "is for tags of words; the targets are of whole texts")
    if all_words and isinstance(options.controls, str):
        message = "is for targets of whole texts; tags of words always have their own control task"
        raise SpecError(f"--control {options.controls}", message)


def _check_use(options: ProbeOptions, targets: Sequence[Target], layers: tuple[int, ...]) -> None:
    """Raise SpecError for a control that was named, or for rare classes to leave out, where it applies to nothing."""
    if options.drop_rare > 1 and all(target.task.kind == "regression" for target in targets):
        raise SpecError(f"--drop-rare {options.drop_rare}", "is for classes and labels; no target has any")
    named = control_names(options.controls) if isinstance(options.controls, str) else ()
    probes = options.probes or ("logistic",)
    if targets and "mdl" in named and not any(has_code(t, probe) for t in targets for probe in probes):
        raise SpecError("--control mdl", "is of classes and the logistic probe; none is asked for")
    if targets and "conditional" in named and not (0 in layers and len(layers) > 1):
        raise SpecError("--control conditional", "needs layer 0 and others", f"layers {', '.join(map(str, layers))}")


def _check_random(random: Cache, cache: Cache, layers: tuple[int, ...], poolings: tuple[str, ...]) -> None:
    """Raise SpecError unless ``random`` holds the same reading of the same texts by the same model's random form."""
    option = f"--random-cache {random.path.name}"
    if random.spec.get("random_seed") is None:
        raise SpecError(option, "must be extracted with --random-seed", "the model's own weights")
    of_spans = ("columns", "words") if cache.spec["pool_over"] == "span" else ()  # where the spans are, and in what
    for name in dict.fromkeys([*cache.spec, *random.spec]):
        mine, others = cache.spec.get(name), random.spec.get(name)
        if mine != others and (name in of_spans or name not in MAY_DIFFER):
            raise SpecError(option, f"must have the {name} of {cache.path.name}: {mine}", str(others))
    if not np.array_equal(random.ids, cache.ids):
        raise SpecError(option, f"must have the rows of {cache.path.name} in the same order")
    if not set(layers) <= set(random.layers) or not set(poolings) <= set(random.poolings):
        shown = f"layers {', '.join(map(str, random.layers))}; {', '.join(random.poolings)} pooling"
        raise SpecError(option, "must have the layers and poolings that are probed", shown)


def _layers(cache: Cache, asked: str) -> tuple[int, ...]:
    if asked.strip() == "all":
        return cache.layers
    shown = ", ".join(map(str, cache.layers))
    try:
        layers = parse_layers(asked, int(cache.spec["n_layers"]) + (cache.spec.get("last_layer") == "both"))
    except SpecError as error:
        raise SpecError(error.source, f"{error.allowed}; this cache has {shown}", error.got) from error
    missing = [layer for layer in layers if layer not in cache.layers]
    if missing:
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


def origin_of(cache: Cache, name: str) -> Origin:
    """The cache's part of every row; ``name``: what the table calls it."""
    return Origin(
        model=_utf8(cache.model),
        revision=cache.revision,
        dataset=_utf8(str(cache.provenance.get("dataset", ""))),
        n_layers=int(cache.spec["n_layers"]),
        n_truncated=int(np.count_nonzero(cache.truncated)),
        cache=name,
    )


def _utf8(name: str) -> str:
    """A name of a file or folder that is no UTF-8 has its bytes as escapes, for pandas takes no other."""
    return name.encode("utf-8", "backslashreplace").decode()
