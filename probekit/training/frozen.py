"""A head on cached states: nothing of the backbone is run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from probekit.evaluate.fit import Fit
from probekit.evaluate.states import as_floats
from probekit.heads.loop import Group, History, OnStep, Recipe, Rows, plain_batches, solve, train
from probekit.heads.losses import Link
from probekit.heads.modules import Head, Linear, Ragged, Read, Shape, make_head, penalised
from probekit.store import Cache, TokenStates
from probekit.training.options import TrainOptions
from probekit.training.plan import Chosen
from probekit.training.start import row_penalty, start_at_probe
from probekit.training.truth import Logits, Truth, answers, read_truth

AT_ONCE = 4096
"""Rows that are answered together."""

ReadRows = Callable[[Rows], Read]
"""What a head reads of some rows."""


class InMemory:
    """The states of some rows of one layer, or of several side by side, read once."""

    def __init__(self, parts: Sequence[NDArray[np.floating]], rows: Rows, n: int) -> None:
        self.place = np.full(n, -1)
        self.place[rows] = np.arange(len(rows))
        arrays = [torch.from_numpy(np.ascontiguousarray(as_floats(part), dtype=np.float32)) for part in parts]
        self.states = arrays[0] if len(arrays) == 1 else torch.stack(arrays, 1)

    def __call__(self, rows: Rows) -> Tensor:
        """(n, d_model), or (n, n_layers, d_model)."""
        return self.states[torch.from_numpy(self.place[rows])]


class OfTokens:
    """The states of all tokens of texts, read from the cache as they are needed."""

    def __init__(self, tokens: TokenStates) -> None:
        self.tokens = tokens

    def __call__(self, rows: Rows) -> Ragged:
        """Those of the texts ``rows``."""
        parts = [np.asarray(self.tokens[int(i)], dtype=np.float32) for i in rows]
        return Ragged(torch.from_numpy(np.concatenate(parts)), torch.tensor([len(part) for part in parts]))


def cached_reader(cache: Cache, chosen: Chosen, fit: Fit) -> ReadRows:
    """How the head reads what the cache holds for the rows of all parts."""
    if chosen.options.head == "attention":
        return OfTokens(cache.tokens(chosen.layer))
    units = np.concatenate([fit.units(part) for part in ("train", "val", "test")])
    rows = np.unique(fit.target.readable(units))
    read = [chosen.source.read(layer) for layer in chosen.layers]
    parts = [states[rows] if isinstance(states, np.ndarray) else states.rows(rows) for states in read]
    return InMemory(parts, rows, len(fit.target.y))


class FrozenProblem:
    """One head, its labels and what it reads."""

    def __init__(self, head: Head, truth: Truth, fit: Fit, read: ReadRows, *, penalty: float, lr: float) -> None:
        self.head, self.truth, self.fit, self.read, self.penalty = head, truth, fit, read, penalty
        self.targets: Sequence[str] = (fit.target.name,)
        self.groups: Sequence[Group] = (Group(list(head.parameters()), lr),)
        self.train_rows = fit.target.readable(fit.train)

    def batches(self, rng: np.random.Generator, size: int) -> list[Rows]:
        """The training rows, mixed."""
        return plain_batches(self.train_rows, rng, size)

    def loss(self, rows: Rows, of: Rows, active: Sequence[bool]) -> Tensor | None:
        """Mean over the step's rows, and the penalty."""
        if not active[0]:
            return None
        return head_loss(self.head, self.head(self.read(rows)), self.truth, rows, len(of), penalty=self.penalty)

    def scores(self) -> list[float]:
        """Of the validation rows."""
        logits = answer_rows(self.head, self.read, self.truth, self.fit.target.readable(self.fit.split.val))
        return [part_score(self.fit, self.truth, logits, "val")]

    def mode(self, *, training: bool) -> None:
        """Of the head's dropout."""
        self.head.train(training)


