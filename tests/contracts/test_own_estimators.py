"""Users' own estimators through the public functions, from a cache to answers for new texts."""

from __future__ import annotations

import json
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context

import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import RadiusNeighborsClassifier, RadiusNeighborsRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

import probekit
from probekit.errors import SpecError
from probekit.saved import save
from probekit.spec import CLASS_COLUMNS, SHOT_COLUMNS, TABLE_COLUMNS, TRANSFER_COLUMNS
from tests.contracts.probes import Nearest
from tests.tiny import tiny_texts


def svm():
    return make_pipeline(PCA(2), LinearSVC())


def write_rows(path, seed, n=60):
    texts, labels = tiny_texts(n, seed=seed)
    rows = []
    for i, (text, label) in enumerate(zip(texts, labels, strict=True)):
        moods = [label, *(["long"] if len(text) > 30 else [])]
        tags = ["N" if word in ("film", "plot", "actor") else "X" for word in text.split()]
        row = {"id": f"{seed}-{i}", "text": text, "words": text.split(), "tags": tags}
        rows.append(row | {"label": label, "score": i % 7 + 0.5, "moods": moods})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def caches(tmp_path_factory, tiny_model):
    """Two data sets of texts, and one of words."""
    folder = tmp_path_factory.mktemp("own")
    options = {"text": "text", "dtype": "float32"}
    for seed, name in enumerate(("one", "other")):
        probekit.extract(
            tiny_model, write_rows(folder / f"{name}.jsonl", seed), out=folder / f"{name}.h5", **options
        ).close()
    options = {"text": "words", "dtype": "float32", "tokens": True}
    probekit.extract(tiny_model, folder / "one.jsonl", out=folder / "words.h5", **options).close()
    return folder


OWN = {
    "pca-linearsvc": ("label", svm, "classification"),
    "pca-ridge": ("score", lambda: make_pipeline(PCA(3), Ridge()), "regression"),
    "logisticregression": ("label", LogisticRegression, "classification"),
    "gridsearchcv": ("label", lambda: GridSearchCV(LinearSVC(), {"C": [0.1, 1]}, cv=2), "classification"),
    "pca-linearsvc of moods": ("moods", svm, "multilabel"),
}


@pytest.mark.parametrize("name", OWN)
def test_from_the_cache_to_new_texts(caches, tiny_model, tmp_path, name):
    target, make, task = OWN[name]
    found = probekit.probe(caches / "one.h5", target, probe=make())
    table = found.table
    assert tuple(table.columns) == TABLE_COLUMNS
    assert tuple(found.tables["classes"].columns) == CLASS_COLUMNS
    assert table["layer"].tolist() == [0, 1, 2]
    assert set(table["probe"]) == {name.split()[0]}
    assert set(table["task"]) == {task}
    assert table["score"].notna().all()
    assert table["selected"].sum() == 1
    again = probekit.probe(caches / "one.h5", target, probe=make())
    assert again.table.to_csv() == table.to_csv()
    ((chosen, _),) = found.chosen
    (path,) = save(found, tmp_path)
    with probekit.open_cache(caches / "one.h5") as cache:
        answer = probekit.predict(path, [cache.texts[i] for i in chosen.test], model=tiny_model)
    if task == "regression":
        np.testing.assert_allclose(answer.labels, chosen.predicted, rtol=1e-4, atol=1e-4)
    else:
        assert answer.labels.tolist() == chosen.predicted.tolist()
    assert (answer.probability is not None) == (name == "logisticregression")


def test_tags_of_words(caches, tiny_model, tmp_path):
    found = probekit.probe(caches / "words.h5", "tags", probe=svm())
    assert set(found.table["task"]) == {"tags"}
    assert found.table["selectivity"].notna().all()
    ((chosen, _),) = found.chosen
    (path,) = save(found, tmp_path)
    with probekit.open_cache(caches / "words.h5") as cache:
        texts = [cache.texts[i] for i in chosen.test]
    tagged = probekit.tag_texts(path, texts, words=[text.split() for text in texts], model=tiny_model)
    assert [tag for text in tagged for tag in text.tags] == [tag for tags in chosen.predicted for tag in tags]


@pytest.mark.parametrize("target", ["label", "moods"])
def test_an_object_with_fit_and_predict_alone(caches, target):
    assert probekit.probe(caches / "one.h5", target, probe=Nearest()).table["score"].notna().all()


def test_an_object_with_fit_and_predict_alone_tags_words(caches):
    assert probekit.probe(caches / "words.h5", "tags", probe=Nearest()).table["score"].notna().all()


