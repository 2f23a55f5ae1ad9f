"""What a kind of target is: one object that all other parts ask, so that none of them knows a task by its name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator

from probekit.metrics.score import SCORES
from probekit.spec import Json

if TYPE_CHECKING:
    from probekit.tasks.target import Target

Units = NDArray[np.int64]
"""(n_units,) positions of texts, or of sentences where words have tags: what is split, grouped and resampled."""

Codes = NDArray[Any]
"""Answers for rows in the form of ``Target.truth``: class codes, numbers, or 0 and 1 by label."""


class States(Protocol):
    """The features of one layer, a vector per row (a text, or a word), read as they are needed."""

    def rows(self, which: NDArray[np.int64]) -> Any:
        """(len(which), d) of the rows ``which``."""


@dataclass(frozen=True)
class Task:
    """One kind of target. A unit is what is split (a text, a sentence), a row is what a probe answers for.

    ``name``: in tables, cards and ``--task``. ``metric``: the score that chooses the layer, a key of
    ``metrics.SCORES``. ``columns``: all metrics of the layer table. ``probe``: fitted where none is asked for.
    ``ability``: what a probe must be able to do. ``stratified``: parts keep the classes in proportion. ``several``: a
    row has any number of the classes. ``of_words``: rows are the words of sentences; ``unread_code(classes)`` is then
    what a word without sub-tokens is taken to be. ``entities``: tags say where entities begin and go on.
    ``control_metric``: by which the control is compared, if not by the score.

    - ``predict(target, states, estimator, units, viterbi)``: answers for all rows of ``units``, unit after unit.
    - ``probability(target, states, estimator, units)``: (n_units, n_classes), or None for a probe that has none.
    - ``terms(target, units, answers)``: (n_units, n_terms) what each unit adds to the sums of the score.
    - ``metrics(target, train, test, answers, probability)``: the columns.
    - ``dummy(target, train, test)``: answers that need no text.
    - ``class_rows(target, tests, answers)``: rows of the per-class table, over the test units of all seeds.

    Texts for people: ``dummy_name`` and ``text_baseline`` are what a score is held against; ``unit`` what rows of a
    part are; ``few`` what is drawn for few-shot curves; ``other_reading`` what whole numbers could have meant.
    """

    name: str
    metric: str
    columns: tuple[str, ...]
    ability: Literal["classification", "regression"]
    predict: Callable[[Target, States, BaseEstimator, Units, bool], Codes]
    probability: Callable[[Target, States, BaseEstimator, Units], NDArray[np.floating] | None]
    terms: Callable[[Target, Units, Codes], NDArray[np.float64]]
    metrics: Callable[[Target, Units, Units, Codes, NDArray[np.floating] | None], dict[str, float]]
    dummy: Callable[[Target, Units, Units], Codes]
    class_rows: Callable[[Target, Sequence[Units], Sequence[Codes]], list[Json]]
    dummy_name: str
    probe: str = "logistic"
    stratified: bool = False
    several: bool = False
    of_words: bool = False
    entities: bool = False
    unread_code: Callable[[NDArray[Any]], int] | None = None
    control_metric: str = ""
    text_baseline: str = "words alone (TF-IDF)"
    unit: str = "rows"
    few: str = "rows"
    other_reading: str = ""

    def score(self, target: Target, units: Units, answers: Codes) -> float:
        """The score that chooses, of ``answers`` for the rows of ``units``."""
        return float(self.value(self.terms(target, units, answers).sum(axis=0)))

    @property
    def value(self) -> Callable[[NDArray[np.float64]], NDArray[np.float64]]:
        """The score of sums of ``terms``."""
        return SCORES[self.metric].value


def row_terms(target: Target, units: Units, answers: Codes) -> NDArray[np.float64]:
    """``Task.terms`` where every unit is one row."""
    return SCORES[target.task.metric].terms(target.truth[units], answers)


def predict_rows(target: Target, states: States, estimator: BaseEstimator, units: Units, _viterbi: bool) -> Codes:
    """``Task.predict`` where every unit is one row."""
    return target.coded(np.asarray(estimator.predict(states.rows(units))))


def no_probability(_target: Target, _states: States, _estimator: BaseEstimator, _units: Units) -> None:
    """``Task.probability`` where none is part of any metric."""
