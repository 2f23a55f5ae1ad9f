"""The one training loop: batches, steps, validation after every epoch, the best weights kept; killed, it goes on."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor, nn

from probekit.errors import SpecError
from probekit.output import write_whole

Rows = NDArray[np.int64]
OnStep = Callable[[int, int, float], None]
OF_ADAM = ("step", "exp_avg", "exp_avg_sq")
"""What the optimiser keeps of a parameter."""

TINY = 1e-9
"""A validation score has to be better by this to count as better."""


@dataclass(frozen=True)
class Recipe:
    """How something is trained. ``batch_size``: rows of a step, of which ``accumulate`` parts are read one by one.

    ``warmup``: share of all steps in which the learning rate rises; it falls to zero by the end. ``patience``: epochs
    without a better validation score after which a target is no longer trained. ``clip``: largest norm of a gradient.
    ``stop``: end after so many of the ``epochs`` that the learning rate is planned for; None for all.
    """

    epochs: int = 20
    batch_size: int = 32
    accumulate: int = 1
    warmup: float = 0.06
    patience: int = 3
    clip: float = 1.0
    seed: int = 0
    stop: int | None = None


@dataclass(frozen=True)
class Group:
    """Parameters with one learning rate and one (decoupled) weight decay."""

    parameters: Sequence[nn.Parameter]
    lr: float
    weight_decay: float = 0.0


class Problem(Protocol):
    """What is trained: ``targets`` names its parts, each with a loss and a validation score of its own."""

    targets: Sequence[str]
    groups: Sequence[Group]

    def batches(self, rng: np.random.Generator, size: int) -> list[Rows]:
        """The rows of each step of an epoch."""

    def loss(self, rows: Rows, of: Rows, active: Sequence[bool]) -> Tensor | None:
        """What ``rows`` add to the mean loss of the step's rows ``of``; None where no active target has a label."""

    def scores(self) -> list[float]:
        """Of the validation rows, by target; higher is better. NaN where there is none."""

    def mode(self, *, training: bool) -> None:
        """Dropout on in what is trained, off everywhere else."""


@dataclass(frozen=True)
class History:
    """``scores[epoch]``: of validation, by target, the first before any step. ``best``: the epoch that was kept.

    ``steps``: that were done. ``stopped``: by target the epoch after which it was no longer trained, or None.
    """

    scores: list[list[float]] = field(default_factory=list)
    best: int = 0
    steps: int = 0
    stopped: list[int | None] = field(default_factory=list)


def train(
    problem: Problem,
    recipe: Recipe,
    *,
    state: Path | None = None,
    on_step: OnStep = lambda _done, _total, _seconds: None,
) -> History:
    """Train ``problem``; its parameters end as those of the epoch with the best mean validation score.

    The untrained start is epoch 0 and can be the best. ``state``: a file to go on from, written after every epoch; the
    result has the bytes of a run without a break. ``on_step(done, total, seconds)``: of the step.

    Randomness is that of ``recipe.seed`` alone, and the caller's generators are left as they were.
    """
    parameters = [parameter for group in problem.groups for parameter in group.parameters]
    optimizer = torch.optim.AdamW(
        [{"params": list(g.parameters), "lr": g.lr, "weight_decay": g.weight_decay} for g in problem.groups]
    )
    devices = sorted({p.device.index or 0 for p in parameters if p.device.type == "cuda"})
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(recipe.seed)
        run = _Run(problem, recipe, optimizer, parameters)
        if state is None or not run.load(state):
            run.look()
            run.save(state)
        while not run.over:
            run.epoch(on_step)
            run.look()
            run.save(state)
        run.keep_best()
    return run.history


