"""Logistic regression along a grid of C, all folds together.

The objective of every fold is scikit-learn's own (:mod:`.softmax_objective`); only the way to its minimum differs:

- All folds take their L-BFGS steps in lockstep, so that each step costs two products with the layer's matrix.
- The steps are taken in coordinates v with u = u0 + T v, where T Tᵀ is close to the inverse Hessian at u0
  (:mod:`.preconditioner`): about as many steps as Newton's method, at the price of a gradient each.
- C goes from strong to weak regularisation, each solution being the next start.
- The path stops once clearly past the best C: weak regularisation is where the time goes and where nothing is found.

T only changes the coordinates. (Whitening the features themselves would change the penalty and so the probe.)
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from probekit.probes.lbfgs import Evaluation, Minimum, minimise
from probekit.probes.preconditioner import precondition, weighted_gram
from probekit.probes.softmax_objective import FoldValues, Problem, evaluate_folds, mean_curvature

CURVATURE_DRIFT = 0.5  # relative change of the row weights after which the Gram matrix is made anew
ROUND_ITERATIONS = 15  # L-BFGS steps in one set of coordinates
CLEARLY_WORSE = 0.01  # relative: a mean loss this far above the best, twice in a row, ends the path


@dataclass(frozen=True)
class Solution:
    """Minima of ``m`` folds at one C: ``weights`` (m, d, P), ``intercepts`` (m, P), ``converged`` (m,).

    In the coordinates of :func:`.softmax_objective.evaluate_folds`. ``validation_loss``: (m,), at the minimum.
    """

    weights: NDArray[np.float64]
    intercepts: NDArray[np.float64]
    converged: NDArray[np.bool_]
    validation_loss: NDArray[np.float64]

    def average(self) -> Solution:
        """The mean of the folds as a single start, for the fit on all rows."""
        none = np.zeros(1, dtype=bool)
        return Solution(self.weights.mean(0)[None], self.intercepts.mean(0)[None], none, np.full(1, np.nan))


@dataclass(frozen=True)
class CurvatureGram:
    """A weighted Gram matrix and the row weights it was made with."""

    gram: NDArray[np.float64]
    row_weights: NDArray[np.float32]


def zero_solution(problem: Problem) -> Solution:
    """The start: no weights, and intercepts that give each fold's class shares."""
    m, d = problem.scaling.mean.shape
    n_classes = problem.present.shape[1]
    onehot = np.eye(n_classes)[problem.codes]
    share = np.maximum(problem.scaling.train @ onehot, 1e-9) / problem.scaling.n_train[:, None]
    log_share = np.log(share)
    if n_classes == 2:
        intercepts = log_share[:, 1:] - log_share[:, :1]
    else:
        intercepts = np.where(problem.present, log_share, 0.0)
        intercepts -= intercepts.sum(axis=1, keepdims=True) / problem.present.sum(axis=1, keepdims=True)
        intercepts = np.where(problem.present, intercepts, 0.0)
    none = np.zeros(m, dtype=bool)
    return Solution(np.zeros((m, d, problem.n_outputs)), intercepts, none, np.full(m, np.nan))


def curvature_gram(problem: Problem, at: Solution, previous: CurvatureGram | None) -> CurvatureGram:
    """The Gram matrix weighted by the curvature at ``at``, or ``previous`` while that still fits."""
    row_weights = mean_curvature(problem, at.weights, at.intercepts)
    if previous is not None:
        drift = np.abs(row_weights - previous.row_weights).sum() / previous.row_weights.sum()
        if drift < CURVATURE_DRIFT:
            return previous
    return CurvatureGram(weighted_gram(problem.Z, row_weights), row_weights)


def solve(
    problem: Problem, C: float, start: Solution, previous: CurvatureGram | None, *, tol: float, max_iter: int
) -> tuple[Solution, CurvatureGram]:
    """The minima of all folds at ``C`` from ``start``, and the last Gram matrix, for the next C.

    A fold stops where no entry of its gradient by scikit-learn's own (w, b) exceeds ``tol`` in size. After
    ``ROUND_ITERATIONS`` steps without that, the coordinates are chosen anew where it stands.
    """
    now, curvature, done = start, curvature_gram(problem, start, previous), 0
    while True:
        steps = min(ROUND_ITERATIONS, max_iter - done)
        now = _solve_round(problem, C, now, curvature, tol=tol, max_iter=steps)
        done += steps
        if now.converged.all() or done >= max_iter:
            return now, curvature
        curvature = curvature_gram(problem, now, curvature)


