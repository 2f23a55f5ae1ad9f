"""What every probe promises, those of the registry and users' own estimators alike."""

from __future__ import annotations

import pickle
from dataclasses import replace

import joblib
import numpy as np
import pytest
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from probekit.errors import InputError, ProbekitError, SpecError
from probekit.evaluate.config import ProbeConfig, StateSource
from probekit.evaluate.executor import workers
from probekit.evaluate.run import evaluate
from probekit.probes import as_probe, as_probes
from probekit.saved import card_path, load_probe, save_probe
from probekit.tasks.tags import read_tags
from tests.contracts.probes import (
    CASES,
    NAMES,
    SEED,
    Rows,
    agreement,
    answers,
    changed,
    fit,
    fitted_hash,
    hash_of,
    quick_mlp,
    random_states,
    rows_for,
    untrusted,
)
from tests.evaluate.made_up import ORIGIN, classes, numbers, source_of

pytestmark = pytest.mark.filterwarnings("ignore")


def each(cases):
    """Networks take most of the time: by default one of them is tried, on numbers."""
    left_out = {(name, True) for name in ("mlp", "mlp-torch", "attention")} | {
        (name, False) for name in ("mlp", "mlp-torch")
    }
    slow = {case: pytest.mark.slow for case in cases if (case.name, case.of_classes) in left_out}
    return pytest.mark.parametrize("case", [pytest.param(c, marks=slow.get(c, ())) for c in cases], ids=str)


every_case = each(CASES)
every_classifier = each([case for case in CASES if case.of_classes])
every_own = pytest.mark.parametrize("case", [case for case in CASES if case.own], ids=str)


@pytest.fixture(scope="module", autouse=True)
def quick():
    with quick_mlp():
        yield


@pytest.fixture(scope="module")
def fitted():
    """Every probe fitted once, and its rows."""
    found = {}

    def get(case):
        if case not in found:
            rows = rows_for(case)
            found[case] = fit(case, rows), rows
        return found[case]

    return get


def one_line(error):
    assert isinstance(error, ProbekitError)
    assert "\n" not in str(error)
    assert len(str(error)) < 400
    return str(error)


# --- what a fit gives


@every_case
def test_it_has_learnt_and_says_what_it_is(case, fitted):
    found, rows = fitted(case)
    predicted = found.estimator.predict(rows.X_new)
    assert agreement(case, rows.y_new, predicted) > 0.6
    assert predicted.shape == rows.y_new.shape
    assert len(found.grid) == len(found.cv_scores)
    assert not found.grid or found.regularisation in found.grid
    assert np.isnan(found.cv_score) == (len(found.grid) < 2)
    if case.of_classes:
        assert hasattr(found.estimator, "predict_proba") == case.probe.has_probability


@every_classifier
def test_probabilities_are_of_its_classes(case, fitted):
    found, rows = fitted(case)
    if not case.probe.has_probability:
        pytest.skip("gives none")
    probability = found.estimator.predict_proba(rows.X_new)
    assert found.estimator.classes_.tolist() == sorted(NAMES)
    assert probability.shape == (len(rows.X_new), 3)
    np.testing.assert_allclose(probability.sum(axis=1), 1, rtol=1e-5)


@every_classifier
@pytest.mark.parametrize("labels", [["b", "a", "longer"], [True, False], [7, -3, 900], [2, 1]], ids=str)
def test_labels_come_back_as_they_went_in(case, labels):
    rows = rows_for(case)
    y, y_new = (np.select([y == NAMES[0], y == NAMES[1]], labels[:2], labels[-1]) for y in (rows.y, rows.y_new))
    predicted = fit(case, rows, y=y).estimator.predict(rows.X_new)
    assert predicted.dtype.kind == y.dtype.kind == np.array(labels).dtype.kind
    assert set(predicted.tolist()) <= set(labels)
    assert np.mean(predicted == y_new) > 0.6


@every_case
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_rows_are_left_as_they_are_and_may_be_read_only(case, dtype):
    rows = rows_for(case)
    y = rows.y.copy()
    y.flags.writeable = False

    def fixed(values):
        values = values.astype(dtype)
        values.flags.writeable = False
        return values

    X = changed(rows.X, fixed)
    fit(case, replace(rows, X=X, y=y))
    np.testing.assert_array_equal(getattr(X, "values", X), getattr(rows.X, "values", rows.X))
    np.testing.assert_array_equal(y, rows.y)


