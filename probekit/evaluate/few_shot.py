"""Few-shot curves: how good a probe is after k rows of each class, over many draws of those rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import Normalizer, StandardScaler
from threadpoolctl import threadpool_limits

from probekit.errors import InputError, SpecError
from probekit.evaluate.executor import Counter, run_tasks
from probekit.evaluate.fit import METRIC, as_floats, predict
from probekit.evaluate.question import Question, StateSource, splits_for
from probekit.evaluate.table import Origin
from probekit.metrics import SCORES
from probekit.probes import FittedProbe, Folds
from probekit.probes.grid_search import fit_once
from probekit.probes.multilabel import fit_columns
from probekit.spec import SHOT_COLUMNS, Listener, Silent
from probekit.splits import Split, own_parts
from probekit.tasks import Target

MTEB_SEED = 42


@dataclass(frozen=True)
class Shots:
    """How many rows to learn from: each of ``shots``, ``draws`` times.

    Of every class; in all, for numbers; with each label, where rows have several. ``protocol``: "probekit" or "mteb", a
    key of ``PROTOCOLS``.
    """

    shots: tuple[int, ...]
    draws: int = 10
    protocol: str = "probekit"


MTEB = Shots((8,), 10, "mteb")
"""The classification protocol of MTEB (Muennighoff et al. 2023), as its code has it."""


@dataclass(frozen=True)
class ShotFit:
    """All draws of one target and split: ``samples[shots][draw]`` are rows to learn from, ``test`` to be scored on."""

    target: Target
    probe: str
    samples: tuple[tuple[NDArray[np.int64], ...], ...]
    test: NDArray[np.int64]


@dataclass(frozen=True)
class ShotTask:
    """A layer and the few-shot fits on it; small and picklable."""

    read: Callable[[], NDArray[Any]]
    fits: tuple[ShotFit, ...]


def few_shots(
    sources: Sequence[StateSource],
    targets: Sequence[Target],
    question: Question,
    *,
    shots: Shots,
    origin: Origin,
    executor: Executor | None = None,
    listener: Listener | None = None,
) -> pd.DataFrame:
    """Mean, standard deviation and 2.5 to 97.5% of the test score over draws, columns ``SHOT_COLUMNS``.

    One row per target x pooling x layer x number of shots. Draws are nested: those of 4 shots are among those of 8. The
    draws of all splits stand together. Raises as ``plan_shots``.
    """
    listener = listener or Silent()
    fits = plan_shots(targets, question, shots)
    places = [(source, layer) for source in sources for layer in source.layers]
    tasks = [ShotTask(partial(source.read, layer), fits) for source, layer in places]
    listener.stage("few shots", total=len(tasks), unit="layers")
    found: list[list[NDArray[np.float64]]] = Counter(listener)(run_tasks(executor, shot_scores, tasks))
    rows = []
    for target in targets:
        of_target = [i for i, fit in enumerate(fits) if fit.target is target]
        for (source, layer), scores in zip(places, found, strict=True):
            curve = {
                "model": origin.model,
                "dataset": origin.dataset,
                "target": target.name,
                "pooling": source.pooling,
                "layer": layer,
                "protocol": shots.protocol,
                "probe": fits[of_target[0]].probe,
                "metric": METRIC[target.task.kind],
                "cache": origin.cache,
            }
            drawn = np.concatenate([scores[i] for i in of_target], axis=1)
            rows += [curve | row for row in _summaries(shots.shots, drawn)]
    return pd.DataFrame(rows, columns=list(SHOT_COLUMNS))


def plan_shots(targets: Sequence[Target], question: Question, shots: Shots) -> tuple[ShotFit, ...]:
    """All that is to be drawn, by target and split.

    Raises SpecError for impossible shots, or mteb's protocol on other things than classes; InputError for a class or
    label with too few rows.
    """
    if not shots.shots or min(shots.shots) < 1 or shots.draws < 1:
        raise SpecError("--shots, --draws", "numbers from 1")
    return tuple(fit for target in targets for fit in PROTOCOLS[shots.protocol](target, question, shots))


def shot_scores(task: ShotTask) -> list[NDArray[np.float64]]:
    """The test scores of each fit, (n_shots, n_draws), on one BLAS thread."""
    with threadpool_limits(1):
        X = as_floats(task.read())
        return [
            np.array([[_one_score(X, fit, rows) for rows in draws] for draws in fit.samples], dtype=np.float64)
            for fit in task.fits
        ]


def _one_score(X: NDArray[Any], fit: ShotFit, rows: NDArray[np.int64]) -> float:
    y, of_one = fit.target.y[rows], partial(_fit_fixed, fit.probe)
    fitted = (fit_columns(of_one, X[rows], y, folds=(), seed=0) if y.ndim == 2 else of_one(X[rows], y)).estimator
    predicted = predict(fitted, X[fit.test], fit.target)
    return SCORES[METRIC[fit.target.task.kind]](fit.target.truth[fit.test], predicted)


def _fit_fixed(probe: str, X: NDArray[Any], y: NDArray[Any], *, folds: Folds = (), seed: int = 0) -> FittedProbe:  # noqa: ARG001
    """As every kind of probe is fitted, but that there is nothing to choose."""
    return fit_once(UNFITTED[probe](X.shape[1]), X, y)


UNFITTED: dict[str, Callable[[int], BaseEstimator]] = {
    "logistic": lambda _: make_pipeline(StandardScaler(), LogisticRegression(C=1.0, max_iter=1000)),
    "ridge": lambda d: make_pipeline(StandardScaler(), Ridge(alpha=d)),
    "mteb": lambda _: make_pipeline(Normalizer(), LogisticRegression(C=1.0, max_iter=100, random_state=MTEB_SEED)),
}
"""By the width of the states. So few rows can't choose a hyper-parameter: it is fixed."""


