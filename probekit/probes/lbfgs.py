"""Limited-memory BFGS as a generator, so that several minimisations can share each evaluation.

The generator yields the point it wants evaluated and is sent the value there. A driver that runs one generator per
cross-validation fold collects their points, evaluates all of them with one matrix product, and answers each.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]

MEMORY = 10  # pairs kept: more than the iterations that a good preconditioner leaves to do
ARMIJO = 1e-4
CURVATURE = 0.9
MAX_LINE_SEARCH = 25
NOISE = 1e-7  # relative error of a loss whose terms come from float32 products


@dataclass(frozen=True)
class Evaluation:
    """The objective at a point: its value, its gradient (dim,), and whether the caller's stopping rule holds there."""

    value: float
    gradient: Vector
    stop: bool


@dataclass(frozen=True)
class Minimum:
    """Where a minimisation ended, and whether by the caller's stopping rule."""

    point: Vector
    converged: bool


def minimise(start: Vector, max_iter: int) -> Generator[Vector, Evaluation, Minimum]:
    """Minimise a smooth convex function from ``start`` (dim,) in at most ``max_iter`` steps.

    The first inverse Hessian is the identity: the caller's coordinates are meant to be preconditioned. The two-loop
    recursion is Nocedal & Wright (2006), algorithm 7.4; the line search accepts the weak Wolfe conditions, or, where
    the decrease drowns in rounding, their approximate form by slopes alone (Hager & Zhang, 2005).
    """
    point = start
    here = yield point
    steps: list[Vector] = []
    changes: list[Vector] = []
    for _ in range(max_iter):
        if here.stop:
            return Minimum(point, converged=True)
        direction = -_inverse_hessian_product(steps, changes, here.gradient)
        found = yield from _line_search(point, here, direction)
        if found is None:
            return Minimum(point, converged=False)
        step, there = found
        change = there.gradient - here.gradient
        if step @ change > 0:
            steps, changes = [*steps[-MEMORY + 1 :], step], [*changes[-MEMORY + 1 :], change]
        point, here = point + step, there
    return Minimum(point, converged=here.stop)


def _inverse_hessian_product(steps: list[Vector], changes: list[Vector], gradient: Vector) -> Vector:
    """The L-BFGS approximation of the inverse Hessian times ``gradient``."""
    q = gradient.copy()
    weights = []
    for step, change in zip(reversed(steps), reversed(changes), strict=True):
        rho = 1.0 / (step @ change)
        weight = rho * (step @ q)
        q -= weight * change
        weights.append((rho, weight))
    for step, change, (rho, weight) in zip(steps, changes, reversed(weights), strict=True):
        q += (weight - rho * (change @ q)) * step
    return q


def _line_search(
    point: Vector, here: Evaluation, direction: Vector
) -> Generator[Vector, Evaluation, tuple[Vector, Evaluation] | None]:
    """The step taken and the evaluation after it; None where no acceptable step is found."""
    slope = float(here.gradient @ direction)
    noise = NOISE * abs(here.value)
    low, high, length = 0.0, np.inf, 1.0
    low_slope = slope
    for _ in range(MAX_LINE_SEARCH):
        step = length * direction
        there = yield point + step
        there_slope = float(there.gradient @ direction)
        decreased = there.value <= here.value + ARMIJO * length * slope
        decreased = decreased or (
            there.value <= here.value + noise and there_slope <= (2 * ARMIJO - 1) * slope  # approximate Wolfe
        )
        if there.stop and there.value <= here.value + noise:
            return step, there
        if decreased and there_slope >= CURVATURE * slope:
            return step, there
        if decreased:
            low, low_slope = length, there_slope
            length = 0.5 * (low + high) if np.isfinite(high) else 2.0 * length
        else:
            high = length
            # The secant of the slopes, kept well inside the bracket.
            secant = low + (high - low) * low_slope / (low_slope - there_slope) if there_slope > low_slope else np.inf
            length = float(np.clip(secant, low + 0.1 * (high - low), low + 0.5 * (high - low)))
    return None