@pytest.mark.parametrize("case", [c for c in CASES if not c.of_classes and not c.own], ids=str)
def test_several_numbers_at_once(case):
    rows = rows_for(case)
    y = np.column_stack([rows.y, -rows.y])
    predicted = fit(case, rows, y=y).estimator.predict(rows.X_new)
    assert predicted.shape == (len(rows.X_new), 2)
    assert agreement(case, rows.y_new, predicted[:, 0]) > 0.6


# --- the same again


@every_case
def test_the_same_seed_gives_the_same_bytes(case, fitted):
    first, rows = fitted(case)
    fit(case, rows_for(case, seed=9), seed=SEED + 1)
    np.random.seed(np.random.randint(10**6))  # noqa: NPY002  (whatever the caller's own state is)
    again = fit(case, rows)
    assert hash_of(case, again.estimator) == hash_of(case, first.estimator)
    np.testing.assert_equal(replace(again, estimator=None), replace(first, estimator=None))


@pytest.fixture(scope="module")
def executor():
    with workers(2) as pool:
        yield pool


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, marks=[] if case.name == "logistic" else pytest.mark.slow)
        for case in CASES
        if case.name == "logistic" or case.own
    ],
    ids=str,
)
def test_another_process_gives_the_same_bytes(case, fitted, executor):
    assert executor.submit(fitted_hash, case).result() == hash_of(case, fitted(case)[0].estimator)


@every_case
def test_the_seed_is_the_only_thing_random(case, fitted):
    """Where nothing is random, another one changes nothing."""
    found, rows = fitted(case)
    assert set(random_states(found.estimator)) <= {None, SEED}
    if SEED not in random_states(found.estimator):
        another = fit(case, rows, seed=SEED + 1)
        assert hash_of(case, another.estimator) == hash_of(case, found.estimator)


@every_case
def test_the_order_of_rows_says_nothing(case, fitted):
    """The same answers; what draws rows at random is as good."""
    found, rows = fitted(case)
    order = np.random.default_rng(1).permutation(len(rows.y))
    where = np.argsort(order)
    moved = Rows(rows.X[order], rows.y[order], [(where[a], where[b]) for a, b in rows.folds], rows.X_new, rows.y_new)
    again = fit(case, moved)
    a, b = (fit_.estimator.predict(rows.X_new) for fit_ in (found, again))
    if any(state is not None for state in random_states(found.estimator)):
        assert agreement(case, rows.y_new, b) > agreement(case, rows.y_new, a) - 0.15
        return
    np.testing.assert_equal(again.regularisation, found.regularisation)
    if case.of_classes:
        assert np.mean(a == b) >= 0.995
    else:
        np.testing.assert_allclose(a, b, rtol=1e-4)


# --- fitted once more, and of several labels


@every_case
def test_fitted_once_more_on_the_same_rows_it_is_the_same(case, fitted):
    found, rows = fitted(case)
    again = case.probe.refit(found.estimator, rows.X, rows.y, seed=SEED)
    twice = case.probe.refit(found.estimator, rows.X, rows.y, seed=SEED)
    assert hash_of(case, again.estimator) == hash_of(case, twice.estimator)
    a, b = (estimator.predict(rows.X_new) for estimator in (found.estimator, again.estimator))
    assert agreement(case, a, b) > 0.99


@every_case
def test_fitted_once_more_on_other_rows_it_leaves_the_first_alone(case, fitted):
    found, rows = fitted(case)
    before = hash_of(case, found.estimator)
    again = case.probe.refit(found.estimator, rows.X_new, rows.y_new, seed=SEED).estimator
    assert hash_of(case, found.estimator) == before != hash_of(case, again)
    assert agreement(case, rows.y, again.predict(rows.X)) > 0.6


LABELS = {"constant ones last": [*NAMES, "none", "all"], "constant ones first": ["all", "none", NAMES[0]]}


def several_labels(y, names):
    """One for each class, one that none has, one that all have."""
    return np.column_stack([y == name if name in NAMES else np.full(len(y), name == "all") for name in names]).astype(
        int
    )