def test_transfer_and_few_shots(caches):
    both = [caches / "one.h5", caches / "other.h5"]
    table = probekit.transfer(both, "label", probe=svm()).table
    assert tuple(table.columns) == TRANSFER_COLUMNS
    assert set(table["probe"]) == {"pca-linearsvc"}
    alone = probekit.probe(both, "label", probe=svm(), refit=False).table
    own = table[table["trained_on"] == table["tested_on"]]
    assert own["score"].tolist() == alone["score"].tolist()
    shots = probekit.few_shot(both[0], "label", shots=[2, 4], draws=3, probe=svm()).table
    assert tuple(shots.columns) == SHOT_COLUMNS
    assert set(shots["probe"]) == {"pca-linearsvc"}
    assert shots["mean"].notna().all()


@pytest.mark.parametrize("kind", ["threads", pytest.param("processes", marks=pytest.mark.slow)])
def test_any_executor_gives_the_same_bytes_and_stays_open(caches, kind):
    """The numbers of a probe of the registry, a seedless forest and a plain estimator."""
    question = {"probe": ["logistic", svm(), RandomForestClassifier(3)], "controls": "shuffled", "seeds": 2}
    alone = probekit.probe(caches / "one.h5", "label", **question)
    context = get_context("forkserver")
    pool = ThreadPoolExecutor(2) if kind == "threads" else ProcessPoolExecutor(2, mp_context=context)
    with pool as executor:
        found = probekit.probe(caches / "one.h5", "label", executor=executor, **question)
        shots = probekit.few_shot(caches / "one.h5", "label", shots=2, draws=2, probe=svm(), executor=executor)
        assert executor.submit(int, "3").result() == 3
    for name, table in alone.tables.items():
        assert found.tables[name].to_csv() == table.to_csv()
    for (a, _), (b, _) in zip(found.chosen, alone.chosen, strict=True):
        assert a.predicted.tolist() == b.predicted.tolist()
    by_itself = probekit.few_shot(caches / "one.h5", "label", shots=2, draws=2, probe=svm())
    assert shots.table.to_csv() == by_itself.table.to_csv()


def test_pipelines_with_the_same_steps_are_told_apart(caches, tmp_path):
    probes = [make_pipeline(PCA(k), LinearSVC()) for k in (2, 5)]
    found = probekit.probe(caches / "one.h5", "label", probe=probes)
    assert found.table["probe"].drop_duplicates().tolist() == ["pca-linearsvc", "pca-linearsvc-2"]
    for probe, (chosen, _) in zip(probes, found.chosen, strict=True):
        alone = probekit.probe(caches / "one.h5", "label", probe=probe, refit=False).table
        assert found.table[found.table["probe"] == chosen.probe]["score"].tolist() == alone["score"].tolist()
    assert len({path.name for path in save(found, tmp_path)}) == 2


def test_what_skops_does_not_know_is_refused_by_name_and_not_written(caches, tmp_path):
    found = probekit.probe(caches / "one.h5", "label", probe=make_pipeline(StandardScaler(), RandomForestClassifier(3)))
    with pytest.raises(
        SpecError, match=r"probe standardscaler-randomforestclassifier: can't be saved.*; got sklearn\.tree"
    ):
        save(found, tmp_path)
    assert not list(tmp_path.iterdir())


class NoLuck(LogisticRegression):
    """Fails on the first rows, or when it is fitted for keeping."""

    fits = 0

    def __init__(self, allowed=0):
        super().__init__()
        self.allowed = allowed

    def fit(self, X, y):
        type(self).fits += 1
        if type(self).fits > self.allowed:
            raise RuntimeError("no luck\nand a second line")
        return super().fit(X, y)


@pytest.mark.parametrize("allowed", [0, 3])
def test_an_estimator_that_fails_says_so_in_one_line(caches, allowed):
    NoLuck.fits = 0
    with pytest.raises(
        SpecError, match=r"probe noluck: must be able to fit .* in 2 classes; got RuntimeError: no luck$"
    ):
        probekit.probe(caches / "one.h5", "label", probe=NoLuck(allowed))


@pytest.mark.parametrize(
    ("target", "make", "message"),
    [
        ("score", LinearSVC, "is regression, for which there are ridge, mlp, knn"),
        ("label", Ridge, "is classification, for which there are logistic"),
        ("label", PCA, "a name, or an estimator with fit and predict"),
    ],
)
def test_what_can_not_do_the_task_is_refused_in_one_line(caches, target, make, message):
    with pytest.raises(SpecError, match=message) as raised:
        probekit.probe(caches / "one.h5", target, probe=make())
    assert "\n" not in str(raised.value)


@pytest.mark.filterwarnings("ignore:One or more samples have no neighbors")
@pytest.mark.parametrize(
    ("target", "estimator", "message"),
    [
        ("label", RadiusNeighborsClassifier(radius=1e-9), "must be able to answer for every row; got ValueError"),
        ("score", RadiusNeighborsRegressor(radius=1e-9), "must answer every row with a finite number"),
    ],
)
def test_an_estimator_that_fails_to_answer_gives_one_line(caches, target, estimator, message):
    with pytest.raises(SpecError, match=message):
        probekit.probe(caches / "one.h5", target, probe=estimator)