def head_loss(head: Head, logits: Tensor, truth: Truth, rows: Rows, n: int, *, penalty: float) -> Tensor:
    """The loss of the ``logits`` of ``rows``: their part of the mean over ``n``, and as large a part of the penalty."""
    wrong = truth.link.wrongness(logits, truth.y[torch.from_numpy(rows)].to(logits.device))
    return wrong.sum() / n + (len(rows) / n) * penalty_of(head, truth.link, penalty)


def penalty_of(head: Head, link: Link, penalty: float) -> Tensor:
    """``penalty`` x ``half`` x the sum of squares."""
    return penalty * link.half * torch.stack([(weights**2).sum() for weights in penalised(head)]).sum()


def device_of(head: Head) -> torch.device:
    """Where its weights are."""
    return next(head.parameters()).device


@torch.no_grad()
def answer_rows(head: Head, read: ReadRows, truth: Truth, rows: Rows) -> NDArray[np.float32]:
    """(n_rows of the target, n_answers) logits of ``rows``, NaN elsewhere."""
    found = np.full((len(truth.known), truth.n_answers), np.nan, dtype=np.float32)
    for start in range(0, len(rows), AT_ONCE):
        some = rows[start : start + AT_ONCE]
        found[some] = head(read(some)).float().cpu().numpy()
    return found


def part_score(fit: Fit, truth: Truth, logits: NDArray[np.float32], part: str) -> float:
    """The score of a part's answers."""
    target, units = fit.target, fit.units(part)
    estimator = answers(truth.link, target.classes, truth.mean, truth.scale)
    return target.task.score(target, units, target.task.predict(target, Logits(logits), estimator, units, fit.viterbi))


def new_head(chosen: Chosen, seed: int, truth: Truth, options: TrainOptions, read: ReadRows, d_model: int) -> Head:
    """The head of a target before training: at the probe, or at random on states that it has measured."""
    of_head, fit, probe = chosen.options, chosen.fits[seed], chosen.probes[seed]
    shape = Shape(of_head.head, d_model, truth.n_answers, of_head.width, of_head.dropout, len(chosen.layers))
    head = make_head(shape, seed=fit.split.seed)
    if isinstance(head, Linear) and options.at_probe(of_head):
        start_at_probe(head, probe.estimator, truth)
        return head
    rows = fit.target.readable(fit.train)
    with torch.no_grad():
        parts = [head.features(read(rows[i : i + AT_ONCE])) for i in range(0, len(rows), AT_ONCE)]
    head.standardise.measure(parts)
    return head


def penalty_for(chosen: Chosen, seed: int, truth: Truth, options: TrainOptions) -> float:
    """As asked, or what the probe of the same states chose; an mlp has next to none."""
    if options.penalty is not None:
        return options.penalty
    if chosen.options.head == "mlp":
        return 1e-4
    fit = chosen.fits[seed]
    return row_penalty(chosen.probes[seed].estimator, truth, len(fit.target.readable(fit.train)))


def _in_double(read: ReadRows) -> ReadRows:
    def doubled(rows: Rows) -> Read:
        found = read(rows)
        if isinstance(found, Ragged):
            return Ragged(found.states.double(), found.lengths)
        return found.double()

    return doubled


def train_frozen(
    cache: Cache, chosen: Chosen, seed: int, options: TrainOptions, *, state: Path | None, on_step: OnStep
) -> tuple[FrozenProblem, History]:
    """Train one head of one seed on cached states."""
    fit = chosen.fits[seed]
    truth, read = read_truth(fit.target, fit.split), cached_reader(cache, chosen, fit)
    head = new_head(chosen, seed, truth, options, read, cache.d_model)
    penalty = penalty_for(chosen, seed, truth, options)
    problem = FrozenProblem(head, truth, fit, read, penalty=penalty, lr=options.head_rate(chosen.options))
    if options.solver == "lbfgs":
        head.double()
        problem.read = _in_double(read)
        history = solve(problem)
        problem.read = read
        head.float()
        return problem, history
    recipe = Recipe(
        epochs=options.n_epochs,
        batch_size=options.rows_of_step,
        accumulate=options.accumulate,
        patience=options.patience,
        seed=fit.split.seed,
    )
    return problem, train(problem, recipe, state=state, on_step=on_step)
