"""What a user may bring, what it is called, and what is refused before anything is fitted."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.ensemble import RandomForestClassifier, StackingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.svm import LinearSVC

from probekit.errors import SpecError
from probekit.probes import as_probe, as_probes


@pytest.fixture
def rows():
    rng = np.random.default_rng(0)
    y = np.array(["no", "yes"])[rng.integers(0, 2, 60)]
    X = rng.standard_normal((60, 6)).astype(np.float32)
    X[:, 2] += 2 * (y == "yes")
    return X, y


def test_a_stack_has_predict_only_once_it_is_fitted(rows):
    X, y = rows
    stack = StackingClassifier([("svm", LinearSVC()), ("bayes", GaussianNB())], cv=2)
    assert not hasattr(stack, "predict")
    fitted = as_probe(stack).fit(X, y, folds=(), seed=0).estimator
    assert np.mean(fitted.predict(X) == y) > 0.7


@pytest.mark.parametrize("place", ["a list", "a list of grids", "in a stack"])
def test_estimators_to_choose_among_get_the_seed(rows, place):
    X, y = rows
    forest, steps = RandomForestClassifier(3), Pipeline([("last", GaussianNB())])
    grid = {"last": [forest]}
    search = GridSearchCV(steps, [grid, {"last__var_smoothing": [1e9]}] if place == "a list of grids" else grid, cv=2)
    given = StackingClassifier([("search", search)], LogisticRegression(), cv=2) if place == "in a stack" else search
    first, again, other = (
        as_probe(given).fit(X, y, folds=(), seed=seed).estimator.predict_proba(X) for seed in (7, 7, 8)
    )
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    assert forest.random_state is None


def test_a_seed_of_the_users_is_kept(rows):
    fitted = as_probe(RandomForestClassifier(3, random_state=5)).fit(*rows, folds=(), seed=0).estimator
    assert fitted.random_state == 5


def test_no_two_probes_have_one_name():
    of = [PCA(2), PCA(3), PCA(4)]
    numbered = Pipeline([("pca", of[1]), ("linearsvc-2", LinearSVC())])
    given = [make_pipeline(of[0], LinearSVC()), numbered, make_pipeline(of[2], LinearSVC()), "lda"]
    names = [probe.name for probe in as_probes(given)]
    assert names == ["pca-linearsvc", "pca-linearsvc-2", "pca-linearsvc-3", "lda"]
    assert [probe.name for probe in as_probes(as_probes(given))] == names


def test_a_name_is_short_and_of_plain_characters():
    many = Pipeline([(f"Step {k}/x", FunctionTransformer()) for k in range(30)] + [("last", LinearSVC())])
    assert as_probe(many).name == "step_0_x-step_1_x-step_2_x-step_3_x-step_4_x-step_5_x-step_6"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"cv": (pair for pair in [(np.arange(30), np.arange(30, 60))])},
            "probe gridsearchcv: must be one that scikit-learn can clone; got TypeError: ",
        ),
        (
            {"refit": False, "n_jobs": 1},
            "probe: a name, or an estimator with fit and predict; got GridSearchCV(estimator=LogisticRegression(",
        ),
    ],
    ids=["folds that can be read only once", "a search without a choice"],
)
def test_what_can_not_be_fitted_or_asked_is_refused_in_one_line(changes, message):
    given = GridSearchCV(LogisticRegression(C=0.123456789), {"C": [0.1, 1.0]}, **changes)
    with pytest.raises(SpecError) as raised:
        as_probe(given)
    assert str(raised.value).startswith(message)
    assert "\n" not in str(raised.value)
