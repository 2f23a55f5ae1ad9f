"""What is trained on a cache: targets, their division, the probes they are held against, and where each head reads."""

from __future__ import annotations

import importlib.util
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from probekit.errors import SpecError, missing_package
from probekit.evaluate.config import ProbeConfig, StateSource
from probekit.evaluate.fit import Fit, Outcome, Place, fit_layer
from probekit.evaluate.plan import ProbeOptions, ProbePlan, prepare
from probekit.evaluate.run import evaluate, plan_fits
from probekit.evaluate.states import LayerReader
from probekit.evaluate.table import Origin
from probekit.spec import Evaluation, Json, Listener
from probekit.splits import joint_splits
from probekit.store import Cache
from probekit.tasks import Target
from probekit.training.backbone import live_spec
from probekit.training.options import HeadOptions, TrainOptions


@dataclass(frozen=True)
class Candidate:
    """A head whose layer is still to be chosen: its target and the states that it may read."""

    options: HeadOptions
    target: Target
    sources: tuple[StateSource, ...]


@dataclass(frozen=True)
class Chosen:
    """A head and where it reads. ``source``: the states, of which ``layer`` (all of ``source.layers`` for a mix).

    ``frozen``: the table of the probes, ``row`` that of the probe at ``layer``. ``fits``, ``probes``: that probe, one
    for each seed.
    """

    options: HeadOptions
    target: Target
    source: StateSource
    layer: int
    frozen: Evaluation
    row: Json
    fits: tuple[Fit, ...]
    probes: tuple[Outcome, ...]

    @property
    def layers(self) -> tuple[int, ...]:
        """The layers that are read."""
        return self.source.layers if self.options.head == "mix" else (self.layer,)


@dataclass(frozen=True)
class TrainPlan:
    """All that is asked of a cache, with every mistake that can be found before the work found."""

    cache: Cache
    options: TrainOptions
    candidates: tuple[Candidate, ...]
    config: ProbeConfig
    origin: Origin


def plan_training(cache: Cache, options: TrainOptions, *, name: str) -> TrainPlan:
    """Read the targets and divide the rows. ``name``: of the cache, in the table.

    Raises as ``probekit.probe`` for labels and splits that can't be used, SpecError for layers or token states that the
    cache has not.
    """
    _check_backbone(cache, options)
    plans = [_prepare(cache, options, head, name) for head in options.heads]
    found = []
    for head, plan in zip(options.heads, plans, strict=True):
        sources, targets = next(part for part in plan.parts if part[1])
        _check_head(cache, head, targets[0])
        found.append(Candidate(head, targets[0], tuple(_able(cache, options, head, source) for source in sources)))
    config = plans[0].config
    if len(found) > 1:
        divided = joint_splits(
            [candidate.target for candidate in found],
            ids=config.ids,
            texts=config.texts,
            groups=config.groups,
            split=config.split,
            fraction=config.fraction,
            seeds=config.seeds,
        )
        config = replace(config, given=tuple(divided))
    for candidate in found:
        for fit in plan_fits(candidate.target, config):
            _check_parts(fit)
    return TrainPlan(cache, options, tuple(found), config, plans[0].origin)


def _prepare(cache: Cache, options: TrainOptions, head: HeadOptions, name: str) -> ProbePlan:
    """As ``probekit probe`` would fit the target; mistakes are said in the terms of training."""
    try:
        return prepare(cache, [head.target], _probe_options(options, head), name=name)
    except SpecError as error:
        raise SpecError(error.source.replace("--layers ", "--layer "), error.allowed, error.got) from error


def _probe_options(options: TrainOptions, head: HeadOptions) -> ProbeOptions:
    return ProbeOptions(
        layers="all" if head.layer is None else [head.layer],
        pooling=head.pooling,
        split=options.split,
        group=options.group,
        task="auto" if head.task == "auto" else {head.target: head.task},
        seeds=options.seeds,
        drop_rare=options.drop_rare,
        subword=options.subword,
        viterbi=options.viterbi,
        refit=False,
    )


