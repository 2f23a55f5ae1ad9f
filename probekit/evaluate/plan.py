"""What is asked of a cache, in the terms of ``evaluate``: every mistake is found here, before the work."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, fields
from functools import partial
from typing import Any

import numpy as np

from probekit.arguments import names, whole
from probekit.errors import SpecError
from probekit.evaluate.config import MAX_WORDS, ProbeConfig, StateSource
from probekit.evaluate.controls import CONTROLS, control_names
from probekit.evaluate.few_shot import Shots, plan_shots
from probekit.evaluate.run import evaluate, has_code, plan_fits
from probekit.evaluate.table import Origin
from probekit.evaluate.tokens import token_source
from probekit.evaluate.transfer import Domain, plan_transfer
from probekit.evaluate.words import has_tags, word_target_and_source
from probekit.layers import LayerChoice, choose_layers, layer_choice, layers_text
from probekit.probes import as_probes
from probekit.readspec import different_model, different_reading
from probekit.spec import Evaluation, Json, Listener
from probekit.splits import DEFAULT_FRACTION, Column
from probekit.store import Cache
from probekit.tasks import Target
from probekit.tasks.read import OF_TEXTS, read_target

SPLIT_COLUMN = "split"
"""An input column of this name is used as the split where none is asked for."""


@dataclass(frozen=True)
class ProbeOptions:
    """The options of ``probekit.probe``, as people give them in Python, and what is asked for beside the layer table.

    ``controls``: names, True for all, False for none. ``shots``: draw few-shot curves. ``transfer``: more caches, to
    test on and to fit on too. Names and layers are in one form from here on. Raises SpecError for what no cache can
    make right.
    """

    layers: Any = "all"
    probe: Any = None
    pooling: Any = None
    split: str | float | None = None
    group: str | None = None
    task: str | Mapping[str, str] = "auto"
    seeds: int = 1
    controls: Any = False
    subword: str = "mean"
    viterbi: bool = False
    max_words: int = MAX_WORDS
    drop_rare: int = 0
    refit: bool = True
    shots: Shots | None = None
    transfer: tuple[Cache | str | os.PathLike[str], ...] = ()
    verify: bool = True

    def __post_init__(self) -> None:
        read: Json = {
            "layers": layer_choice(self.layers),
            "probe": as_probes(probe_values(self.probe)),
            "pooling": names(self.pooling, "pooling"),
            "controls": control_names(self.controls),
        }
        for name, least in (("seeds", 1), ("drop_rare", 0), ("max_words", 1)):
            read[name] = whole(getattr(self, name), name)
            if read[name] < least:
                raise SpecError(f"--{name.replace('_', '-')} {read[name]}", f"at least {least}")
        for option, given in (("--probe", [p.name for p in read["probe"]]), ("--pooling", read["pooling"])):
            if len(set(given)) < len(given) or not all(given):
                raise SpecError(option, "names, comma-separated, none twice", ",".join(given))
        for name, value in read.items():
            object.__setattr__(self, name, value)

    def json(self) -> Json:
        """For the record of a table."""
        left_out = ("probe", "pooling", "shots", "transfer", "verify")
        plain = {field.name: getattr(self, field.name) for field in fields(self) if field.name not in left_out}
        return {
            **plain,
            "layers": layers_text(self.layers),
            "probes": [probe.name for probe in self.probe],
            "poolings": list(self.pooling),
            "task": self.task if isinstance(self.task, str) else dict(self.task),
            "controls": list(self.controls),
        }


def probe_values(value: Any) -> Sequence[Any]:
    """Names and estimators: one, several in a list, or names in a text with commas."""
    if value is None or isinstance(value, str):
        return names(value, "probe")
    found = [value] if hasattr(value, "fit") or not isinstance(value, Iterable) else list(value)
    return [str(one) if isinstance(one, str) else one for one in found]


@dataclass(frozen=True)
class ProbePlan:
    """What is fitted on one cache: ``parts`` are sources of states and their targets, of texts and of words."""

    parts: tuple[tuple[Sequence[StateSource], Sequence[Target]], ...]
    config: ProbeConfig
    origin: Origin

    @property
    def sources(self) -> Sequence[StateSource]:
        """Those of whole texts."""
        return self.parts[0][0]

    @property
    def pooled(self) -> Sequence[StateSource]:
        """Those with one vector for each text."""
        return [source for source in self.sources if not source.of_tokens]

    @property
    def targets(self) -> Sequence[Target]:
        """Those of whole texts."""
        return self.parts[0][1]

    def check(self, shots: Shots | None, *, layers: bool) -> None:
        """Raise what ``evaluate`` (with ``layers``) and ``few_shots`` would raise for what can't be fitted."""
        if shots is not None:
            self.check_texts("few-shot curves")
            if self.sources and not self.pooled:
                names = ",".join(probe.name for probe in as_probes(self.config.probes))
                raise SpecError(f"--probe {names}", "few-shot curves are of pooled states: ask for another probe too")
            plan_shots(self.targets, self.config, shots)
        for target in [target for _, targets in self.parts for target in targets] if layers else ():
            plan_fits(target, self.config)

    def check_texts(self, what: str) -> None:
        """Raise SpecError for targets that have a tag for each word, where ``what`` is of whole texts only."""
        for target in self.parts[1][1]:
            raise SpecError(
                f"--target {target.name}", f"{what} are of whole texts; this column has a tag for each word"
            )

    def evaluate(self, executor: Executor | None, listener: Listener) -> Iterator[Evaluation]:
        """Fit and score: the targets of texts together, then those of words."""
        for sources, targets in self.parts:
            if targets:
                yield evaluate(sources, targets, self.config, origin=self.origin, executor=executor, listener=listener)


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
        if kind not in ("auto", *OF_TEXTS):
            raise SpecError(
                f"--task {shown}", f"one of auto, {', '.join(OF_TEXTS)}, or COLUMN=TASK for one target", kind
            )
        if name and name not in targets:
            raise SpecError(f"--task {shown}", f"columns are those of --target: {', '.join(targets)}", name)
        if name in found:
            raise SpecError(f"--task {shown}", "a task once for each column", name or kind)
        found[name] = kind
    return {target: found.get(target, found.get("", "auto")) for target in targets}


