"""Every probe there is, and estimators as users bring them: what the suite is run with.

A probe of the registry takes part by being there; an estimator of a new kind by one line in ``OWN``.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import joblib
import numpy as np
import skops.io
from sklearn.calibration import CalibratedClassifierCV
from sklearn.decomposition import PCA
from sklearn.ensemble import (
    ExtraTreesClassifier,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.linear_model import LogisticRegression, Ridge, SGDClassifier
from sklearn.model_selection import GridSearchCV, KFold, StratifiedKFold
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsRegressor
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, LinearSVC
from threadpoolctl import threadpool_limits

from probekit.probes import PROBES, FittedProbe, Probe, as_probe, mlp, trained
from probekit.ragged import RaggedArray
from probekit.saved import TRUSTED

SEED = 3


class Nearest:
    """fit and predict and nothing else: neither parameters nor ``classes_``."""

    random_state = None

    def fit(self, X: Any, y: Any) -> Nearest:
        self.names = np.unique(y)
        self.means = np.stack([X[y == name].mean(axis=0) for name in self.names])
        return self

    def predict(self, X: Any) -> Any:
        return self.names[np.linalg.norm(X[:, None] - self.means, axis=2).argmin(axis=1)]


OWN: dict[str, Any] = {
    "pca and a linear svm": make_pipeline(PCA(5), LinearSVC()),
    "scaled ridge": make_pipeline(StandardScaler(), Ridge(alpha=3.0)),
    "a forest": RandomForestClassifier(5),
    "a forest of numbers": RandomForestRegressor(5),
    "a search": GridSearchCV(LogisticRegression(), {"C": [0.1, 1.0]}, cv=StratifiedKFold(3, shuffle=True)),
    "a search among linear svms": GridSearchCV(LinearSVC(), {"C": [0.1, 1.0]}, cv=3),
    "a search among forests": GridSearchCV(
        Pipeline([("last", GaussianNB())]), {"last": [RandomForestClassifier(5), ExtraTreesClassifier(5)]}, cv=3
    ),
    "a kernel": SVC(),
    "a calibrated kernel": CalibratedClassifierCV(SVC(), cv=2),
    "a pipeline of pipelines": make_pipeline(make_pipeline(StandardScaler(), PCA(4)), SGDClassifier()),
    "bayes": GaussianNB(),
    "neighbours": KNeighborsRegressor(3),
    "boosted trees, which take NaN": HistGradientBoostingClassifier(max_iter=3, min_samples_leaf=2),
    "fit and predict alone": Nearest(),
}


@dataclass(frozen=True)
class Case:
    """A probe and one of the tasks that it says it can do. ``given``: what a user would write."""

    name: str
    given: Any
    task: str

    def __str__(self) -> str:
        return f"{self.name}: {self.task}"

    @property
    def probe(self) -> Probe:
        return as_probe(self.given)

    @property
    def own(self) -> bool:
        return self.name in OWN

    @property
    def of_classes(self) -> bool:
        return self.task == "classification"


CASES = [Case(name, name, task) for name, probe in PROBES.items() for task in probe.tasks] + [
    Case(name, given, task)
    for name, given in OWN.items()
    for task in as_probe(given).tasks
    if (name, task) != ("fit and predict alone", "regression")  # it does not say what it is, and is of classes
]


@dataclass(frozen=True)
class Rows:
    """Rows to fit on, and new ones."""

    X: Any
    y: Any
    folds: Any
    X_new: Any
    y_new: Any


NAMES = np.array(["red", "a longer name", "blue"])


def rows_for(case: Case, *, n: int = 60, d: int = 8, n_folds: int = 3, seed: int = 0) -> Rows:
    """Three classes, or numbers far from zero, that some directions know; features of very different scale."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n + 200, d))
    codes = rng.integers(0, 3, len(X))
    X[np.arange(len(X)), codes] += 3.0
    if case.of_classes:
        y = NAMES[codes]
        folds = StratifiedKFold(n_folds).split(X[:n], y[:n])
    else:
        y = 10 * (X[:, 0] - X[:, 1]) + rng.standard_normal(len(X)) + 100
        folds = KFold(n_folds).split(X[:n])
    X = (X * np.linspace(2, 0.5, d)).astype(np.float32)
    if case.probe.of_tokens:
        X = tokens_of(X)
    return Rows(X[:n], y[:n], list(folds), X[n:], y[n:])


def tokens_of(X: Any) -> RaggedArray:
    """Rows of one to three tokens, each of which is the vector of the row."""
    lengths = 1 + np.arange(len(X)) % 3
    return RaggedArray(np.repeat(X, lengths, axis=0), np.concatenate([[0], np.cumsum(lengths)]))


def changed(X: Any, change: Any) -> Any:
    """``X`` after ``change`` of its values, (n, d) or (total_tokens, d)."""
    return RaggedArray(change(X.values), X.offsets) if isinstance(X, RaggedArray) else change(X)


def fit(case: Case, rows: Rows, *, y: Any = None, seed: int = SEED) -> FittedProbe:
    """As layers are fitted: on one BLAS thread. Warnings are of the tiny data."""
    with threadpool_limits(1), warnings.catch_warnings(action="ignore"):
        return case.probe.fit(rows.X, rows.y if y is None else y, folds=rows.folds, seed=seed)


def answers(estimator: Any, X: Any) -> list[Any]:
    """All that it says of ``X``."""
    with threadpool_limits(1):
        found = [np.asarray(estimator.predict(X))]
        if hasattr(estimator, "predict_proba"):
            found += [np.asarray(p) for p in estimator.predict_proba(X)]
    return found


def hash_of(case: Case, estimator: Any) -> str:
    """Of its answers for new rows and, of a probe of the registry, all that it holds. (Some count their calls.)"""
    return str(joblib.hash((answers(estimator, rows_for(case).X_new), None if case.own else estimator)))


def fitted_hash(case: Case) -> str:
    """Of a fit on ``rows_for(case)``; for other processes."""
    with quick_mlp():
        return hash_of(case, fit(case, rows_for(case)).estimator)


@contextmanager
def quick_mlp() -> Iterator[None]:
    """A twentieth of its epochs; heads that are trained in torch learn faster, for less long."""
    quick = {"EPOCHS": 12, "LEAST_STEPS": 12, "MOST_FOLDS": 1, "RATES": {"mlp": 0.03, "attention": 0.1}}
    with patch.object(mlp, "MAX_EPOCHS", mlp.MAX_EPOCHS // 20), patch.multiple(trained, **quick):
        yield


def untrusted(estimator: Any) -> list[str]:
    """Types that a saved probe may not hold."""
    return [name for name in skops.io.get_untrusted_types(data=skops.io.dumps(estimator)) if name not in TRUSTED]


def random_states(estimator: Any) -> list[Any]:
    """Every random_state of it and of what is in it."""
    parts = [estimator, *(estimator.get_params().values() if hasattr(estimator, "get_params") else ())]
    return [part.random_state for part in parts if hasattr(part, "random_state")]


def agreement(case: Case, a: Any, b: Any) -> float:
    """Share of equal classes; of numbers 1 minus the share of the variance that they differ by."""
    return float(np.mean(a == b) if case.of_classes else 1 - np.mean((a - b) ** 2) / np.var(a))