def _check_head(cache: Cache, head: HeadOptions, target: Target) -> None:
    if head.head == "attention" and target.task.of_words:
        raise SpecError(
            f"--head attention, target {target.name}", "pools whole texts; this column has a tag for each word"
        )
    if head.head == "attention" and cache.spec.get("tokens") is None:
        raise SpecError(
            "--head attention", "needs the states of every token: extract with --tokens", "pooled states only"
        )
    if head.head == "attention" and cache.spec.get("pool_over") == "span":
        raise SpecError("--head attention", "reads all tokens of a text; the cache was made with --pool-over span")
    if not target.task.of_words and not cache.poolings:
        raise SpecError(f"target {target.name}", "needs pooled states: extract with a pooling", "token states only")


def _able(cache: Cache, options: TrainOptions, head: HeadOptions, source: StateSource) -> StateSource:
    """``source`` with those of its layers that what is trained can change."""
    lowest = 0 if not options.tuned else 1
    if options.top is not None:
        lowest = int(cache.spec["n_layers"]) - options.top + 1
    layers = tuple(layer for layer in source.layers if layer >= lowest)
    if head.head != "mix" and options.tuned and layers != source.layers and layers:
        return replace(source, layers=layers)
    if options.tuned and not layers:
        shown = ", ".join(map(str, source.layers))
        raise SpecError(
            f"--backbone {options.backbone}", f"needs a layer of at least {lowest} to read", f"the cache's {shown}"
        )
    return source


def _check_backbone(cache: Cache, options: TrainOptions) -> None:
    """Raise SpecError where texts can't go through the model, or the top blocks have no states to start from."""
    if options.tuned:
        live_spec(cache.spec, cache.layers)
    for option, asked in (("--backbone lora", options.backbone == "lora"), ("--soft-prompt", options.soft_prompt > 0)):
        if asked and importlib.util.find_spec("peft") is None:
            raise missing_package(option, "peft", "train")
    if options.top is None:
        return
    source, first = f"--backbone {options.backbone}", int(cache.spec["n_layers"]) - options.top
    if not 1 <= options.top <= int(cache.spec["n_layers"]):
        raise SpecError(source, f"top:1 to top:{cache.spec['n_layers']}, for the model has so many blocks")
    if cache.spec.get("tokens") is None:
        raise SpecError(source, "needs the states of every token: extract with --tokens", "pooled states only")
    shown = ", ".join(map(str, cache.layers))
    if first not in cache.layers:
        raise SpecError(source, f"starts from the tokens of layer {first}: extract with it", f"layers {shown}")
    if cache.layers[0] < first and any(head.head == "mix" for head in options.heads):
        raise SpecError("--head mix", f"reads all layers of the cache, but {source} none below {first}", shown)


def _check_parts(fit: Fit) -> None:
    for part in ("train", "val", "test"):
        if len(fit.target.readable(fit.units(part))) == 0:
            raise SpecError(f"target {fit.target.name}", f"some rows that can be read in the {part} part", "none")


def choose_layers(plan: TrainPlan, executor: Executor | None, listener: Listener) -> list[Chosen]:
    """Fit the probes of every layer that each head may read, and take the best on validation."""
    return [_choose(plan, candidate, executor, listener) for candidate in plan.candidates]


def _choose(plan: TrainPlan, candidate: Candidate, executor: Executor | None, listener: Listener) -> Chosen:
    evaluation = evaluate(
        candidate.sources,
        [candidate.target],
        replace(plan.config, probes=()),
        origin=plan.origin,
        executor=executor,
        listener=listener,
    )
    best = max(evaluation.chosen, key=lambda chosen: _known(chosen.row["val_score"]))
    source = next(source for source in candidate.sources if source.pooling == best.pooling)
    fits = tuple(plan_fits(candidate.target, plan.config))
    place = Place({"states": LayerReader(source.read)}, fits)
    outcomes = fit_layer([place], (0, best.layer)).outcomes
    probes = tuple(outcomes[i] for i in range(len(fits)))
    return Chosen(candidate.options, candidate.target, source, best.layer, evaluation, best.row, fits, probes)


def _known(score: Any) -> float:
    return -np.inf if score is None or np.isnan(score) else float(score)
