"""The one fit at a layer: a target, a split and a probe, on the states of a layer. Everything fitted goes through it.

Probes, taggers, controls, baselines, few-shot draws and transfer are lists of ``Fit``; what they do with the outcomes
differs, how they are fitted does not.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from sklearn.base import BaseEstimator
from threadpoolctl import threadpool_limits

from probekit.errors import ProbekitError, SpecError
from probekit.evaluate.config import StateSource
from probekit.evaluate.mdl import probe_code_bits
from probekit.evaluate.states import LayerStates, Read
from probekit.probes import Folds, Probe
from probekit.splits import Split
from probekit.tasks import States, Target
from probekit.tasks.task import Codes, Units

ALL_PARTS = ("train", "val", "test")
NAN = float("nan")


class Elsewhere(NamedTuple):
    """Other units to answer for: ``features`` names the place's states that hold their rows."""

    features: str
    target: Target
    units: Units


@dataclass(frozen=True)
class Fit:
    """What is fitted: a target x a split x a probe.

    ``folds``: inner folds, as positions among the rows that are fitted on. ``train``: units whose readable rows these
    are; ``keep``: the same for the probe that is kept. ``role``: what the outcome is for, and ``features`` which of the
    place's states it is fitted on. ``control``: (n_rows,) codes of a control task that the same probe with the same
    hyper-parameters learns, or None. ``viterbi``: decode whole sentences. ``mdl``: measure the online code.
    ``parts``: those that are answered and scored. ``whole``: give the estimator and all metrics of the test part, not
    scores alone. ``elsewhere``: what else is answered.
    """

    target: Target
    split: Split
    probe: Probe
    folds: Folds
    train: Units
    keep: Units
    role: str = "probe"
    features: str = "states"
    control: Codes | None = None
    viterbi: bool = False
    mdl: bool = False
    parts: tuple[str, ...] = ALL_PARTS
    whole: bool = True
    elsewhere: tuple[Elsewhere, ...] = ()

    @property
    def key(self) -> Key:
        """What tells it from others of a place."""
        return Key(self.target.name, self.probe.name, self.split.seed, self.role)

    def takes(self, source: StateSource) -> bool:
        """Whether the probe is one of such states."""
        return self.probe.of_tokens == source.of_tokens

    def units(self, part: str) -> Units:
        """The units of a part; of "train" those that are fitted on."""
        return self.train if part == "train" else np.asarray(getattr(self.split, part))


class Key(NamedTuple):
    """Which fit an outcome is of."""

    target: str
    probe: str
    seed: int
    role: str


@dataclass(frozen=True)
class Place:
    """Where states come from, by name and layer, and what is fitted on them. Picklable, if there is an executor."""

    reads: Mapping[str, Read]
    fits: tuple[Fit, ...]


@dataclass(frozen=True)
class Outcome:
    """What a fit gave. ``scores``: by part; ``score``: of the test part. ``predicted``: answers for its rows.

    ``metrics``: of the test part. ``control_score``: share of its rows that the control task's probe answers right.
    ``mdl_bits``: the online code of the training labels. ``elsewhere``: answers, one for each of ``Fit.elsewhere``. NaN
    and None where not asked for.
    """

    scores: Mapping[str, float]
    score: float = NAN
    predicted: Codes = field(default_factory=lambda: np.empty(0))
    estimator: BaseEstimator | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    regularisation: float = NAN
    grid_edge: bool = False
    converged: bool = True
    control_score: float = NAN
    mdl_bits: float = NAN
    elsewhere: tuple[Codes, ...] = ()


@dataclass(frozen=True)
class LayerOutcomes:
    """The outcomes of a place's fits at one layer, by their positions; none where there are no such features.

    ``max_abs``: largest absolute value of the states; ``pair_cosine``: mean cosine of random pairs of rows.
    """

    layer: int
    max_abs: float
    pair_cosine: float
    outcomes: Mapping[int, Outcome]

    def by_key(self, place: Place) -> dict[Key, Outcome]:
        """Which outcome is whose."""
        return {place.fits[i].key: outcome for i, outcome in self.outcomes.items()}


def fit_layer(places: Sequence[Place], unit: tuple[int, int]) -> LayerOutcomes:
    """Fit all that is asked for at a place and layer, ``unit``, on one BLAS thread.

    One thread because workers are as many as cores, and so that the numbers don't depend on how many there are. States
    are read once, and let go before the next ones are read, unless a fit answers elsewhere.

    Raises InputError if a layer holds NaN or infinite values.
    """
    place, layer = places[unit[0]], unit[1]
    found: dict[int, Outcome] = {}
    opened: dict[str, LayerStates | None] = {}
    names = dict.fromkeys(fit.features for fit in place.fits)
    keep_all = any(fit.elsewhere for fit in place.fits)
    with threadpool_limits(1):
        if keep_all:
            opened = {name: place.reads[name](layer, {}) for name in names}
        largest = cosine = NAN
        for name in names:
            opened = opened if keep_all else {name: place.reads[name](layer, opened)}
            states = opened[name]
            if states is None:
                continue
            found |= {i: _fit(opened, fit) for i, fit in enumerate(place.fits) if fit.features == name}
            if name == "states":
                largest, cosine = states.largest, states.pair_cosine
    return LayerOutcomes(layer, largest, cosine, found)


