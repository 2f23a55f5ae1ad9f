"""The text-only baseline: regression on TF-IDF of words and word pairs, its regularisation chosen quickly.

What is chosen and returned is what scikit-learn's own fits at every grid point and fold would give (the last fit is
scikit-learn's); only the fits of the folds go another way, :mod:`.sparse_newton`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.feature_extraction.text import TfidfTransformer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import r2_score
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.utils.validation import check_is_fitted

from probekit.errors import InputError
from probekit.probes.grid_search import check_folds, is_regression_target, mean_over_folds, quiet_fit
from probekit.probes.result import FittedProbe, Folds, at_edge, chosen_index
from probekit.probes.sparse_newton import LogisticFold, RidgeFold

MAX_WORDS = 20_000
C_GRID: tuple[float, ...] = (0.1, 1.0, 10.0, 100.0, 1000.0)
ALPHA_GRID: tuple[float, ...] = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
"""For rows of length 1, as TF-IDF gives them, without standardising (which would make them dense)."""

CLEARLY_WORSE = 0.02  # relative: a mean log-loss this far above the best ends the grid


class CommonWords(TransformerMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """Keeps the columns of a count matrix (n, n_words) that are commonest in the rows it is fitted on.

    ``max_words``: how many at most. Columns that are 0 in all these rows are left out.
    """

    def __init__(self, max_words: int = MAX_WORDS) -> None:
        self.max_words = max_words

    def fit(self, counts: csr_matrix, y: object = None) -> Self:  # noqa: ARG002  (scikit-learn's)
        """Choose ``columns_``. Raises InputError where no row has a word."""
        total = np.asarray(counts.sum(axis=0)).ravel()
        known = np.flatnonzero(total)
        if not len(known):
            raise InputError("texts", "the text baseline needs words to count", "none in the training rows")
        if len(known) > self.max_words:  # of equally common words TfidfVectorizer's choice
            known = np.sort(known[np.argsort(-total[known])[: self.max_words]])
        self.columns_ = known
        self.n_features_in_ = counts.shape[1]
        return self

    def transform(self, counts: csr_matrix) -> csr_matrix:
        """(n, n_kept)."""
        check_is_fitted(self)
        return counts[:, self.columns_]


def text_pipeline(regression: BaseEstimator) -> Pipeline:
    """Unfitted: the commonest words, their TF-IDF, ``regression`` on it. Its rows are rows of counts.

    ``sublinear_tf``: a word's weight grows with the log of its count (Manning et al. 2008, section 6.4).
    """
    return make_pipeline(CommonWords(), TfidfTransformer(sublinear_tf=True), regression)


def fit_text(
    X: csr_matrix,
    y: NDArray[Any],
    *,
    folds: Folds,
    seed: int,  # noqa: ARG001  (nothing here is random)
) -> FittedProbe:
    """Logistic (classes) or ridge (numbers) regression on TF-IDF, C or alpha chosen by the mean score over ``folds``.

    ``X``: (n, n_words) sparse counts, how often each row has each word. ``y``: (n,) class labels, or floats. Words and
    their weights are learnt anew in every fold: words that only a held-out row has must be as unknown there as they
    are in the test rows. Scores are minus the log-loss, or R²; a fold with one class is left out, and without any
    fold that can be scored the strongest regularisation is taken.

    Raises:
        InputError: one class only, or rows without a word.
        SpecError: no fold.
    """
    y = np.asarray(y)
    numbers = is_regression_target(y)
    grid = ALPHA_GRID if numbers else C_GRID
    check_folds("text", folds, grid)
    if not numbers and len(np.unique(y)) < 2:
        raise InputError("labels of the training rows", "at least two classes", "1")
    usable = [fold for fold in folds if numbers or len(np.unique(y[fold[0]])) > 1]
    scores = _ridge_scores(X, y, usable) if numbers else _logistic_scores(X, y, usable)
    best = chosen_index(scores, grid) if usable else 0
    value = grid[best]
    pipeline = text_pipeline(Ridge(alpha=value) if numbers else LogisticRegression(C=value, max_iter=1000))
    converged = quiet_fit(pipeline, X, y)
    return FittedProbe(pipeline, value, at_edge(best, grid), converged, scores[best], grid, tuple(scores))


def _fold_features(counts: csr_matrix, fold: tuple[NDArray[np.intp], NDArray[np.intp]]) -> tuple[Any, Any]:
    """TF-IDF of the learnt and the held-out rows of a fold."""
    words = text_pipeline("passthrough").fit(counts[fold[0]])
    return words.transform(counts[fold[0]]), words.transform(counts[fold[1]])


def _logistic_scores(counts: csr_matrix, y: NDArray[Any], folds: Folds) -> list[float]:
    """Minus the mean log-loss over folds of each C of the grid, NaN once clearly past the best."""
    ways = [LogisticFold(*_fold_features(counts, fold), y[fold[0]], y[fold[1]]) for fold in folds]
    found: list[float] = []
    for C in C_GRID if ways else ():
        scores = np.array([way.score(C) for way in ways])
        found.append(float(mean_over_folds("text", scores[None])[0]))
        if found[-1] < max(found) * (1 + CLEARLY_WORSE):
            break
    return _filled(found, len(C_GRID))


def _ridge_scores(counts: csr_matrix, y: NDArray[Any], folds: Folds) -> list[float]:
    """The mean R² over folds of each alpha of the grid."""
    scores = np.full((len(ALPHA_GRID), len(folds)), np.nan)
    for k, fold in enumerate(folds):
        learnt, held = _fold_features(counts, fold)
        if len(fold[1]) < 2:
            continue
        way = RidgeFold(learnt, y[fold[0]])
        for g in reversed(range(len(ALPHA_GRID))):
            scores[g, k] = r2_score(y[fold[1]], way.predict(ALPHA_GRID[g], held))
    return [float(score) for score in mean_over_folds("text", scores)]


def _filled(found: Sequence[float], n: int) -> list[float]:
    return [*found, *[float("nan")] * (n - len(found))]
