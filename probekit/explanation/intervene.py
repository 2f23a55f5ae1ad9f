"""The passes of an intervention: every token's state at a layer changed, and the blocks above it run."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray

from probekit.errors import DiskError, InputError
from probekit.explanation.effects import Spoken, StatesAbove, score
from probekit.explanation.erase import Change
from probekit.explanation.intervention import InterventionPlan, InterventionResult, as_record
from probekit.explanation.upper import Above, Upper, UpperRequest, open_upper
from probekit.models.source import ModelSource
from probekit.readspec import RunOptions
from probekit.spec import Listener


def run_intervention(
    plan: InterventionPlan,
    source: ModelSource,
    run: RunOptions,
    *,
    executor: Executor | None,
    listener: Listener,
) -> InterventionResult:
    """Run the model on changed states, then fit and score. In memory are one batch and one layer at a time.

    Raises as ``open_upper``; InputError where what comes out is not finite.
    """
    request = UpperRequest(plan.layer, plan.layers, plan.pooling, plan.options.answer)
    with TemporaryDirectory(prefix="probekit-") as folder:
        with open_upper(plan.cache, request, source, run, rows=plan.split.train, listener=listener) as upper:
            above, spoken = _read(plan, upper, Path(folder) / "states", listener)
        found = score(plan, above, spoken, executor=executor, listener=listener)
    record = {"starts": {"from": upper.begins, "difference": upper.difference}}
    return replace(found, record=as_record(plan, record))


def _read(plan: InterventionPlan, upper: Upper, path: Path, listener: Listener) -> tuple[StatesAbove, Spoken | None]:
    """Training and test rows, each batch once for every change; test rows of untouched states too, if a head speaks."""
    train, test = plan.split.train, plan.split.test
    batches = [(batch, False) for batch in upper.batches(train)] + [(batch, True) for batch in upper.batches(test)]
    order = np.concatenate([batch for batch, _ in batches])
    row_of = np.full(plan.cache.n_examples, -1, dtype=np.int64)
    row_of[order] = np.arange(len(order))
    layers = (plan.layer, *plan.layers)
    above = StatesAbove(path, layers, len(order), plan.cache.d_model, row_of)
    spoken = None if upper.head is None else _Said(plan, upper, row_of[test])
    listener.stage("running the blocks above", total=len(order), unit="texts")
    done = 0
    with path.open("wb") as file:
        for batch, is_test in batches:
            states = upper.starts(batch)
            speak = is_test and spoken is not None
            changes: list[Change | None] = [*([None] if speak else []), *plan.changes]
            for number, change in enumerate(changes, start=len(plan.changes) - len(changes)):
                found = upper.changed(batch, states, change, layers, speak=speak)
                if change is not None:
                    _write(file.fileno(), above, number, done, found.pooled)
                if speak and spoken is not None:
                    spoken.take(number + 1, done, found)
            done += len(batch)
            listener.advance(done)
    return above, None if spoken is None else spoken.all()


def _write(file: int, above: StatesAbove, change: int, row: int, pooled: Sequence[NDArray[np.float32]]) -> None:
    """The rows of a batch, from ``row`` on, of each layer."""
    for layer, states in zip(above.layers, pooled, strict=True):
        data = np.ascontiguousarray(states, dtype=np.float32).tobytes()
        place = above.place(change, layer) + 4 * row * above.d_model
        try:
            written = os.pwrite(file, data, place)
        except OSError as error:
            raise DiskError(str(above.path.parent), "can't be written", error.strerror or str(error)) from error
        if written < len(data):
            raise DiskError(str(above.path.parent), "is full", f"{written} of {len(data)} bytes written")


class _Said:
    """Losses and answers of the test rows, as they come."""

    def __init__(self, plan: InterventionPlan, upper: Upper, rows: NDArray[np.int64]) -> None:
        shape = (1 + len(plan.changes), int(rows.max()) + 1)
        self.losses = np.full(shape, np.nan)
        self.answers = None if upper.words is None else np.full(shape, np.nan)
        self.rows, self.layer = rows, plan.layer

    def take(self, number: int, row: int, found: Above) -> None:
        """Of the untouched states (0) or a change, from ``row`` on. Raises InputError for infinite values."""
        for whole, part in ((self.losses, found.losses), (self.answers, found.answers)):
            if whole is None or part is None:
                continue
            if np.isinf(part).any() or (part is found.answers and np.isnan(part).any()):
                raise InputError(f"the model above layer {self.layer}", "must say its next token", "NaN or infinity")
            whole[number, row : row + len(part)] = part

    def all(self) -> Spoken:
        """In the order of the test rows."""
        return Spoken(self.losses[:, self.rows], None if self.answers is None else self.answers[:, self.rows])