def solve(problem: Problem, *, max_iter: int = 2000) -> History:
    """Minimise the loss over all training rows to convergence, without validation (L-BFGS, float64).

    For losses without chance in them: no dropout.
    """
    parameters = [parameter for group in problem.groups for parameter in group.parameters]
    rows = np.concatenate(problem.batches(np.random.default_rng(0), 1 << 30))
    problem.mode(training=False)
    history = History(stopped=[None] * len(problem.targets))
    with torch.no_grad():
        history.scores.append(problem.scores())
    optimizer = torch.optim.LBFGS(
        parameters,
        max_iter=max_iter,
        max_eval=2 * max_iter,
        tolerance_grad=1e-8,
        tolerance_change=1e-12,
        history_size=20,
        line_search_fn="strong_wolfe",
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = problem.loss(rows, rows, [True] * len(problem.targets))
        if loss is None:
            raise SpecError("--solver lbfgs", "needs a row with a label", "none")
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    optimizer.zero_grad(set_to_none=True)
    with torch.no_grad():
        history.scores.append(problem.scores())
    steps = int(optimizer.state[parameters[0]].get("n_iter", 0))
    return replace(history, best=1, steps=steps)


class _Run:
    """A training in progress."""

    def __init__(
        self, problem: Problem, recipe: Recipe, optimizer: torch.optim.Optimizer, parameters: list[nn.Parameter]
    ) -> None:
        self.problem, self.recipe = problem, recipe
        self.optimizer, self.parameters = optimizer, parameters
        self.rates = [float(group["lr"]) for group in optimizer.param_groups]
        self.best = [p.detach().clone() for p in parameters]
        self.history = History(stopped=[None] * len(problem.targets))
        self.steps_per_epoch = len(self.batches(1))

    @property
    def done(self) -> int:
        """Epochs done."""
        return len(self.history.scores) - 1

    @property
    def active(self) -> list[bool]:
        return [epoch is None for epoch in self.history.stopped]

    @property
    def over(self) -> bool:
        epochs = self.recipe.epochs if self.recipe.stop is None else self.recipe.stop
        return self.done >= epochs or not any(self.active)

    def batches(self, epoch: int) -> list[Rows]:
        return self.problem.batches(np.random.default_rng([self.recipe.seed, epoch]), self.recipe.batch_size)

    def epoch(self, on_step: OnStep) -> None:
        """All steps of the next epoch."""
        self.problem.mode(training=True)
        total = self.recipe.epochs * self.steps_per_epoch
        steps = self.history.steps
        for rows in self.batches(self.done + 1):
            begun = time.perf_counter()
            self.step(rows, rate=_rate(steps, total, self.recipe.warmup))
            steps += 1
            on_step(steps, total, time.perf_counter() - begun)
        self.history = replace(self.history, steps=steps)

    def step(self, rows: Rows, *, rate: float) -> None:
        """One step of the optimiser over ``rows``; none where no row has a label."""
        some = False
        for part in np.array_split(rows, min(self.recipe.accumulate, len(rows))):
            loss = self.problem.loss(part, rows, self.active)
            if loss is not None:
                loss.backward()  # type: ignore[no-untyped-call]
                some = True
        if some:
            nn.utils.clip_grad_norm_(self.parameters, self.recipe.clip)
            for group, most in zip(self.optimizer.param_groups, self.rates, strict=True):
                group["lr"] = most * rate
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def look(self) -> None:
        """Score the validation rows, keep what is best, and stop targets that no longer gain."""
        self.problem.mode(training=False)
        with torch.no_grad():
            found = self.problem.scores()
        scores, stopped = [*self.history.scores, found], list(self.history.stopped)
        best = self.history.best
        if len(scores) == 1 or _mean(found) > _mean(scores[best]) + TINY:
            best = len(scores) - 1
            self.best = [p.detach().clone() for p in self.parameters]
        for t in range(len(stopped)):
            of_target = [of_epoch[t] for of_epoch in scores]
            since = len(scores) - 1 - _first_best(of_target)
            if stopped[t] is None and since >= self.recipe.patience:
                stopped[t] = len(scores) - 1
        self.history = replace(self.history, scores=scores, best=best, stopped=stopped)

    @torch.no_grad()
    def keep_best(self) -> None:
        for parameter, best in zip(self.parameters, self.best, strict=True):
            parameter.copy_(best)

    def save(self, path: Path | None) -> None:
        """All that the rest of the run depends on, in one file that is written whole."""
        if path is None:
            return
        tensors = {f"now.{i}": p.detach().contiguous() for i, p in enumerate(self.parameters)}
        tensors |= {f"best.{i}": p.contiguous() for i, p in enumerate(self.best)}
        for i, parameter in enumerate(self.parameters):
            of_parameter = self.optimizer.state.get(parameter, {})
            tensors |= {f"{name}.{i}": value.contiguous() for name, value in of_parameter.items()}
        tensors |= {f"rng.{name}": value for name, value in _generators(self.parameters)}
        write_whole(path, save(tensors, {"history": json.dumps(asdict(self.history))}))

    @torch.no_grad()
    def load(self, path: Path) -> bool:
        """Go on from ``path``, if it is there. Raises SpecError for a file of another training."""
        if not path.exists():
            return False
        try:
            with safe_open(path, "pt") as file:
                history = History(**json.loads(file.metadata()["history"]))
                found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (not a dictionary)
            self._check(history, found)
            for i, parameter in enumerate(self.parameters):
                parameter.copy_(found[f"now.{i}"])
                self.best[i].copy_(found[f"best.{i}"])
                if f"step.{i}" in found:
                    self.optimizer.state[parameter] = {
                        name: found[f"{name}.{i}"].to("cpu" if name == "step" else parameter.device) for name in OF_ADAM
                    }
            self.history = history
            torch.set_rng_state(found["rng.cpu"])
            for name, value in found.items():
                if name.startswith("rng.cuda"):
                    torch.cuda.set_rng_state(value, int(name.removeprefix("rng.cuda")))
        except Exception as error:  # safetensors' own errors have no common base
            reason = str(error).splitlines()[0][:160] if str(error) else type(error).__name__
            raise SpecError(f"{path}", "must be the state of this training; remove it to begin anew", reason) from error
        return True

    def _check(self, history: History, found: Mapping[str, Tensor]) -> None:
        """Raise ValueError for a history or tensors that this training has not."""
        n, epochs = len(self.problem.targets), range(len(history.scores))
        numbers = all(len(scores) == n and all(isinstance(s, float | int) for s in scores) for scores in history.scores)
        if not (numbers and history.best in epochs and len(history.stopped) == n and type(history.steps) is int):
            raise ValueError("a history of something else")
        expected = {f"{kind}.{i}": p.shape for i, p in enumerate(self.parameters) for kind in ("now", "best")}
        for i, p in enumerate(self.parameters):
            if f"step.{i}" in found:
                expected |= {f"step.{i}": torch.Size([])} | {f"{name}.{i}": p.shape for name in OF_ADAM[1:]}
        if {name: t.shape for name, t in found.items() if not name.startswith("rng.")} != expected:
            raise ValueError("tensors of something else")


def _generators(parameters: Sequence[Tensor]) -> Iterator[tuple[str, Tensor]]:
    yield "cpu", torch.get_rng_state()
    for index in sorted({p.device.index or 0 for p in parameters if p.device.type == "cuda"}):
        yield f"cuda{index}", torch.cuda.get_rng_state(index)


def _rate(step: int, total: int, warmup: float) -> float:
    """The share of the largest learning rate at ``step``, counted from 0: up in a straight line, then down to zero."""
    rising = max(1, round(warmup * total))
    return min((step + 1) / rising, (total - step) / max(1, total - rising + 1))


def _mean(scores: Sequence[float]) -> float:
    known = [score for score in scores if not np.isnan(score)]
    return float(np.mean(known)) if known else -np.inf


def _first_best(scores: Sequence[float]) -> int:
    values = np.nan_to_num(np.array(scores), nan=-np.inf)
    return int(np.flatnonzero(values >= values.max() - TINY)[0])


def plain_batches(rows: Rows, rng: np.random.Generator, size: int) -> list[Rows]:
    """All of ``rows`` in random order, ``size`` at a time."""
    mixed = rng.permutation(rows)
    return [mixed[start : start + size] for start in range(0, len(mixed), size)]