def _summaries(shots: tuple[int, ...], scores: NDArray[np.float64]) -> Iterator[dict[str, Any]]:
    for k, drawn in zip(shots, scores, strict=True):
        low, high = np.quantile(drawn, [0.025, 0.975])
        sd = float(np.std(drawn, ddof=1)) if len(drawn) > 1 else float("nan")
        mean = float(np.mean(drawn))
        yield {"shots": k, "draws": len(drawn), "mean": mean, "sd": sd, "low": float(low), "high": float(high)}


def _nested_draws(target: Target, question: Question, shots: Shots) -> list[ShotFit]:
    """The first k (of each class) of the shuffled training rows, for each split."""
    fits = []
    for split in splits_for(target, question):
        _check_enough(target, split, max(shots.shots))
        orders = [np.random.default_rng([split.seed, draw]).permutation(split.train) for draw in range(shots.draws)]
        samples = tuple(tuple(_first(order, target, k) for order in orders) for k in shots.shots)
        fits.append(ShotFit(target, "logistic" if len(target.classes) else "ridge", samples, split.test))
    return fits


def _check_enough(target: Target, split: Split, k: int) -> None:
    counts = np.array([np.count_nonzero(members) for members in _members(target, split.train)])
    few = np.flatnonzero((counts < k) & (counts > 0))
    if len(few):
        what = f"column {target.name!r}"
        if len(target.classes):
            what = f"{'class' if target.is_classes else 'label'} {target.classes[few[0]]!s}"
        raise InputError(f"--shots {k}", f"{what} has {counts[few[0]]} training rows")


def _members(target: Target, rows: NDArray[np.int64]) -> list[NDArray[np.bool_]]:
    """Of what so many rows are drawn: (n_rows,) who has a class or label, for each; all of them, for numbers."""
    if not len(target.classes):
        return [np.ones(len(rows), dtype=np.bool_)]
    if target.is_classes:
        return [target.codes[rows] == code for code in range(len(target.classes))]
    return [column == 1 for column in target.y[rows].T]


def _mteb_draws(target: Target, question: Question, shots: Shots) -> list[ShotFit]:
    """MTEB's: the same seed for every draw, but each shuffles the order that the one before it left.

    The rows to draw from are all that neither test nor are the input's own validation rows, in the order of the input.
    """
    if not target.is_classes:
        holds = "several labels per text" if len(target.classes) else "numbers"
        raise SpecError("--protocol mteb", f"is for classes; column {target.name!r} holds {holds}")
    split = splits_for(target, question)[0]
    own_validation = len(own_parts(target, question.split)["val"]) > 0
    order = np.sort(split.train if own_validation else np.concatenate([split.train, split.val]))
    drawn = []
    for _ in range(shots.draws):
        np.random.RandomState(MTEB_SEED).shuffle(order)
        drawn.append(tuple(_first(order, target, k) for k in shots.shots))
    return [ShotFit(target, "mteb", tuple(zip(*drawn, strict=True)), split.test)]


def _first(order: NDArray[np.int64], target: Target, k: int) -> NDArray[np.int64]:
    """The first k rows of each class (or the first k) in ``order``, keeping it.

    Where rows have several labels: the first k that have each label, so that some labels may occur more often.
    """
    drawn = np.zeros(len(order), dtype=np.bool_)
    for members in _members(target, order):
        drawn[np.flatnonzero(members)[:k]] = True
    return order[drawn]


PROTOCOLS: dict[str, Callable[[Target, Question, Shots], list[ShotFit]]] = {
    "probekit": _nested_draws,
    "mteb": _mteb_draws,
}
