"""Does a probe hold on other texts? Fitted on one data set, tested on every other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from probekit.errors import InputError
from probekit.evaluate.executor import Counter, run_tasks
from probekit.evaluate.fit import METRIC, Fit, as_floats, fit_on, part_score, predict
from probekit.evaluate.question import Question, StateSource
from probekit.evaluate.run import plan_fits
from probekit.evaluate.table import best_layer
from probekit.metrics import SCORES, bootstrap_draws, interval
from probekit.spec import TRANSFER_COLUMNS, Listener, Silent
from probekit.tasks import Target


@dataclass(frozen=True)
class Domain:
    """One data set: its name, the states of one pooling, one target, and how to divide the rows."""

    name: str
    source: StateSource
    target: Target
    question: Question


@dataclass(frozen=True)
class TransferTask:
    """A layer of every domain, and each domain's fits (all domains' in the same order); small and picklable."""

    reads: tuple[Callable[[], NDArray[Any]], ...]
    fits: tuple[tuple[Fit, ...], ...]


@dataclass(frozen=True)
class TransferOutcome:
    """``predicted[a][b][i]``: the answers of fit i of domain a on the test rows of domain b's fit i.

    ``val[a][i]``: its score on domain a's own validation rows.
    """

    predicted: tuple[tuple[tuple[NDArray[Any], ...], ...], ...]
    val: tuple[tuple[float, ...], ...]


def transfer(
    domains: Sequence[Domain],
    *,
    model: str,
    executor: Executor | None = None,
    listener: Listener | None = None,
) -> pd.DataFrame:
    """Fit on each domain's training rows and test on every domain's test rows, at each layer.

    Returns one row per probe x pair x layer, columns ``TRANSFER_COLUMNS``. The domains share layers, pooling and target
    name. Where ``trained_on`` is ``tested_on``, the score is that of the layer table. ``selected``: the layer that is
    best on the validation rows of ``trained_on``; what is tested on decides nothing. Intervals as in the layer table,
    over rows or groups of ``tested_on``. ``n_duplicate``: test rows of ``tested_on`` whose exact text is in training or
    validation rows of ``trained_on``, the most of any seed. Raises as ``plan_transfer``.
    """
    fits = plan_transfer(domains)
    listener = listener or Silent()
    layers = domains[0].source.layers
    tasks = [TransferTask(tuple(partial(d.source.read, layer) for d in domains), fits) for layer in layers]
    listener.stage("transfer", total=len(tasks), unit="layers")
    found: list[TransferOutcome] = Counter(listener)(run_tasks(executor, transfer_layer, tasks))
    pairs = [(a, b) for a in range(len(domains)) for b in range(len(domains))]
    n_duplicate = {(a, b): _n_known(domains[a], fits[a], domains[b], fits[b]) for a, b in pairs}
    rows = []
    for probe in dict.fromkeys(fit.probe for fit in fits[0]):
        which = [i for i, fit in enumerate(fits[0]) if fit.probe == probe]
        for a in range(len(domains)):
            best = best_layer([[outcome.val[a][i] for i in which] for outcome in found])
            for k, outcome in enumerate(found):
                place = {"model": model, "layer": layers[k], "probe": probe, "selected": k == best}
                for b in range(len(domains)):
                    of_pair = _pair(domains, fits, outcome, a=a, b=b, which=which)
                    rows.append(place | of_pair | {"n_duplicate": n_duplicate[a, b]})
    return pd.DataFrame(rows, columns=list(TRANSFER_COLUMNS))


def plan_transfer(domains: Sequence[Domain]) -> tuple[tuple[Fit, ...], ...]:
    """The fits of every domain, in the same order.

    Raises InputError where the targets differ in kind or classes, SpecError for a probe that can't do it.
    """
    _check_targets(domains)
    return tuple(tuple(plan_fits(d.target, replace(d.question, controls=()))) for d in domains)


def transfer_warnings(table: pd.DataFrame) -> tuple[str, ...]:
    """What a careful reader must know: test texts that the probe had seen in the other data set."""
    pairs = table[table["trained_on"] != table["tested_on"]].drop_duplicates(["target", "trained_on", "tested_on"])
    known = pairs[pairs["n_duplicate"].fillna(0) > 0]
    return tuple(
        f"{row['target']}: {row['n_duplicate']:.0f} of {row['n_test']:.0f} test texts of {row['tested_on']} are in the "
        f"training or validation rows of {row['trained_on']}: the score there is not one of new texts"
        for row in known.to_dict("records")
    )


def transfer_layer(task: TransferTask) -> TransferOutcome:
    """Fit and predict one layer, on one BLAS thread."""
    with threadpool_limits(1):
        states = [as_floats(read()) for read in task.reads]
        predicted, val = [], []
        for X, fits in zip(states, task.fits, strict=True):
            estimators = [fit_on(X, fit).estimator for fit in fits]
            answers = [
                tuple(predict(e, Y[fit.split.test], fit.target) for e, fit in zip(estimators, others, strict=True))
                for Y, others in zip(states, task.fits, strict=True)
            ]
            predicted.append(tuple(answers))
            val.append(tuple(part_score(e, X, fit, fit.split.val) for e, fit in zip(estimators, fits, strict=True)))
        return TransferOutcome(tuple(predicted), tuple(val))


def _pair(
    domains: Sequence[Domain],
    fits: Sequence[Sequence[Fit]],
    outcome: TransferOutcome,
    *,
    a: int,
    b: int,
    which: list[int],
) -> dict[str, Any]:
    """What the probes ``which`` (of all seeds), fitted on domain a, are worth on domain b."""
    trained, tested = domains[a], domains[b]
    metric, groups = METRIC[tested.target.task.kind], tested.question.groups
    scores, draws = [], []
    for i in which:
        split, answers = fits[b][i].split, outcome.predicted[a][b][i]
        truth = tested.target.truth[split.test]
        of_row = None if groups is None else groups.values[split.test]
        scores.append(SCORES[metric](truth, answers))
        draws.append(bootstrap_draws(SCORES[metric], truth, answers[:, None], groups=of_row, seed=split.seed))
    low, high = interval(np.concatenate(draws))
    return {
        "target": trained.target.name,
        "pooling": trained.source.pooling,
        "metric": metric,
        "trained_on": trained.name,
        "tested_on": tested.name,
        "score": float(np.mean(scores)),
        "ci_low": low,
        "ci_high": high,
        "n_train": round(np.mean([len(fits[a][i].split.train) for i in which])),
        "n_test": round(np.mean([len(fits[b][i].split.test) for i in which])),
    }


def _n_known(trained: Domain, fits: Sequence[Fit], tested: Domain, others: Sequence[Fit]) -> float:
    """Test texts of one domain that are in training or validation rows of the other; NaN where texts are lacking."""
    known, texts = trained.question.texts, tested.question.texts
    if known is None or texts is None:
        return float("nan")
    most = 0
    for fit, other in zip(fits, others, strict=True):
        seen = {known[i] for i in (*fit.split.train, *fit.split.val)}
        most = max(most, sum(texts[i] in seen for i in other.split.test))
    return most


def _check_targets(domains: Sequence[Domain]) -> None:
    first = domains[0]
    for other in domains[1:]:
        if other.target.task.kind != first.target.task.kind:
            allowed = f"must be {first.target.task.kind} as in {first.name}"
            raise InputError(f"target {other.target.name!r} of {other.name}", allowed, other.target.task.kind)
        if not np.array_equal(other.target.classes, first.target.classes):
            mine, theirs = (", ".join(map(str, domain.target.classes[:6])) for domain in (first, other))
            allowed = f"must have the classes of {first.name}: {mine}"
            raise InputError(f"target {other.target.name!r} of {other.name}", allowed, theirs)
