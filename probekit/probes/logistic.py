"""Logistic regression, the probe for classes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from probekit.errors import InputError
from probekit.probes.fold_scaling import scale_folds
from probekit.probes.grid_search import check_folds, negative_log_loss, quiet_fit, search_grid
from probekit.probes.logistic_path import follow_path, solve, zero_solution
from probekit.probes.result import FittedProbe, Folds, at_edge
from probekit.probes.softmax_objective import Problem

C_GRID: tuple[float, ...] = tuple(10.0**k for k in range(-5, 3))
"""Inverse regularisation strengths, scikit-learn's C."""

CV_TOLERANCE = 5e-5  # half of scikit-learn's: where it stops, the fast path has stopped too
FINAL_TOLERANCE = 1e-5  # so that scikit-learn, started there, finds its own criterion met


def logistic_pipeline(C: float, max_iter: int = 1000) -> Pipeline:
    """The unfitted probe: standardise, then logistic regression with its default solver."""
    return make_pipeline(StandardScaler(), LogisticRegression(C=C, max_iter=max_iter, warm_start=True))


def fit_logistic(
    X: NDArray[Any],
    y: NDArray[Any],
    *,
    folds: Folds,
    seed: int,
    grid: tuple[float, ...] = C_GRID,
    max_iter: int = 1000,
    full_grid: bool = False,
) -> FittedProbe:
    """Logistic regression on standardised features, C chosen by the mean log-loss over ``folds``.

    The choice and the estimator are those of ``GridSearchCV(make_pipeline(StandardScaler(), LogisticRegression()),
    scoring="neg_log_loss")``: softmax for more than two classes, sigmoid for two, the scaler fitted on each fold's
    training rows alone. The way there is :func:`.logistic_path.follow_path`; its optimum for the chosen C on all rows
    is handed to ``LogisticRegression(warm_start=True).fit``, so that the returned estimator is scikit-learn's own and
    stopped by scikit-learn's own criterion (``n_iter_ <= 1``). Where the fast path does not converge, or a fold with
    two of several classes makes another model of it, scikit-learn's own fits run instead.

    ``X``: (n, d) floats; ``y``: (n,) class labels; ``folds``: may be empty if ``grid`` (ascending) has one point.
    A class that a fold's training rows lack gets probability 0 there, and its validation rows are left out of that
    fold's score; a fold with a single class is left out. ``full_grid``: go on past the best C to the end.
    ``converged``: the final fit, and the folds at the chosen C. ``seed`` is not used: nothing here is random.

    Raises:
        InputError: one class only.
        SpecError: no (usable) fold to choose C by.
    """
    check_folds("logistic", folds, grid)
    y = np.asarray(y)
    classes, codes = np.unique(y, return_inverse=True)
    if len(classes) < 2:
        raise InputError("labels of the training rows", "at least two classes", f"{len(classes)}")
    fast = _fit_fast(X, y, codes, folds=folds, grid=grid, max_iter=max_iter, full_grid=full_grid)
    return fast or fit_logistic_plain(X, y, folds=folds, seed=seed, grid=grid, max_iter=max_iter)


def refit_logistic(estimator: Pipeline, X: NDArray[Any], y: NDArray[Any], *, seed: int) -> FittedProbe:
    """With the C of a fitted probe, on other rows: by the fast path, too."""
    return fit_logistic(X, y, folds=(), seed=seed, grid=(float(estimator[-1].C),))


def fit_logistic_plain(
    X: NDArray[Any],
    y: NDArray[Any],
    *,
    folds: Folds,
    seed: int,  # noqa: ARG001  (nothing here is random)
    grid: tuple[float, ...] = C_GRID,
    max_iter: int = 1000,
) -> FittedProbe:
    """The same choice and estimator as :func:`fit_logistic`, by scikit-learn's own fits one after the other."""
    candidates = [logistic_pipeline(C, max_iter) for C in grid]
    return search_grid("logistic", candidates, grid, X, y, folds=folds, score=negative_log_loss)


def _fit_fast(
    X: NDArray[Any],
    y: NDArray[Any],
    codes: NDArray[np.intp],
    *,
    folds: Folds,
    grid: tuple[float, ...],
    max_iter: int,
    full_grid: bool,
) -> FittedProbe | None:
    """The fast path; None where it does not apply or does not converge."""
    n_classes = int(codes.max()) + 1
    seen = [np.bincount(codes[train], minlength=n_classes) > 0 for train, _ in folds]
    usable = [k for k, s in enumerate(seen) if s.sum() > 1 and s[codes[folds[k][1]]].any()]
    if len(grid) > 1 and (not usable or any(seen[k].sum() == 2 < n_classes for k in usable)):
        return None
    scaler = StandardScaler().fit(X)
    Z = scaler.transform(X)
    narrow = np.ascontiguousarray(Z, dtype=np.float32)
    everything = [(np.arange(len(y)), np.arange(0))]
    every_class = np.ones((1, n_classes), dtype=bool)
    loss_cap = -float(np.log(np.finfo(Z.dtype).eps))
    final = Problem(narrow, codes, scale_folds(narrow, everything), every_class, loss_cap)
    losses, best, start, curvature = np.full(1, np.nan), 0, zero_solution(final), None
    if len(grid) > 1:
        present = np.stack([seen[k] for k in usable])
        in_folds = Problem(narrow, codes, scale_folds(narrow, [folds[k] for k in usable]), present, loss_cap)
        path = follow_path(in_folds, grid, tol=CV_TOLERANCE, max_iter=max_iter, full=full_grid)
        if not path.solution.converged.all():
            return None
        losses, best, start, curvature = path.losses, path.best, path.solution.average(), path.curvature
    solution, _ = solve(final, grid[best], start, curvature, tol=FINAL_TOLERANCE, max_iter=max_iter)
    if not solution.converged.all():
        return None
    pipeline = logistic_pipeline(grid[best], max_iter)
    pipeline.steps[0] = ("standardscaler", scaler)
    regression = pipeline[-1]
    regression.coef_ = solution.weights[0].T.astype(Z.dtype)
    regression.intercept_ = solution.intercepts[0].astype(Z.dtype)
    converged = quiet_fit(regression, Z, y)
    return FittedProbe(
        estimator=pipeline,
        regularisation=grid[best],
        grid_edge=at_edge(best, grid),
        converged=converged,
        cv_score=-float(losses[best]),
        grid=grid,
        cv_scores=tuple(-float(loss) for loss in losses),
    )
