"""The quick text baseline chooses and predicts what scikit-learn's own fits at every grid point and fold do."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import GridSearchCV, KFold, StratifiedKFold

from probekit.errors import InputError, SpecError
from probekit.evaluate.controls import word_counts
from probekit.probes.grid_search import negative_log_loss, quiet_fit, r_squared
from probekit.probes.text import ALPHA_GRID, C_GRID, CommonWords, fit_text, text_pipeline


def texts_about(topics, *, n_words=400, telling=0.2, seed=0):
    """One text per topic: words of all, and some of its own."""
    rng = np.random.default_rng(seed)
    share = 1 / np.arange(1, n_words + 1)
    common = rng.choice(n_words, (len(topics), 15), p=share / share.sum())
    own = 1000 * (topics[:, None] + 1) + rng.integers(0, 20, common.shape)
    return [" ".join(f"w{i}" for i in row) for row in np.where(rng.random(common.shape) < telling, own, common)]


def plain_search(counts, y, folds, *, numbers, tol=1e-4):
    """(best value, scores) by scikit-learn's own fits."""
    score = r_squared if numbers else negative_log_loss
    grid = ALPHA_GRID if numbers else C_GRID
    models = [Ridge(alpha=v) if numbers else LogisticRegression(C=v, max_iter=5000, tol=tol) for v in grid]
    scores = np.full((len(grid), len(folds)), np.nan)
    for k, (learnt, held) in enumerate(folds):
        if not numbers and len(np.unique(y[learnt])) < 2:
            continue
        for g, model in enumerate(models):
            pipeline = text_pipeline(clone(model))
            quiet_fit(pipeline, counts[learnt], y[learnt])
            scores[g, k] = score(pipeline, counts[held], y[held])
    mean = scores[:, ~np.isnan(scores).all(axis=0)].mean(axis=1)
    return grid[int(np.argmax(mean))], mean


def stratified(y, n=5):
    return list(StratifiedKFold(n, shuffle=True, random_state=0).split(y, y))


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    ("n_classes", "telling"),
    [
        *((n, share) for n in (2, 3) for share in (0.0, 0.05, 0.3)),
        *(pytest.param(12, share, marks=SLOW) for share in (0.0, 0.05, 0.3)),
        pytest.param(7, 0.05, marks=SLOW),
    ],
)
def test_classes_as_scikit_learn_has_them(n_classes, telling):
    topics = np.random.default_rng(n_classes).integers(0, n_classes, 600)
    counts = word_counts(texts_about(topics, telling=telling))
    y = np.array([f"c{i:02}" for i in topics])
    train, test = np.arange(450), np.arange(450, 600)
    folds = stratified(y[train])
    best, _ = plain_search(counts[train], y[train], folds, numbers=False)
    fitted = fit_text(counts[train], y[train], folds=folds, seed=0)
    assert fitted.regularisation == best
    reached = ~np.isnan(fitted.cv_scores)
    assert reached[: C_GRID.index(best) + 1].all()
    _, exact = plain_search(counts[train], y[train], folds, numbers=False, tol=1e-7)
    np.testing.assert_allclose(np.array(fitted.cv_scores)[reached], exact[reached], rtol=0.01)
    assert fitted.cv_score == fitted.cv_scores[C_GRID.index(best)]
    assert fitted.grid_edge == (best in (C_GRID[0], C_GRID[-1]))
    assert fitted.converged
    plain = text_pipeline(LogisticRegression(C=best, max_iter=1000)).fit(counts[train], y[train])
    np.testing.assert_array_equal(fitted.estimator.predict_proba(counts[test]), plain.predict_proba(counts[test]))
    np.testing.assert_array_equal(fitted.estimator.predict(counts[test]), plain.predict(counts[test]))


@pytest.mark.parametrize("noise", [0.1, 1.0, 10.0])
def test_numbers_as_scikit_learn_has_them(noise):
    rng = np.random.default_rng(1)
    topics = rng.integers(0, 5, 500)
    counts = word_counts(texts_about(topics))
    y = 100 + topics + noise * rng.normal(size=500)
    train, test = np.arange(400), np.arange(400, 500)
    folds = list(KFold(5, shuffle=True, random_state=0).split(train))
    best, scores = plain_search(counts[train], y[train], folds, numbers=True)
    fitted = fit_text(counts[train], y[train], folds=folds, seed=0)
    assert fitted.regularisation == best
    np.testing.assert_allclose(fitted.cv_scores, scores, atol=1e-3)
    plain = text_pipeline(Ridge(alpha=best)).fit(counts[train], y[train])
    np.testing.assert_array_equal(fitted.estimator.predict(counts[test]), plain.predict(counts[test]))


def test_it_is_what_grid_search_finds():
    topics = np.random.default_rng(0).integers(0, 2, 300)
    counts, folds = word_counts(texts_about(topics)), stratified(topics, 3)
    search = GridSearchCV(
        text_pipeline(LogisticRegression(max_iter=1000)),
        {"logisticregression__C": C_GRID},
        cv=folds,
        scoring="neg_log_loss",
    ).fit(counts, topics)
    fitted = fit_text(counts, topics, folds=folds, seed=0)
    assert fitted.regularisation == search.best_params_["logisticregression__C"]
    np.testing.assert_array_equal(fitted.estimator.predict(counts), search.predict(counts))


@pytest.mark.parametrize("missing", ["one of three classes", "one of four classes", "all but one"])
def test_folds_that_lack_classes(missing):
    y = np.random.default_rng(2).integers(0, 4 if missing == "one of four classes" else 3, 240)
    counts = word_counts(texts_about(y))
    rows = np.arange(240)
    learnt = np.flatnonzero(y == 0) if missing == "all but one" else np.flatnonzero((y != 2) & (rows % 3 > 0))
    folds = [(learnt, np.setdiff1d(rows, learnt)), *stratified(y, 3)]
    best, _ = plain_search(counts, y, folds, numbers=False)
    fitted = fit_text(counts, y, folds=folds, seed=0)
    assert fitted.regularisation == best
    reached = ~np.isnan(fitted.cv_scores)
    _, exact = plain_search(counts, y, folds, numbers=False, tol=1e-7)
    np.testing.assert_allclose(np.array(fitted.cv_scores)[reached], exact[reached], rtol=0.01)


def test_folds_of_one_class_alone_choose_the_strongest():
    y = np.array([0] * 20 + [1] * 20)
    counts = word_counts(texts_about(y))
    folds = [(np.arange(20), np.arange(20, 40)), (np.arange(20, 40), np.arange(20))]
    assert fit_text(counts, y, folds=folds, seed=0).regularisation == C_GRID[0]


def test_the_commonest_words_of_the_rows_it_is_fitted_on():
    counts = word_counts(["a b a", "a c", "d e"])
    words = CommonWords(max_words=1).fit(counts[:2])
    assert words.transform(counts).toarray().ravel().tolist() == [2, 1, 0]
    assert CommonWords().fit(counts[:2]).transform(counts).shape == (3, 6)  # a, a b, a c, b, b a, c


def test_what_cannot_be_fitted():
    counts = word_counts(["a", "b", "a b", ""])
    folds = [(np.arange(2), np.arange(2, 4))]
    with pytest.raises(InputError, match="at least two classes"):
        fit_text(counts, np.zeros(4, dtype=int), folds=folds, seed=0)
    with pytest.raises(SpecError, match="at least one inner fold"):
        fit_text(counts, np.array([0, 1, 0, 1]), folds=[], seed=0)
    with pytest.raises(InputError, match="none in the training rows"):
        text_pipeline(DummyClassifier()).fit(counts[3:], [0])
