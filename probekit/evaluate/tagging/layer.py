"""The unit of work: every tag probe of one layer, reading its words a few thousand at a time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.metrics import f1_score
from threadpoolctl import threadpool_limits

from probekit.errors import InputError
from probekit.evaluate.fit import METRIC, Fit, LayerOutcomes, Outcome
from probekit.evaluate.keep import Kept
from probekit.metrics import SCORES, entity_counts, entity_f1, entity_precision, entity_recall
from probekit.probes import fit_probe, refit
from probekit.tasks.decoding import WordStates, decode_words
from probekit.tasks.tags import Tags


@dataclass(frozen=True)
class TagFit:
    """What is to be fitted.

    ``fit``: the probe and the sentences. ``learnt_from``: those of its training sentences that the probe is fitted on;
    ``fit.folds`` are positions among their words that are not lost. ``lost``, ``known``: (n_words,) whether a word has
    no token; whether training has a word of that type. ``control``: (n_words,) tags of the control task. ``to_keep``:
    training and validation sentences that the kept probe is fitted on.
    """

    fit: Fit
    tags: Tags
    learnt_from: NDArray[np.int64]
    lost: NDArray[np.bool_]
    known: NDArray[np.bool_]
    control: NDArray[np.int64]
    to_keep: NDArray[np.int64]
    viterbi: bool = False

    @property
    def train(self) -> NDArray[np.int64]:
        """(n_train,) the words that the probe is fitted on."""
        return self.readable(self.learnt_from)

    def readable(self, sentences: NDArray[np.int64]) -> NDArray[np.int64]:
        """The words of ``sentences`` that have a token."""
        words = self.tags.words_of(sentences)
        return words[~self.lost[words]]


@dataclass(frozen=True)
class TagTask:
    """A layer and all that is to be fitted on it; small and picklable."""

    layer: int
    read: Callable[[], WordStates]
    fits: tuple[TagFit, ...]


def fit_tag_layer(task: TagTask) -> LayerOutcomes:
    """Fit everything that ``task`` asks for, on one BLAS thread. Raises InputError for NaN or infinite states."""
    with threadpool_limits(1):
        states = _Watched(task.read(), task.layer)
        outcomes = tuple(_fit(states, fit) for fit in task.fits)
        return LayerOutcomes(task.layer, states.largest, float("nan"), outcomes)


@dataclass(frozen=True)
class TagKeepTask:
    """The unit of work: ``estimator``, which ``fit`` gave, once more for keeping; small and picklable."""

    read: Callable[[], WordStates]
    layer: int
    fit: TagFit
    estimator: BaseEstimator

    def __call__(self) -> Kept:
        """Refit on the words of training and validation sentences, on one BLAS thread."""
        fit, tags, split = self.fit, self.fit.tags, self.fit.fit.split
        words = fit.readable(fit.to_keep)
        with threadpool_limits(1):
            states = _Watched(self.read(), self.layer)
            labels = tags.target.classes[tags.codes[words]]
            fitted = refit(fit.fit.probe, self.estimator, states.rows(words), labels, seed=split.seed)
            predicted = predict_tags(states, fitted.estimator, fit, split.test, viterbi=fit.viterbi)
        return Kept(fitted.estimator, predicted, len(fit.to_keep), fitted.converged)


class _Watched:
    """States that are checked as they are read; ``largest``: absolute value so far."""

    def __init__(self, states: WordStates, layer: int) -> None:
        self._states, self._layer, self.largest = states, layer, 0.0

    def rows(self, which: NDArray[np.int64]) -> NDArray[Any]:
        found = self._states.rows(which)
        if found.size:
            self.largest = max(self.largest, abs(float(found.max())), abs(float(found.min())))
        if not np.isfinite(self.largest) or np.isnan(found).any():
            raise InputError(f"layer {self._layer}", "probes need finite hidden states", "NaN or infinite values")
        return found


def _fit(states: _Watched, fit: TagFit) -> Outcome:
    tags, split, seed = fit.tags, fit.fit.split, fit.fit.split.seed
    train, names = fit.train, tags.target.classes
    X = states.rows(train)
    fitted = fit_probe(fit.fit.probe, X, names[tags.codes[train]], folds=fit.fit.folds, seed=seed)
    control = refit(fit.fit.probe, fitted.estimator, X, names[fit.control[train]], seed=seed)
    del X
    sentences = {"train": fit.learnt_from, "val": split.val, "test": split.test}
    answers = partial(predict_tags, states, fitted.estimator, fit)
    predicted = {part: answers(at, viterbi=fit.viterbi) for part, at in sentences.items()}
    metrics = tag_metrics(fit, split.test, predicted["test"])
    if fit.viterbi:
        plain = answers(split.test, viterbi=False)
        metrics["viterbi_gain"] = tag_score(tags, split.test, predicted["test"]) - tag_score(tags, split.test, plain)
    of_control = predict_tags(states, control.estimator, fit, split.test, viterbi=False)
    metrics["control_accuracy"] = float(np.mean(of_control == fit.control[tags.words_of(split.test)]))
    return Outcome(
        estimator=fitted.estimator,
        train_score=tag_score(tags, fit.learnt_from, predicted["train"]),
        val_score=tag_score(tags, split.val, predicted["val"]),
        predicted=predicted["test"],
        metrics=metrics,
        regularisation=fitted.regularisation,
        grid_edge=fitted.grid_edge,
        converged=fitted.converged,
    )


def predict_tags(
    states: WordStates,
    estimator: BaseEstimator,
    fit: TagFit,
    sentences: NDArray[np.int64],
    *,
    viterbi: bool,
) -> NDArray[np.int64]:
    """Codes of the tags of all words of ``sentences``, one sentence after the other."""
    words = fit.tags.words_of(sentences)
    return decode_words(
        states,
        estimator,
        words,
        lost=fit.lost[words],
        classes=fit.tags.target.classes,
        lost_code=fit.tags.lost_code,
        lengths=fit.tags.lengths[sentences] if viterbi else None,
    )


def tag_score(tags: Tags, sentences: NDArray[np.int64], predicted: NDArray[np.int64]) -> float:
    """The score that chooses: strict entity F1, or the share of words tagged right."""
    score = SCORES[METRIC[tags.target.task.kind]]
    return float(score.value(tag_terms(tags, sentences, predicted).sum(axis=0)))


def tag_terms(tags: Tags, sentences: NDArray[np.int64], predicted: NDArray[np.int64]) -> NDArray[np.float64]:
    """What each sentence adds to the sums that ``tag_score`` is made of, (n_sentences, n_terms)."""
    if tags.is_entities:
        return _counts(tags, sentences, predicted, strict=True)
    right = tags.codes[tags.words_of(sentences)] == predicted
    starts = np.cumsum(tags.lengths[sentences]) - tags.lengths[sentences]
    return np.column_stack([np.add.reduceat(right.astype(np.float64), starts), tags.lengths[sentences]])


def tag_metrics(fit: TagFit, sentences: NDArray[np.int64], predicted: NDArray[np.int64]) -> dict[str, float]:
    """All columns of the table for token tasks, of the words of ``sentences``."""
    tags = fit.tags
    words, train = tags.words_of(sentences), fit.fit.split.train
    truth, new = tags.codes[words], ~fit.known[words]
    right = truth == predicted
    found = {
        "accuracy": float(np.mean(right)),
        "commonest_accuracy": float(np.mean(truth == np.argmax(np.bincount(tags.codes[tags.words_of(train)])))),
        "oov_accuracy": float(np.mean(right[new])) if new.any() else float("nan"),
        "n_words": float(len(words)),
        "n_words_lost": float(np.count_nonzero(fit.lost[words])),
    }
    if not tags.is_entities:
        f1 = f1_score(truth, predicted, labels=np.unique(truth), average="macro", zero_division=0.0)
        return found | {"macro_f1": float(f1)}
    strict, lenient = (_counts(tags, sentences, predicted, strict=s).sum(axis=0) for s in (True, False))
    return found | {
        "entity_f1": float(entity_f1(strict)),
        "entity_precision": float(entity_precision(strict)),
        "entity_recall": float(entity_recall(strict)),
        "entity_f1_lenient": float(entity_f1(lenient)),
        "viterbi_gain": float("nan"),
    }


def _counts(
    tags: Tags, sentences: NDArray[np.int64], predicted: NDArray[np.int64], *, strict: bool
) -> NDArray[np.float64]:
    truth = tags.sequences(tags.codes[tags.words_of(sentences)], sentences)
    return entity_counts(truth, tags.sequences(predicted, sentences), strict=strict)