def prepare(
    cache: Cache, targets: Sequence[str], options: ProbeOptions, *, name: str, random: Cache | None = None
) -> ProbePlan:
    """The states, the targets and the question. Raises for every mistake in the options, ``targets`` and ``random``.

    ``name``: of the cache, in the table.
    """
    for pooling in options.pooling:
        if pooling not in cache.poolings:
            raise SpecError(f"--pooling {pooling}", f"the cache {cache.path.name} has {', '.join(cache.poolings)}")
    layers = _layers(cache, options.layers)
    of_tokens = [probe.name for probe in options.probe if probe.of_tokens]
    only_tokens = len(of_tokens) == len(options.probe) > 0
    poolings = () if only_tokens else options.pooling or cache.poolings
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
    sources += [token_source(cache, name, layers, random) for name in of_tokens[:1]]
    split, fraction = _split(cache, options.split)
    config = ProbeConfig(
        ids=cache.ids,
        texts=cache.texts if cache.spec.get("store_text") else None,
        probes=options.probe,
        groups=None if options.group is None else _column(cache, options.group, "--group"),
        split=split,
        fraction=fraction,
        seeds=tuple(range(options.seeds)),
        controls=options.controls,
        n_tokens=cache.n_tokens,
        refit=options.refit,
        viterbi=options.viterbi,
        max_words=options.max_words,
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
    words: tuple[list[Target], list[StateSource]] = ([], [])
    if of_words:
        tags, source = word_target_and_source(cache, of_words, layers, options.subword)
        words = (tags, [source])
    return ProbePlan(((sources, read), (words[1], words[0])), config, origin_of(cache, name))


def _check_of_words(options: ProbeOptions, *, all_texts: bool, all_words: bool) -> None:
    """Raise SpecError for an option that would do nothing."""
    if all_texts:
        of_words = {
            "--viterbi": options.viterbi,
            f"--subword {options.subword}": options.subword != "mean",
            f"--max-words {options.max_words}": options.max_words != MAX_WORDS,
        }
        for option in (option for option, asked in of_words.items() if asked):
            raise SpecError(option, "is for tags of words; the targets are of whole texts")
    if all_words and _named(options):
        message = "is for targets of whole texts; tags of words always have their own control task"
        raise SpecError(f"--control {','.join(options.controls)}", message)


def _named(options: ProbeOptions) -> tuple[str, ...]:
    """The controls that were named: of all of them, those that apply are meant."""
    return () if options.controls == CONTROLS else tuple(options.controls)


def _check_use(options: ProbeOptions, targets: Sequence[Target], layers: tuple[int, ...]) -> None:
    """Raise SpecError for a control that was named, or for rare classes to leave out, where it applies to nothing."""
    if options.drop_rare > 1 and not any(len(target.classes) for target in targets):
        raise SpecError(f"--drop-rare {options.drop_rare}", "is for classes and labels; no target has any")
    named = _named(options)
    probes = [probe.name for probe in options.probe] or ["logistic"]
    if targets and "mdl" in named and not any(has_code(t, probe) for t in targets for probe in probes):
        raise SpecError("--control mdl", "is of classes and the logistic probe; none is asked for")
    if targets and "conditional" in named and not (0 in layers and len(layers) > 1):
        raise SpecError("--control conditional", "needs layer 0 and others", f"layers {', '.join(map(str, layers))}")


def _check_random(random: Cache, cache: Cache, layers: tuple[int, ...], poolings: tuple[str, ...]) -> None:
    """Raise SpecError unless ``random`` holds the same reading of the same texts by the same model's random form."""
    option = f"--random-cache {random.path.name}"
    if random.spec.get("random_seed") is None:
        raise SpecError(option, "must be extracted with --random-seed", "the model's own weights")
    if differs := different_reading(cache.spec, random.spec):
        name, mine, others = differs
        raise SpecError(option, f"must have the {name} of {cache.path.name}: {mine}", str(others))
    if not np.array_equal(random.ids, cache.ids):
        raise SpecError(option, f"must have the rows of {cache.path.name} in the same order")
    if not set(layers) <= set(random.layers) or not set(poolings) <= set(random.poolings):
        shown = f"layers {', '.join(map(str, random.layers))}; {', '.join(random.poolings)} pooling"
        raise SpecError(option, "must have the layers and poolings that are probed", shown)


def plan_domains(caches: Sequence[Cache], plans: Sequence[ProbePlan]) -> list[list[Domain]]:
    """The caches' rows as domains of transfer, for each pooling and target.

    Raises SpecError for caches of different models, layers or poolings and for tags of words, InputError for targets
    that don't fit together.
    """
    for cache, plan in zip(caches, plans, strict=True):
        plan.check_texts("transfer tables")
        if differs := different_model(cache.spec, caches[0].spec):
            field, mine, first = differs
            message = f"must have the {field} of {caches[0].path.name}: {first}"
            raise SpecError(f"--transfer {cache.path.name}", message, str(mine))
        if [(s.pooling, s.layers) for s in plan.sources] != [(s.pooling, s.layers) for s in plans[0].sources]:
            message = f"must have the layers and poolings of {caches[0].path.name}; see --layers and --pooling"
            raise SpecError(f"--transfer {cache.path.name}", message)
    found = [
        [Domain(plan.origin.cache, plan.sources[s], plan.targets[t], plan.config) for plan in plans]
        for s in range(len(plans[0].sources))
        for t in range(len(plans[0].targets))
        if any(fit.takes(plans[0].sources[s]) for fit in plan_fits(plans[0].targets[t], plans[0].config))
    ]
    for domains in found:
        plan_transfer(domains)
    return found


def _layers(cache: Cache, choice: LayerChoice) -> tuple[int, ...]:
    if choice == "all":
        return cache.layers
    shown = ", ".join(map(str, cache.layers))
    try:
        layers = choose_layers(choice, int(cache.spec["n_layers"]) + (cache.spec.get("last_layer") == "both"))
    except SpecError as error:
        raise SpecError(error.source, f"{error.allowed}; this cache has {shown}", error.got) from error
    missing = [layer for layer in layers if layer not in cache.layers]
    if missing:
        raise SpecError(
            f"--layers {layers_text(choice)}", f"this cache has layers {shown}", ", ".join(map(str, missing))
        )
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