@every_classifier
@pytest.mark.parametrize("names", LABELS.values(), ids=LABELS)
def test_several_labels_are_a_probe_for_each(case, fitted, names):
    _, rows = fitted(case)
    Y = several_labels(rows.y, names)
    found = case.probe.fit_labels(rows.X, Y, folds=rows.folds, seed=SEED)
    predicted = found.estimator.predict(rows.X_new)
    assert set(np.unique(predicted)) <= {0, 1}
    assert np.mean(predicted == several_labels(rows.y_new, names)) > 0.8
    for k, name in enumerate(names):
        if name in NAMES:
            np.testing.assert_array_equal(predicted[:, k], fit(case, rows, y=Y[:, k]).estimator.predict(rows.X_new))
        else:
            assert (predicted[:, k] == (name == "all")).all()
    assert hasattr(found.estimator, "predict_proba") == case.probe.has_probability
    if case.probe.has_probability:
        assert len(found.estimator.predict_proba(rows.X_new)) == len(found.estimator.classes_) == len(names)
    again = case.probe.refit(found.estimator, rows.X, Y, seed=SEED).estimator
    assert np.mean(again.predict(rows.X_new) == predicted) > 0.99


# --- what is refused


@every_case
def test_float16_is_refused_everywhere(case, fitted):
    found, rows = fitted(case)
    X, Y = changed(rows.X, lambda values: values.astype(np.float16)), np.eye(2, dtype=int)[np.arange(len(rows.y)) % 2]
    for refused in (
        lambda: case.probe.fit(X, rows.y, folds=rows.folds, seed=0),
        lambda: case.probe.fit_labels(X, Y, folds=rows.folds, seed=0),
        lambda: case.probe.refit(found.estimator, X, rows.y, seed=0),
    ):
        with pytest.raises(SpecError, match="float32 or float64; got float16"):
            refused()


@every_classifier
def test_one_class_is_refused_in_one_line(case):
    rows = rows_for(case)
    with pytest.raises(ProbekitError) as raised:
        fit(case, rows, y=np.full(len(rows.y), "red"))
    assert "two classes; got 1" in one_line(raised.value)


@every_case
def test_a_grid_without_folds_is_refused_in_one_line(case, fitted):
    found, rows = fitted(case)
    if len(found.grid) < 2:
        assert np.isnan(fit(case, replace(rows, folds=())).cv_score)
        return
    with pytest.raises(SpecError, match="at least one inner fold") as raised:
        fit(case, replace(rows, folds=()))
    one_line(raised.value)


@every_case
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("of_words", [False, True])
def test_states_that_are_not_finite_are_never_fitted(case, value, of_words):
    """Some estimators take NaN without a word; a single one anywhere is enough to refuse a layer."""
    if of_words and not (case.of_classes and not case.probe.of_tokens):
        pytest.skip("tags are classes, of words")
    rows = rows_for(case)
    n = len(rows.y)
    layers = [rows.X, changed(rows.X, np.copy)]
    getattr(layers[1], "values", layers[1])[17, 3] = value
    ids = [str(i) for i in range(n)]
    if of_words:
        target = read_tags([[name] for name in rows.y.tolist()], "pos", words=[[f"w{i}"] for i in range(n)], ids=ids)
        source = StateSource("mean", (0, 1), frozenset(), WordLayers(layers))
    else:
        target = (classes if case.of_classes else numbers)(rows.y)
        source = source_of(layers)
        if case.probe.of_tokens:
            source = StateSource("attention", (0, 1), frozenset(), WordLayers(layers), of_tokens=True)
    config = ProbeConfig(ids=np.array(ids, dtype=object), probes=(case.given,))
    with pytest.raises(InputError, match="layer 1: probes need finite hidden states; got NaN or infinite") as raised:
        evaluate([source], [target], config, origin=ORIGIN)
    one_line(raised.value)


class WordLayers:
    """States of words, one word in each sentence."""

    def __init__(self, layers):
        self.layers = layers

    def __call__(self, layer):
        return Vectors(self.layers[layer])


class Vectors:
    def __init__(self, X):
        self.X = X

    def rows(self, which):
        return self.X[which]


# --- awkward rows


@every_classifier
def test_a_fold_that_never_saw_a_class(case):
    rows = rows_for(case)
    rare = np.flatnonzero(rows.y == NAMES[2])
    rest = np.setdiff1d(np.arange(len(rows.y)), rare)
    held = [np.sort(np.concatenate([rare, rest[:10]])), rest[10:25]]
    folds = [(np.setdiff1d(np.arange(len(rows.y)), part), part) for part in held]
    predicted = fit(case, replace(rows, folds=folds)).estimator.predict(rows.X_new)
    assert set(predicted) == set(NAMES)