def _fit(opened: Mapping[str, LayerStates | None], fit: Fit) -> Outcome:
    """Fit, answer and score. Nothing is chosen by what comes out for the test rows."""
    target, task, states = fit.target, fit.target.task, _there(opened, fit.features)
    rows, seed = target.readable(fit.train), fit.split.seed
    X, y = states.rows(rows), target.y[rows]
    fitted = (fit.probe.fit_labels if task.several else fit.probe.fit)(X, y, folds=fit.folds, seed=seed)
    control = None
    if fit.control is not None:
        control = fit.probe.refit(fitted.estimator, X, target.classes[fit.control[rows]], seed=seed).estimator
    bits = probe_code_bits(fitted, X, target.codes[rows], len(target.classes)) if fit.mdl else NAN
    del X
    with _answering(fit.probe):
        answers = {p: task.predict(target, states, fitted.estimator, fit.units(p), fit.viterbi) for p in fit.parts}
    if any(given.dtype.kind == "f" and not np.isfinite(given).all() for given in answers.values()):
        raise SpecError(f"probe {fit.probe.name}", "must answer every row with a finite number", "NaN or infinity")
    scores = {part: task.score(target, fit.units(part), given) for part, given in answers.items()}
    more = tuple(
        task.predict(other, _there(opened, features), fitted.estimator, units, fit.viterbi)
        for features, other, units in fit.elsewhere
    )
    if not fit.whole:
        return Outcome(scores, scores.get("test", NAN), elsewhere=more)
    test, metrics = fit.split.test, metrics_of_test(fit, states, fitted.estimator, answers["test"])
    control_score = NAN
    if control is not None and fit.control is not None:
        of_control = task.predict(target, states, control, test, False)
        control_score = float(np.mean(of_control == fit.control[target.rows_of(test)]))
    return Outcome(
        scores=scores,
        score=metrics[task.metric],
        predicted=answers["test"],
        estimator=fitted.estimator,
        metrics=metrics,
        regularisation=fitted.regularisation,
        grid_edge=fitted.grid_edge,
        converged=fitted.converged,
        control_score=control_score,
        mdl_bits=bits,
        elsewhere=more,
    )


def metrics_of_test(fit: Fit, states: States, estimator: BaseEstimator, answers: Codes) -> dict[str, float]:
    """All metrics of the test rows, for which ``estimator`` gave ``answers``."""
    target, task, test = fit.target, fit.target.task, fit.split.test
    probability = task.probability(target, states, estimator, test)
    metrics = task.metrics(target, fit.split.train, test, answers, probability)
    if fit.viterbi:
        alone = task.predict(target, states, estimator, test, False)
        metrics["viterbi_gain"] = task.score(target, test, answers) - task.score(target, test, alone)
    return metrics


@contextmanager
def _answering(probe: Probe) -> Iterator[None]:
    """An estimator of the user's own may raise whatever it likes; it becomes a SpecError."""
    try:
        yield
    except Exception as error:
        if not probe.own or isinstance(error, ProbekitError | MemoryError):
            raise
        got = f"{type(error).__name__}: {error}".split("\n")[0][:160]
        raise SpecError(f"probe {probe.name}", "must be able to answer for every row", got) from error


def _there(opened: Mapping[str, LayerStates | None], features: str) -> LayerStates:
    states = opened[features]
    if states is None:
        raise LookupError(features)
    return states


@dataclass(frozen=True)
class Refit:
    """A probe to be fitted once more for keeping: fit ``fit`` of ``place`` at ``layer``, which gave ``estimator``."""

    place: int
    layer: int
    fit: int
    estimator: BaseEstimator


@dataclass(frozen=True)
class Kept:
    """A refitted probe. ``predicted``: its answers for the test rows. ``n_fitted``: units that it was fitted on."""

    estimator: BaseEstimator
    predicted: Codes
    n_fitted: int
    converged: bool


def refit_probe(places: Sequence[Place], again: Refit) -> Kept:
    """Refit on training and validation rows, on one BLAS thread. All choices were made before, without these rows."""
    place = places[again.place]
    fit = place.fits[again.fit]
    target, rows = fit.target, fit.target.readable(fit.keep)
    with threadpool_limits(1):
        states = _there({fit.features: place.reads[fit.features](again.layer, {})}, fit.features)
        fitted = fit.probe.refit(again.estimator, states.rows(rows), target.y[rows], seed=fit.split.seed)
        predicted = target.task.predict(target, states, fitted.estimator, fit.split.test, fit.viterbi)
    return Kept(fitted.estimator, predicted, len(fit.keep), fitted.converged)
