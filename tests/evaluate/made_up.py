"""Made-up layers, and a short way to ask about them."""

from __future__ import annotations

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from probekit.evaluate.config import ProbeConfig, StateSource
from probekit.evaluate.run import evaluate
from probekit.evaluate.table import Origin
from probekit.tasks.read import read_target

ORIGIN = Origin(model="m", revision="r", dataset="d", n_layers=2, n_truncated=0)


class Arrays:
    """A picklable reader of made-up layers."""

    def __init__(self, states):
        self.states = states

    def __call__(self, layer):
        return self.states[layer]


def made_up(n=300, d=12, layers=3, seed=0):
    """Layers that know the label better the deeper they are; d features with scales from 0.1 to 100."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 3, n)
    scale = np.logspace(-1, 2, d)
    states = []
    for layer in range(layers):
        signal = np.zeros((n, d))
        signal[np.arange(n), y] = 0.9 * layer
        states.append(((rng.standard_normal((n, d)) + signal) * scale).astype(np.float32))
    return states, np.array(["ab", "cd", "ef"], dtype=object)[y]


def source_of(states, random=None):
    read_random = None if random is None else Arrays(random)
    return StateSource("mean", tuple(range(len(states))), frozenset({len(states) - 1}), Arrays(states), read_random)


def ask(states, target, **question):
    executor, random = question.pop("executor", None), question.pop("random", None)
    question.setdefault("ids", np.arange(len(target)).astype(str).astype(object))
    return evaluate([source_of(states, random)], [target], ProbeConfig(**question), origin=ORIGIN, executor=executor)


def classes(labels, name="label"):
    return read_target(np.asarray(labels, dtype=object), name, ids=range(len(labels)))


def numbers(values, name="height"):
    return read_target(np.asarray(values, dtype=float), name, ids=range(len(values)))


def grid_search(X, labels, split, folds):
    """scikit-learn's own way to what a logistic probe does, fitted on the training rows."""
    return GridSearchCV(
        make_pipeline(StandardScaler(), LogisticRegression(max_iter=5000, tol=1e-6)),
        {"logisticregression__C": np.logspace(-5, 2, 8)},
        scoring="neg_log_loss",
        cv=folds,
    ).fit(X[split.train], labels[split.train])