@every_case
def test_a_fold_with_one_class_or_row_is_left_out(case):
    rows = rows_for(case)
    red = np.flatnonzero(rows.y == NAMES[0]) if case.of_classes else np.arange(len(rows.y))
    alone = (red, np.setdiff1d(np.arange(len(rows.y)), red)[:5] if case.of_classes else np.arange(1))
    found, usual = (fit(case, replace(rows, folds=f)) for f in ([*rows.folds, alone], rows.folds))
    np.testing.assert_equal(found.regularisation, usual.regularisation)
    np.testing.assert_allclose(found.cv_score, usual.cv_score, rtol=1e-3)


@every_case
def test_constant_columns(case):
    rows = rows_for(case)
    X, X_new = changed(rows.X, np.copy), changed(rows.X_new, np.copy)
    for values in (getattr(x, "values", x) for x in (X, X_new)):
        values[:, 5:] = [0, 0.1, 1e6]
    getattr(X, "values", X)[7, 5] = 1  # constant in the fold that holds row 7 out
    predicted = fit(case, replace(rows, X=X)).estimator.predict(X_new)
    assert predicted.dtype.kind == rows.y.dtype.kind
    if not case.own:  # a kernel of raw distances sees the largest column alone
        assert agreement(case, rows.y_new, predicted) > 0.4


@every_case
def test_rows_that_are_all_alike(case):
    """The first token's embedding is the same for every text: layer 0 of many an encoder."""
    rows = rows_for(case)
    X = changed(rows.X, lambda values: np.tile(values[:1], (len(values), 1)))
    try:
        predicted = fit(case, replace(rows, X=X)).estimator.predict(X)
    except ProbekitError as error:
        assert case.own
        one_line(error)
        return
    assert len(np.unique(predicted)) == 1
    if not case.of_classes:
        assert np.isfinite(predicted).all()


@every_case
def test_more_features_than_rows(case):
    rows = rows_for(case, n=30, d=300, n_folds=3)
    predicted = fit(case, rows).estimator.predict(rows.X_new)
    assert case.own or len(np.unique(predicted)) > 1
    if not case.of_classes:
        assert np.isfinite(predicted).all()


@every_case
def test_two_rows_of_each_class(case):
    rows = rows_for(case)
    which = np.concatenate([np.flatnonzero(rows.y == name)[:2] for name in NAMES]) if case.of_classes else np.arange(6)
    folds = [(np.arange(0, 6, 2), np.arange(1, 6, 2)), (np.arange(1, 6, 2), np.arange(0, 6, 2))]
    few = replace(rows, X=rows.X[which], y=rows.y[which], folds=folds)
    try:
        predicted = fit(case, few).estimator.predict(rows.X_new)
    except ProbekitError as error:
        assert case.own
        one_line(error)
        return
    assert set(predicted) <= set(NAMES) if case.of_classes else np.isfinite(predicted).all()


# --- kept


