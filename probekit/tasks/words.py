"""A tag for each word: plain tags (parts of speech), or entities, whose tags say where one begins and goes on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.metrics import f1_score

from probekit.metrics.entities import entity_counts, entity_f1, entity_precision, entity_recall, entity_table
from probekit.spec import Json
from probekit.tasks.classes import all_class_rows
from probekit.tasks.decoding import decode_words
from probekit.tasks.task import Codes, States, Task, Units, no_probability

if TYPE_CHECKING:
    from probekit.tasks.target import Target

OUTSIDE = "O"

_COLUMNS = ("commonest_accuracy", "oov_accuracy", "n_words", "n_words_lost")


def no_tag(_classes: NDArray[Any]) -> int:
    """What a word without sub-tokens is taken to be: no tag at all."""
    return -1


def outside(classes: NDArray[Any]) -> int:
    """What a word without sub-tokens is taken to be: outside of every entity."""
    return int(np.searchsorted(classes, OUTSIDE))


def predict_words(target: Target, states: States, estimator: BaseEstimator, units: Units, viterbi: bool) -> Codes:
    """Codes of the tags of all words of the sentences ``units``, one sentence after the other."""
    words = target.rows_of(units)
    of_words = target.of_words
    return decode_words(
        states,
        estimator,
        words,
        unread=of_words.unread[words],
        classes=target.classes,
        unread_code=target.unread_code,
        lengths=of_words.lengths[units] if viterbi else None,
    )


def commonest_tag(target: Target, train: Units, test: Units) -> Codes:
    """The tag that is commonest among the words of ``train``, for each word of ``test``."""
    commonest = int(np.argmax(np.bincount(target.codes[target.rows_of(train)])))
    return np.full(len(target.rows_of(test)), commonest)


def _right_terms(target: Target, units: Units, answers: Codes) -> NDArray[np.float64]:
    """By sentence: words tagged right, and words."""
    lengths = target.of_words.lengths[units]
    right = target.codes[target.rows_of(units)] == answers
    return np.column_stack([np.add.reduceat(right.astype(np.float64), np.cumsum(lengths) - lengths), lengths])


def _entity_terms(target: Target, units: Units, answers: Codes, *, strict: bool = True) -> NDArray[np.float64]:
    """By sentence: entities found right, found, and there."""
    truth = target.sequences(target.codes[target.rows_of(units)], units)
    return entity_counts(truth, target.sequences(answers, units), strict=strict)


def _word_metrics(target: Target, train: Units, test: Units, answers: Codes) -> dict[str, float]:
    words, types = target.rows_of(test), target.of_words.types
    in_training = target.rows_of(train)
    seen = set(types[in_training])
    truth, new = target.codes[words], np.array([word not in seen for word in types[words]], dtype=np.bool_)
    right = truth == answers
    return {
        "accuracy": float(np.mean(right)),
        "commonest_accuracy": float(np.mean(truth == np.argmax(np.bincount(target.codes[in_training])))),
        "oov_accuracy": float(np.mean(right[new])) if new.any() else float("nan"),
        "n_words": float(len(words)),
        "n_words_lost": float(np.count_nonzero(target.of_words.unread[words])),
    }


def _tag_metrics(target: Target, train: Units, test: Units, answers: Codes, _probability: object) -> dict[str, float]:
    truth = target.codes[target.rows_of(test)]
    f1 = f1_score(truth, answers, labels=np.unique(truth), average="macro", zero_division=0.0)
    return _word_metrics(target, train, test, answers) | {"macro_f1": float(f1)}


def _entity_metrics(
    target: Target, train: Units, test: Units, answers: Codes, _probability: object
) -> dict[str, float]:
    strict, lenient = (_entity_terms(target, test, answers, strict=s).sum(axis=0) for s in (True, False))
    return _word_metrics(target, train, test, answers) | {
        "entity_f1": float(entity_f1(strict)),
        "entity_precision": float(entity_precision(strict)),
        "entity_recall": float(entity_recall(strict)),
        "entity_f1_lenient": float(entity_f1(lenient)),
        "viterbi_gain": float("nan"),
    }


def _entity_rows(target: Target, tests: Sequence[Units], answers: Sequence[Codes]) -> list[Json]:
    """By type of entity, read strictly: the test sentences of all seeds together."""
    truth = [tags for test in tests for tags in target.sequences(target.codes[target.rows_of(test)], test)]
    found = [tags for test, given in zip(tests, answers, strict=True) for tags in target.sequences(given, test)]
    return entity_table(truth, found, strict=True)


TAGS = Task(
    name="tags",
    metric="accuracy",
    columns=("accuracy", "macro_f1", *_COLUMNS),
    ability="classification",
    predict=predict_words,
    probability=no_probability,
    terms=_right_terms,
    metrics=_tag_metrics,
    dummy=commonest_tag,
    class_rows=all_class_rows,
    dummy_name="commonest tag",
    of_words=True,
    unread_code=no_tag,
    control_metric="accuracy",
    text_baseline="each word looked up",
    unit="sentences",
)

ENTITIES = replace(
    TAGS,
    name="entities",
    metric="entity_f1",
    columns=(
        *("accuracy", "entity_f1", "entity_precision", "entity_recall", "entity_f1_lenient", "viterbi_gain"),
        *_COLUMNS,
    ),
    terms=_entity_terms,
    metrics=_entity_metrics,
    class_rows=_entity_rows,
    entities=True,
    unread_code=outside,
)
