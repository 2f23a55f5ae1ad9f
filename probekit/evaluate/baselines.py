"""What each score is held against beside the dummy answer: the words of the text alone, or its length."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from sklearn.base import BaseEstimator, clone
from sklearn.feature_extraction.text import TfidfTransformer
from sklearn.linear_model import LogisticRegression, Ridge

from probekit.evaluate.config import ProbeConfig
from probekit.evaluate.controls import MAX_WORDS, length_features, tfidf_features, word_counts
from probekit.evaluate.fit import Fit, Key, Place
from probekit.evaluate.states import FixedRows
from probekit.probes import PROBES, FittedProbe, Folds, Probe
from probekit.probes.grid_search import fit_once, mean_over_folds, negative_log_loss, quiet_fit, r_squared
from probekit.tasks.lookup import LookUp

C_GRID = (0.1, 1.0, 10.0, 100.0, 1000.0)
ALPHA_GRID = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
"""For rows of length 1, as TF-IDF gives them, without standardising (which would make them dense)."""


def text_key(fit: Fit) -> Key:
    """The outcome of the text baseline that ``fit`` is held against: that of its target and split."""
    return fit.key._replace(probe="text", role="text")


def baseline_places(fits: Sequence[Fit], config: ProbeConfig) -> list[Place]:
    """The baselines of ``fits`` as places of their own, with the same rows and folds: one fit each.

    Of texts the TF-IDF of their words, of words their commonest tag; where asked for, the number of tokens.
    """
    real = [fit for fit in fits if fit.role == "probe"]
    found, first = [], {text_key(fit): fit for fit in reversed(real)}
    of_texts = [fit for fit in first.values() if not fit.target.task.of_words]
    if of_texts and config.texts is not None:
        counts = FixedRows(word_counts(config.texts))
        found += [_place(counts, _of_score(fit, TEXT, "text")) for fit in reversed(of_texts)]
    for fit in first.values():
        if fit.target.words is not None:
            words = replace(fit.target.words, unread=np.zeros_like(fit.target.words.unread))
            whole = replace(fit, target=replace(fit.target, words=words), train=fit.split.train)
            found.append(_place(FixedRows(words.types), _of_score(whole, LOOK_UP, "text")))
    if config.n_tokens is not None and "length" in config.controls:
        lengths = FixedRows(length_features(config.n_tokens))
        of_texts = [fit for fit in real if not fit.target.task.of_words]
        found += [_place(lengths, _of_score(fit, _of_lengths(fit), "length")) for fit in of_texts]
    return found


def _of_lengths(fit: Fit) -> Probe:
    """The same kind of probe; for an estimator of the user's own, made for other features, the task's default."""
    name = fit.probe.name
    return fit.probe if name in PROBES else replace(PROBES[fit.target.task.probe], name=name)


def _place(features: FixedRows, fit: Fit) -> Place:
    return Place({fit.features: features}, (fit,))


def _of_score(fit: Fit, probe: Probe, role: str) -> Fit:
    return replace(fit, probe=probe, role=role, parts=("test",), whole=False, control=None, viterbi=False, mdl=False)


class _TextProbe(BaseEstimator):  # type: ignore[misc]
    """A regression on the TF-IDF of rows of counts."""

    def __init__(self, known: NDArray[np.int64], tfidf: TfidfTransformer, model: BaseEstimator) -> None:
        self.known, self.tfidf, self.model = known, tfidf, model
        self.classes_ = getattr(model, "classes_", None)

    def predict(self, X: csr_matrix) -> NDArray[Any]:
        """(n,) labels of rows of counts."""
        return np.asarray(self.model.predict(self.tfidf.transform(X[:, self.known])))


def _fit_text(X: csr_matrix, y: NDArray[Any], *, folds: Folds, seed: int) -> FittedProbe:  # noqa: ARG001
    """Logistic or ridge regression, its hyper-parameter chosen by the folds; vocabulary and weights learnt in each."""
    numbers = y.dtype.kind == "f"
    candidates = (
        [Ridge(alpha=alpha) for alpha in ALPHA_GRID]
        if numbers
        else [LogisticRegression(C=C, max_iter=1000) for C in C_GRID]
    )
    score = r_squared if numbers else negative_log_loss
    found = []
    for a, b in folds:
        if numbers or len(np.unique(y[a])) > 1:
            features = tfidf_features(X, a)
            fitted = [clone(candidate) for candidate in candidates]
            for model in fitted:
                quiet_fit(model, features[a], y[a])
            found.append([score(model, features[b], y[b]) for model in fitted])
    best = candidates[int(np.argmax(mean_over_folds("text", np.array(found).T)))] if found else candidates[0]
    total = np.asarray(X.sum(axis=0)).ravel()
    known = np.flatnonzero(total)
    if len(known) > MAX_WORDS:
        known = np.sort(known[np.argsort(-total[known])[:MAX_WORDS]])
    tfidf = TfidfTransformer(sublinear_tf=True).fit(X[:, known])
    quiet_fit(best, tfidf.transform(X[:, known]), y)
    nan = float("nan")
    return FittedProbe(_TextProbe(known, tfidf, best), nan, False, True, nan, (), ())


def _look_up(X: NDArray[np.object_], y: NDArray[Any], *, folds: Folds, seed: int) -> FittedProbe:  # noqa: ARG001
    return fit_once(LookUp(), X, y)


TEXT = Probe("text", ("classification", "regression"), _fit_text)
LOOK_UP = Probe("text", ("classification",), _look_up)