@every_case
def test_saved_and_read_back_it_gives_the_same_bytes(case, fitted, tmp_path):
    found, rows = fitted(case)
    path = tmp_path / "probe.skops"
    names = untrusted(found.estimator)
    if case.own and names:
        with pytest.raises(SpecError) as raised:
            save_probe(path, found.estimator, {})
        assert all(name in one_line(raised.value) for name in names)
        assert not list(tmp_path.iterdir())
        return
    assert names == []
    save_probe(path, found.estimator, {})
    assert card_path(path).is_file()
    again = load_probe(path).estimator
    for a, b in zip(answers(again, rows.X_new), answers(found.estimator, rows.X_new), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


@every_case
def test_pickled_it_gives_the_same_bytes(case, fitted):
    found, rows = fitted(case)
    for again in (
        pickle.loads(pickle.dumps(found)),
        replace(found, estimator=pickle.loads(pickle.dumps(found.estimator))),
    ):
        for a, b in zip(answers(again.estimator, rows.X_new), answers(found.estimator, rows.X_new), strict=True):
            np.testing.assert_array_equal(a, b)
    unfitted = pickle.loads(pickle.dumps(case.probe))
    assert hash_of(case, unfitted.fit(rows.X, rows.y, folds=rows.folds, seed=SEED).estimator) == hash_of(
        case, found.estimator
    )


# --- users' own


@every_own
def test_the_users_object_is_left_alone_and_what_is_unseeded_gets_the_seed(case, fitted):
    before = joblib.hash(case.given)
    rows = rows_for(case)
    found = fit(case, rows)
    case.probe.refit(found.estimator, rows.X, rows.y, seed=5)
    if case.of_classes:
        case.probe.fit_labels(rows.X, np.eye(2, dtype=int)[np.arange(len(rows.y)) % 2], folds=(), seed=SEED)
    assert joblib.hash(case.given) == before
    states = random_states(found.estimator)
    assert all(state == SEED for state in states)
    if not hasattr(case.given, "cv"):  # (a search is no part of its best estimator)
        assert len(states) == len(random_states(case.given))


def test_a_users_own_estimator_is_used_as_it_is():
    rows = rows_for(CASES[0])
    mine = LogisticRegression(C=0.5, max_iter=500)
    found = as_probe(mine).fit(rows.X, rows.y, folds=(), seed=SEED)
    assert found.estimator.get_params() == mine.get_params() | {"random_state": SEED}
    assert not hasattr(mine, "coef_")
    by_hand = LogisticRegression(C=0.5, max_iter=500).fit(rows.X, rows.y)
    np.testing.assert_array_equal(found.estimator.coef_, by_hand.coef_)


def test_names():
    one, other = (make_pipeline(PCA(2), LinearSVC(C=C)) for C in (1, 2))
    assert [probe.name for probe in as_probes([one, "lda", other, LinearSVC()])] == [
        "pca-linearsvc",
        "lda",
        "pca-linearsvc-2",
        "linearsvc",
    ]
    assert as_probe(Pipeline([("lda", LinearSVC())])).name == "lda-own"


def test_a_fit_that_did_not_converge_says_so(recwarn):
    rows = rows_for(CASES[0])
    assert not as_probe(LogisticRegression(max_iter=1)).fit(rows.X, rows.y, folds=(), seed=0).converged
    assert not [warning for warning in recwarn if issubclass(warning.category, ConvergenceWarning)]


class Fails(LinearSVC):
    def fit(self, X, y):  # noqa: ARG002
        raise RuntimeError("no luck\nand a second line")


def test_an_estimator_that_fails_says_so_in_one_line():
    rows = rows_for(CASES[0])
    for work in (
        lambda: as_probe(Fails()).fit(rows.X, rows.y, folds=(), seed=0),
        lambda: as_probe(Fails()).refit(Fails(), rows.X, rows.y, seed=0),
    ):
        with pytest.raises(SpecError) as raised:
            work()
        message = "probe fails: must be able to fit 60 rows of 8 features in 3 classes; got RuntimeError: no luck"
        assert one_line(raised.value) == message


def test_a_search_keeps_what_it_chose():
    rows = rows_for(CASES[0])
    probe = as_probe(GridSearchCV(LogisticRegression(), {"C": [1e-4, 1.0]}, cv=3))
    chosen = probe.fit(rows.X, rows.y, folds=(), seed=0).estimator
    again = probe.refit(chosen, rows.X, np.random.default_rng(0).permutation(rows.y), seed=0).estimator
    assert chosen.C == again.C == 1.0


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("svm", "--probe svm: one of logistic, ridge, mlp"),
        (LinearSVC, "probe: a name, or an estimator with fit and predict"),
        (StandardScaler(), r"probe: a name, or an estimator with fit and predict; got StandardScaler\(\)"),
        (KMeans(2), "probe kmeans: must be a classifier or a regressor; got neither"),
        (None, "probe: a name, or an estimator"),
        (3, "probe: a name, or an estimator"),
    ],
    ids=str,
)
def test_what_is_no_probe_is_refused_in_one_line(given, message):
    with pytest.raises(SpecError, match=message) as raised:
        as_probe(given)
    one_line(raised.value)


def test_what_skops_can_not_write_is_refused_before_anything_is_written(tmp_path):
    rows = rows_for(CASES[0])
    mine = LogisticRegression().fit(rows.X, rows.y)
    mine.opened = (row for row in rows.X)
    with pytest.raises(SpecError, match=r"^probe mine: can't be saved: skops must be able to write it; got ") as raised:
        save_probe(tmp_path / "a.skops", mine, {"probe": "mine"})
    one_line(raised.value)
    assert not list(tmp_path.iterdir())
