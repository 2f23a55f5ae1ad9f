"""What became of the label above a layer that was changed: the rows of the table, with intervals over test rows."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from probekit.evaluate.executor import Counter, run_units
from probekit.evaluate.fit import Elsewhere, LayerOutcomes, Outcome, Place, fit_layer
from probekit.evaluate.states import LayerReader
from probekit.explanation.effects_said import verdict
from probekit.explanation.intervention import (
    ANSWER,
    INTERVENTION_COLUMNS,
    LOSS,
    PROBE,
    InterventionPlan,
    InterventionResult,
)
from probekit.metrics.bootstrap import bootstrap_terms, interval
from probekit.spec import Json, Listener

BINS = 512
"""Of scores, in which a resampled AUROC is counted: exact up to so many different ones, beyond that to a thousandth."""


@dataclass(frozen=True)
class Spoken:
    """What a language model said of the test rows: of untouched states, then of each change.

    ``losses``: (1 + n_changes, n_test) nats; ``answers``: the same, logit of the second word minus the first, or None.
    """

    losses: NDArray[np.float64]
    answers: NDArray[np.float64] | None


@dataclass(frozen=True)
class StatesAbove:
    """Pooled states that were read of changed ones, in one file: float32 (n_changes, n_layers, n_rows, d_model).

    ``row_of``: (n_examples,) place of an example's row among the ``n_rows``.
    """

    path: Path
    layers: tuple[int, ...]
    n_rows: int
    d_model: int
    row_of: NDArray[np.int64]

    def place(self, change: int, layer: int) -> int:
        """Where in the file the rows of a change and a layer begin, in bytes."""
        return 4 * (change * len(self.layers) + self.layers.index(layer)) * self.n_rows * self.d_model

    def read(self, change: int, layer: int) -> RowsAbove:
        """The rows of a change and a layer."""
        n = self.n_rows * self.d_model
        found = np.fromfile(self.path, dtype=np.float32, count=n, offset=self.place(change, layer))
        return RowsAbove(found.reshape(self.n_rows, self.d_model), self.row_of)


@dataclass(frozen=True, eq=False)
class RowsAbove:
    """``States`` of the examples that were read."""

    states: NDArray[np.float32]
    row_of: NDArray[np.int64]

    def rows(self, which: NDArray[np.int64]) -> NDArray[np.float32]:
        """(len(which), d_model)."""
        return self.states[self.row_of[which]]


def score(
    plan: InterventionPlan,
    above: StatesAbove,
    spoken: Spoken | None,
    *,
    executor: Executor | None,
    listener: Listener,
) -> InterventionResult:
    """Fit and answer at every layer, and put the table together.

    The probes of untouched states are fitted on the cache's own, as ``probekit.probe`` fits them.
    """
    names = ["changed", *(f"random {i + 1}" for i in range(len(plan.randoms)))]
    fit = plan.fit
    test = fit.split.test
    fits = (
        replace(fit, elsewhere=tuple(Elsewhere(name, fit.target, test) for name in names)),
        *(replace(fit, features=name, role=name) for name in names),
    )
    reads: dict[str, Any] = {"states": LayerReader(plan.source.read)}
    for i, name in enumerate(names):
        reads[name] = LayerReader(partial(above.read, i), f" above the {name} layer {plan.layer}")
    place = Place(reads, fits)
    layers = (plan.layer, *plan.layers)
    listener.stage("probing", total=len(layers), unit="layers")
    done: list[LayerOutcomes] = Counter(listener)(run_units(executor, fit_layer, [place], [(0, k) for k in layers]))
    rows = [_probe_row(plan, found.layer, [found.outcomes[i] for i in range(len(fits))]) for found in done]
    if spoken is not None:
        rows += _spoken_rows(plan, spoken)
    import pandas as pd

    table = pd.DataFrame(rows, columns=list(INTERVENTION_COLUMNS))
    warnings = list(plan.warnings)
    slow = [str(found.layer) for found in done if not all(one.converged for one in found.outcomes.values())]
    if slow:
        warnings.append(f"fits did not converge at layer {', '.join(slow)}")
    if spoken is not None and spoken.answers is not None and rows[-1]["score_before"] < 0.5:
        warnings.append("the model's answer goes against the label (AUROC below 0.5): are the words in its order?")
    return InterventionResult(table, verdict(table), tuple(warnings))


def _probe_row(plan: InterventionPlan, layer: int, found: Sequence[Outcome]) -> Json:
    """``found``: of the untouched states, then of each change."""
    fit, task, test = plan.fit, plan.target.task, plan.fit.split.test
    base, again = found[0], found[1:]
    answers = [base.predicted, *base.elsewhere, *(outcome.predicted for outcome in again)]
    terms = np.stack([task.terms(plan.target, test, one) for one in answers], axis=1)
    scores = np.array([task.score(plan.target, test, one) for one in answers])
    draws = bootstrap_terms(task.value, terms, groups=_groups(plan), seed=plan.options.seed)
    n = len(plan.changes)
    fixed, refitted = scores[1 : n + 1], scores[n + 1 :]
    better = np.where(fixed >= refitted, np.arange(1, n + 1), np.arange(n + 1, 2 * n + 1))
    low, high = interval(draws[:, better[1:]].mean(axis=1) - draws[:, better[0]])
    row = {
        **_begin(plan, PROBE),
        "layer": layer,
        "metric": task.metric,
        "baseline": task.score(plan.target, test, task.dummy(plan.target, fit.split.train, test)),
        "score_before": scores[0],
        "score_fixed": fixed[0],
        "score_refitted": refitted[0],
        "random_fixed": float(fixed[1:].mean()),
        "random_refitted": float(refitted[1:].mean()),
        "random_sd": float(scores[better[1:]].std()),
        "causal_drop": scores[0] - scores[better[0]],
        "causal_random": scores[0] - float(scores[better[1:]].mean()),
        "beyond_random": float(scores[better[1:]].mean()) - scores[better[0]],
        "ci_low": low,
        "ci_high": high,
    }
    if plan.options.steer is not None:
        moved = np.stack([np.asarray(one, dtype=np.float64) for one in answers[: n + 1]])
        row |= _shift(plan, moved)
    return row


def _spoken_rows(plan: InterventionPlan, spoken: Spoken) -> list[Json]:
    """Of the loss, and of the answer if there is one."""
    rows = [_loss_row(plan, spoken.losses)]
    if spoken.answers is not None:
        rows.append(_answer_row(plan, spoken.answers))
    return rows


def _loss_row(plan: InterventionPlan, losses: NDArray[np.float64]) -> Json:
    """A text of one token has no loss and is left out."""
    there = np.asarray(~np.isnan(losses).any(axis=0))
    shown = {**_begin(plan, LOSS), "metric": "nats"}
    if not there.any():
        return shown
    losses = losses[:, there]
    means = losses.mean(axis=1)
    beyond, low, high = _mean_beyond(plan, losses[1], losses[2:].mean(axis=0), there)
    return {
        **shown,
        "score_before": means[0],
        "score_fixed": means[1],
        "random_fixed": float(means[2:].mean()),
        "random_sd": float(means[2:].std()),
        "causal_drop": means[1] - means[0],
        "causal_random": float(means[2:].mean()) - means[0],
        "beyond_random": beyond,
        "ci_low": low,
        "ci_high": high,
    }


def _answer_row(plan: InterventionPlan, answers: NDArray[np.float64]) -> Json:
    positive = plan.target.codes[plan.split.test] == 1
    scores = np.array([roc_auc_score(positive, one) for one in answers])
    draws = np.stack([_auroc_draws(plan, positive, one) for one in answers], axis=1)
    low, high = interval(draws[:, 2:].mean(axis=1) - draws[:, 1])
    row = {
        **_begin(plan, ANSWER),
        "metric": "auroc",
        "baseline": 0.5,
        "score_before": scores[0],
        "score_fixed": scores[1],
        "random_fixed": float(scores[2:].mean()),
        "random_sd": float(scores[2:].std()),
        "causal_drop": scores[0] - scores[1],
        "causal_random": scores[0] - float(scores[2:].mean()),
        "beyond_random": float(scores[2:].mean()) - scores[1],
        "ci_low": low,
        "ci_high": high,
    }
    return row | (_shift(plan, answers) if plan.options.steer is not None else {})


def _begin(plan: InterventionPlan, measure: str) -> Json:
    """What all rows have."""
    options, card = plan.options, plan.asked.card
    return {
        "layer": int(plan.cache.spec["n_layers"]),
        "model": plan.origin.model,
        "dataset": plan.origin.dataset,
        "target": plan.target.name,
        "task": plan.target.task.name,
        "pooling": plan.pooling,
        "probe": plan.fit.probe.name if measure == PROBE else str(card.get("probe", "")),
        "erased_at": plan.layer,
        "erase": options.erase,
        "rank": plan.change.rank,
        "steer": options.steer,
        "measure": measure,
        "variance_removed": plan.variance[0],
        "random_variance": plan.variance[1],
        "n_train": len(plan.split.train),
        "n_test": len(plan.split.test),
        "n_random": len(plan.randoms),
        "seed": options.seed,
        "cache": plan.origin.cache,
    }


def _shift(plan: InterventionPlan, answers: NDArray[np.float64]) -> Json:
    """How the mean of ``answers`` (1 + n_changes, n_test) moves, of the untouched states and then of each change."""
    means = answers.mean(axis=1)
    _, low, high = _mean_beyond(plan, answers[1], answers[2:].mean(axis=0), np.ones(answers.shape[1], dtype=np.bool_))
    return {
        "shift": means[1] - means[0],
        "random_shift": float(means[2:].mean()) - means[0],
        "shift_low": low,
        "shift_high": high,
    }


def _mean_beyond(
    plan: InterventionPlan, mine: NDArray[np.float64], random: NDArray[np.float64], there: NDArray[np.bool_]
) -> tuple[float, float, float]:
    """The mean of ``mine - random`` over the test rows that are ``there``, and its interval."""
    difference, groups = mine - random, _groups(plan)
    terms = np.column_stack([difference, np.ones(len(difference))])[:, None, :]
    draws = bootstrap_terms(
        lambda sums: sums[..., 0] / sums[..., 1],
        terms,
        groups=None if groups is None else groups[there],
        seed=plan.options.seed,
    )
    low, high = interval(draws)
    return float(difference.mean()), low, high


def _auroc_draws(
    plan: InterventionPlan, positive: NDArray[np.bool_], scores: NDArray[np.float64]
) -> NDArray[np.float64]:
    """(n_draws,) AUROC of resampled test rows, counted in bins of equal scores, or of nearly equal ones if many."""
    order = np.unique(scores, return_inverse=True)[1]
    ranks = order if order.max() < BINS else order * BINS // (order.max() + 1)
    terms = np.zeros((len(scores), 1, 2 * BINS))
    terms[np.arange(len(scores)), 0, ranks + BINS * positive] = 1.0
    found = bootstrap_terms(_auroc_of_counts, terms, groups=_groups(plan), seed=plan.options.seed)
    return found[:, 0]


def _auroc_of_counts(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of how many negatives and positives lie in each bin: the share of pairs in order, ties counting half."""
    negative, positive = sums[..., :BINS], sums[..., BINS:]
    below = np.cumsum(negative, axis=-1) - negative
    pairs = negative.sum(axis=-1) * positive.sum(axis=-1)
    found = (positive * (below + negative / 2)).sum(axis=-1)
    return np.asarray(np.divide(found, pairs, out=np.full(np.shape(pairs), np.nan), where=pairs != 0))


def _groups(plan: InterventionPlan) -> NDArray[Any] | None:
    groups = plan.config.groups
    return None if groups is None else np.asarray(groups.values)[plan.split.test]