def _solve_round(
    problem: Problem, C: float, start: Solution, curvature: CurvatureGram, *, tol: float, max_iter: int
) -> Solution:
    """At most ``max_iter`` L-BFGS steps of every fold in one set of coordinates."""
    m, d, P = start.weights.shape
    ridge = 1.0 / (C * float(problem.scaling.n_train.mean()))
    T = precondition(curvature.gram, ridge, problem.Z, curvature.row_weights)
    intercept_scale = 1.0 / np.sqrt(float(curvature.row_weights.mean()) + 1e-12)
    runs: list[Generator[NDArray[np.float64], Evaluation, Minimum]] = [
        minimise(np.zeros(d * P + P), max_iter) for _ in range(m)
    ]
    asked = {k: next(run) for k, run in enumerate(runs)}
    ends = np.zeros((m, d * P + P))
    converged, validation_loss = np.zeros(m, dtype=bool), np.full(m, np.nan)
    while asked:
        which = np.array(sorted(asked))
        points = np.stack([asked[k] for k in which])
        u = start.weights[which] + _per_column(T.apply, points[:, : d * P].reshape(len(which), d, P))
        b = start.intercepts[which] + intercept_scale * points[:, d * P :]
        values = evaluate_folds(problem, which, u, b, C)
        stop = _largest_gradient(problem, which, values) <= tol
        whitened = _per_column(T.apply_transposed, values.weight_gradient).reshape(len(which), d * P)
        gradients = np.concatenate([whitened, intercept_scale * values.intercept_gradient], axis=1)
        for i, k in enumerate(which):
            try:
                asked[k] = runs[k].send(Evaluation(float(values.value[i]), gradients[i], bool(stop[i])))
            except StopIteration as end:
                del asked[k]
                ends[k], converged[k] = end.value.point, end.value.converged
                validation_loss[k] = values.validation_loss[i]
    weights = start.weights + _per_column(T.apply, ends[:, : d * P].reshape(m, d, P))
    return Solution(weights, start.intercepts + intercept_scale * ends[:, d * P :], converged, validation_loss)


def _per_column(
    function: Callable[[NDArray[np.float64]], NDArray[np.float64]], stacked: NDArray[np.float64]
) -> NDArray[np.float64]:
    """``function`` on the columns of ``stacked`` (m, d, P), all at once."""
    m, d, P = stacked.shape
    wide = function(stacked.transpose(1, 0, 2).reshape(d, m * P))
    return np.ascontiguousarray(wide.reshape(d, m, P).transpose(1, 0, 2))


def _largest_gradient(problem: Problem, which: NDArray[np.intp], values: FoldValues) -> NDArray[np.float64]:
    """The largest entry, in size, of the gradient by scikit-learn's w = t u and b: (m,)."""
    by_weight = np.abs(values.weight_gradient / problem.scaling.scale[which][:, :, None]).max(axis=(1, 2), initial=0.0)
    return np.asarray(np.maximum(by_weight, np.abs(values.intercept_gradient).max(axis=1)))


@dataclass(frozen=True)
class Path:
    """Mean validation log-loss per grid point, (n_grid,), NaN where not reached, and the solution at the best one."""

    losses: NDArray[np.float64]
    best: int
    solution: Solution
    curvature: CurvatureGram


def follow_path(problem: Problem, grid: Sequence[float], *, tol: float, max_iter: int, full: bool) -> Path:
    """Solve at every C of ``grid``, ascending; unless ``full``, stop once clearly past the best."""
    losses = np.full(len(grid), np.nan)
    solution, curvature = zero_solution(problem), None
    best: Path | None = None
    for g, C in enumerate(grid):
        solution, curvature = solve(problem, C, solution, curvature, tol=tol, max_iter=max_iter)
        losses[g] = np.nanmean(solution.validation_loss)
        if best is None or losses[g] < losses[best.best]:
            best = Path(losses, g, solution, curvature)
        past = losses[best.best] * (1.0 + CLEARLY_WORSE)
        if not full and g - best.best >= 2 and losses[g] > past and losses[g - 1] > losses[best.best]:
            break
    if best is None:
        raise ValueError("grid is empty")
    return best
