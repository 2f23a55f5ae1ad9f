"""Ridge regression, the probe for numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import Ridge
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from probekit.probes.grid_search import check_folds, mean_over_folds, r_squared, search_grid
from probekit.probes.result import FittedProbe, Folds, at_edge, chosen_index
from probekit.probes.ridge_path import held_out_scores

ALPHA_PER_DIMENSION: tuple[float, ...] = tuple(10.0**k for k in range(-3, 4))
"""The grid of alpha divided by the number of features: standardised features have a total variance of d."""


def ridge_pipeline(alpha: float) -> Pipeline:
    """The unfitted probe: standardise, then ridge regression (which centres the targets by its intercept)."""
    return make_pipeline(StandardScaler(), Ridge(alpha=alpha))


def fit_ridge(
    X: NDArray[Any],
    y: NDArray[Any],
    *,
    folds: Folds,
    seed: int,
    grid: tuple[float, ...] = ALPHA_PER_DIMENSION,
) -> FittedProbe:
    """Ridge regression on standardised features, alpha = d x ``grid`` chosen by the mean R² over ``folds``.

    ``X``: (n, d) floats; ``y``: (n,) or (n, n_targets) numbers, in their own units; of several targets the R² is
    averaged. The choice is that of ``GridSearchCV(make_pipeline(StandardScaler(), Ridge()), scoring="r2")``, found
    from one Gram matrix (:mod:`.ridge_path`); the returned estimator is scikit-learn's own fit on all rows. ``seed`` is
    not used: nothing here is random.

    Raises:
        SpecError: no (usable) fold to choose alpha by.
    """
    check_folds("ridge", folds, grid)
    y = np.asarray(y, dtype=np.float64)
    alphas = [X.shape[1] * a for a in grid]
    scaler = StandardScaler().fit(X)
    Z = scaler.transform(X)
    scores = held_out_scores(Z, y.reshape(len(y), -1), folds, alphas) if len(grid) > 1 else None
    if scores is None:
        return fit_ridge_plain(X, y, folds=folds, seed=seed, grid=grid)
    cv_scores = mean_over_folds("ridge", scores).tolist()
    best = chosen_index(cv_scores, alphas)
    pipeline = ridge_pipeline(alphas[best])
    pipeline.steps[0] = ("standardscaler", scaler)
    pipeline[-1].fit(Z, y)
    return FittedProbe(
        estimator=pipeline,
        regularisation=alphas[best],
        grid_edge=at_edge(best, alphas),
        converged=True,
        cv_score=cv_scores[best],
        grid=tuple(alphas),
        cv_scores=tuple(cv_scores),
    )


def fit_ridge_plain(
    X: NDArray[Any],
    y: NDArray[Any],
    *,
    folds: Folds,
    seed: int,  # noqa: ARG001  (nothing here is random)
    grid: tuple[float, ...] = ALPHA_PER_DIMENSION,
) -> FittedProbe:
    """The same choice and estimator as :func:`fit_ridge`, by scikit-learn's own fits one after the other."""
    alphas = [X.shape[1] * a for a in grid]
    candidates = [ridge_pipeline(alpha) for alpha in alphas]
    return search_grid("ridge", candidates, alphas, X, np.asarray(y, dtype=np.float64), folds=folds, score=r_squared)
