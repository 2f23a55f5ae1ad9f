"""The probe that is kept: fitted once more, with the hyper-parameters found, on training and validation rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from threadpoolctl import threadpool_limits

from probekit.evaluate.executor import Counter, run_tasks
from probekit.evaluate.fit import Fit, as_floats, predict
from probekit.probes import refit
from probekit.spec import Listener


@dataclass(frozen=True)
class Kept:
    """A refitted probe. ``predicted``: (n_test, ...) its answers, in the form of an outcome's.

    ``n_fitted``: rows (sentences, for tags) that it was fitted on.
    """

    estimator: BaseEstimator
    predicted: NDArray[Any]
    n_fitted: int
    converged: bool


@dataclass(frozen=True)
class KeepTask:
    """The unit of work: ``estimator``, which ``fit`` gave, once more; small and picklable."""

    read: Callable[[], NDArray[Any]]
    fit: Fit
    estimator: BaseEstimator

    def __call__(self) -> Kept:
        """Refit, on one BLAS thread. The layer and all choices were made before, without these rows' help."""
        split, target = self.fit.split, self.fit.target
        rows = np.concatenate([split.train, split.val])
        with threadpool_limits(1):
            X = as_floats(self.read())
            fitted = refit(self.fit.probe, self.estimator, X[rows], self.fit.labels[rows], seed=split.seed)
            predicted = predict(fitted.estimator, X[split.test], target)
        return Kept(fitted.estimator, predicted, len(rows), fitted.converged)


def keep_probes(
    tasks: Sequence[Callable[[], Kept]], *, executor: Executor | None, listener: Listener
) -> list[Kept | None]:
    """The refitted probes of ``tasks``, in their order."""
    listener.stage("refitting", total=len(tasks), unit="probes")
    kept: list[Kept | None] = Counter(listener)(run_tasks(executor, _call, tasks))
    return kept


def _call(task: Callable[[], Kept]) -> Kept:
    return task()
