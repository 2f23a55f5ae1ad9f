"""All heads of a cache trained, seed by seed, and what came of it: the table and the heads of the first seed."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from probekit.evaluate.fit import ALL_PARTS
from probekit.heads.loop import Group, History, Recipe, train
from probekit.heads.modules import Head, Mix
from probekit.layers import named_layers
from probekit.models.source import ModelSource
from probekit.readspec import RunOptions
from probekit.spec import Evaluation, Json, Listener
from probekit.training.backbone import Tuned, make_trainable, open_live
from probekit.training.card import head_card
from probekit.training.frozen import (
    ReadRows,
    answer_rows,
    cached_reader,
    new_head,
    penalty_for,
    train_frozen,
)
from probekit.training.options import TrainOptions
from probekit.training.outcome import Trained, head_name, heads_table, table_row
from probekit.training.plan import Chosen, TrainPlan, choose_layers
from probekit.training.saved_heads import Heads
from probekit.training.texts import Place
from probekit.training.truth import Truth, read_truth
from probekit.training.tuned import TunedHead, TunedProblem

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Training:
    """``table``: of heads beside their probes; ``heads``: of the first seed; ``histories[seed]``: of validation."""

    table: pd.DataFrame
    evaluation: Evaluation
    heads: Heads
    warnings: tuple[str, ...]
    record: Json
    cache: str

    @property
    def val_score(self) -> float:
        """The mean over heads, by which prompts are compared."""
        return float(np.mean(self.evaluation.table["val_score"]))


@dataclass(frozen=True)
class _Seed:
    """What one seed gave, head by head. ``files``: of the backbone."""

    heads: tuple[Head, ...]
    trained: tuple[Trained, ...]
    histories: tuple[History, ...]
    files: dict[str, bytes]


def run_training(
    plan: TrainPlan,
    source: ModelSource | None,
    run: RunOptions,
    *,
    state: Path | None,
    executor: Executor | None,
    listener: Listener,
) -> Training:
    """Choose layers, train, score. ``source``: the model, where texts go through it. ``state``: a folder to go on from.

    Raises as ``plan_training``, and ModelError where the model no longer gives the states of the cache.
    """
    chosen = choose_layers(plan, executor, listener)
    threads = torch.get_num_threads()
    try:
        if plan.options.tuned and source is not None:
            seeds = [
                _tuned_seed(plan, chosen, seed, source, run, state=state, listener=listener)
                for seed in range(plan.options.seeds)
            ]
        else:
            torch.set_num_threads(1)  # steps are too small to share
            seeds = [
                _frozen_seed(plan, chosen, seed, state=state, listener=listener) for seed in range(plan.options.seeds)
            ]
    finally:
        torch.set_num_threads(threads)
    by_head = [[found.trained[h] for found in seeds] for h in range(len(chosen))]
    table, evaluation = heads_table(plan, chosen, by_head)
    cards = [
        head_card(plan, one, found, table_row(table, 2 * h + 1), name=head_name(one, plan.options))
        for h, (one, found) in enumerate(zip(chosen, seeds[0].trained, strict=True))
    ]
    heads = Heads.made(plan, cards, seeds[0].heads, seeds[0].files)
    frozen = [text for one in chosen for text in (*one.frozen.warnings, *_ties(one))]
    return Training(
        table=table,
        evaluation=evaluation,
        heads=heads,
        warnings=tuple(dict.fromkeys([*frozen, *evaluation.warnings, *_warnings(table)])),
        record={
            "validation": [
                {
                    "seed": seed,
                    "target": target,
                    "scores": [epoch[t] for epoch in history.scores],
                    "kept_epoch": history.best,
                    "stopped_after": history.stopped[t],
                }
                for seed, found in enumerate(seeds)
                for history in found.histories
                for t, target in enumerate(_targets(chosen, found.histories, history))
            ],
        },
        cache=plan.origin.cache,
    )


def _targets(chosen: Sequence[Chosen], histories: Sequence[History], history: History) -> list[str]:
    names = [one.target.name for one in chosen]
    return names if len(histories) == 1 else [names[[id(h) for h in histories].index(id(history))]]


def _frozen_seed(
    plan: TrainPlan, chosen: Sequence[Chosen], seed: int, *, state: Path | None, listener: Listener
) -> _Seed:
    """Heads on frozen states have nothing in common: each is trained by itself."""
    heads, trained, histories = [], [], []
    for h, one in enumerate(chosen):
        clock = _Clock(listener, f"training {one.target.name}")
        file = None if state is None else state / f"seed{seed}-head{h}.safetensors"
        problem, history = train_frozen(plan.cache, one, seed, plan.options, state=file, on_step=clock)
        fit = one.fits[seed]
        rows = fit.target.readable(np.concatenate([fit.units(part) for part in ALL_PARTS]))
        logits = answer_rows(problem.head, problem.read, problem.truth, rows)
        heads.append(problem.head)
        histories.append(history)
        n = sum(p.numel() for p in problem.head.parameters())
        trained.append(_trained(one, problem.head, problem.truth, logits, history, n, clock.per_step))
    return _Seed(tuple(heads), tuple(trained), tuple(histories), {})


def _tuned_seed(
    plan: TrainPlan,
    chosen: Sequence[Chosen],
    seed: int,
    source: ModelSource,
    run: RunOptions,
    *,
    state: Path | None,
    listener: Listener,
) -> _Seed:
    options, cache = plan.options, plan.cache
    places = [place_of(one) for one in chosen]
    units = np.unique(np.concatenate([one.fits[seed].train for one in chosen]))
    with open_live(cache, source, options, run, places=places, rows=units, listener=listener) as live:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            tuned = make_trainable(cache, live, options, places=places, rows=units, listener=listener)
        heads = [_tuned_head(plan, one, seed, tuned) for one in chosen]
        problem = _problem(options, tuned, heads)
        recipe = Recipe(
            epochs=options.n_epochs,
            batch_size=options.rows_of_step,
            accumulate=options.accumulate,
            patience=options.patience,
            seed=seed,
        )
        clock = _Clock(listener, "training")
        file = None if state is None else state / f"seed{seed}.safetensors"
        history = train(problem, recipe, state=file, on_step=clock)
        every = np.unique(np.concatenate([one.fits[seed].units(p) for one in chosen for p in ALL_PARTS]))
        logits = problem.answers(every)
        n = sum(p.numel() for group in problem.groups for p in group.parameters)
        files = tuned.files()
    trained = tuple(
        _trained(one, head.head, head.truth, found, history, n, clock.per_step)
        for one, head, found in zip(chosen, heads, logits, strict=True)
    )
    return _Seed(tuple(head.head for head in heads), trained, (history,), files)


def place_of(one: Chosen) -> Place:
    """What a head reads of a text."""
    pooling = "attention" if one.options.head == "attention" else one.source.pooling
    return Place(one.layers, pooling, one.target.task.of_words)


def _tuned_head(plan: TrainPlan, one: Chosen, seed: int, tuned: Tuned) -> TunedHead:
    """A head as it begins: measured (or fitted, as a probe) on the cached states, which the backbone begins with."""
    fit = one.fits[seed]
    truth = read_truth(fit.target, fit.split)
    read: ReadRows = cached_reader(plan.cache, one, fit)
    head = new_head(one, seed, truth, plan.options, read, plan.cache.d_model).to(tuned.reader.backbone.device)
    penalty = penalty_for(one, seed, truth, plan.options)
    return TunedHead(head, truth, fit, place_of(one), penalty, one.options.weight)


def _problem(options: TrainOptions, tuned: Tuned, heads: Sequence[TunedHead]) -> TunedProblem:
    of_backbone: list[nn.Parameter] = list(tuned.parameters.values())
    if isinstance(tuned.reader.prompt, nn.Parameter):
        of_backbone.append(tuned.reader.prompt)
    decay = 0.0 if options.backbone == "frozen" else options.weight_decay
    groups = [
        *(
            Group(list(h.head.parameters()), options.head_rate(one))
            for h, one in zip(heads, options.heads, strict=True)
        ),
        Group(of_backbone, options.rate, decay),
    ]
    powers = {"proportional": 1.0, "uniform": 0.0, "temperature": 1 / options.temperature}
    return TunedProblem(heads, tuned.reader, groups, dropout=tuned.dropout, power=powers[options.sampling])


def _trained(
    one: Chosen, head: Head, truth: Truth, logits: NDArray[np.float32], history: History, n: int, per_step: float
) -> Trained:
    centre = float("nan")
    if isinstance(head, Mix):
        layers = torch.tensor(one.layers, dtype=torch.float64)
        centre = float((head.shares().detach().double().cpu() * layers).sum())
    return Trained(truth, logits, history.best, n, per_step, centre)


def _ties(one: Chosen) -> list[str]:
    """Where the layer was chosen among several that are equally good on validation."""
    found = next(choice for choice in one.frozen.details["selected"] if choice["pooling"] == one.source.pooling)
    if not found["tied_layers"] or one.options.head == "mix":
        return []
    tied = named_layers(sorted([found["layer"], *found["tied_layers"]]))
    return [f"{one.target.name}: layers {tied} tie on validation; the shallowest is taken"]


def _warnings(table: pd.DataFrame) -> list[str]:
    """Where training did not help, by what the validation rows say."""
    found = []
    for k in range(1, len(table), 2):
        row, frozen = table.iloc[k], table.iloc[k - 1]
        if row["epoch"] == 0:
            found.append(
                f"{row['target']}, {row['probe']}: no epoch was better on validation than the start, which is kept"
            )
        elif row["val_score"] < frozen["val_score"]:
            found.append(
                f"{row['target']}, {row['probe']}: worse on validation than the probe it is held against "
                f"({row['val_score']:.3f}, {frozen['val_score']:.3f})"
            )
    return found


class _Clock:
    """Tells the listener of steps, and times them without what lies between epochs. The first warms up."""

    def __init__(self, listener: Listener, name: str) -> None:
        self.listener, self.name = listener, name
        self.seconds: list[float] = []

    @property
    def per_step(self) -> float:
        """The middle one of all steps."""
        return float(np.median(self.seconds[1:])) if len(self.seconds) > 1 else float("nan")

    def __call__(self, done: int, total: int, seconds: float) -> None:
        """Step ``done`` of ``total`` took so long."""
        if not self.seconds:
            self.listener.stage(self.name, total=total, unit="steps")
        self.seconds.append(seconds)
        self.listener.advance(done)
