"""What a label can be read by, taken out of hidden states: affine maps that are fitted in closed form.

``leace`` is least-squares concept erasure (Belrose et al. 2023, "LEACE: Perfect linear concept erasure in closed
form"): of all maps after which no linear reader does better than a constant, the one that changes the states least.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.compose import TransformedTargetRegressor
from sklearn.covariance import ledoit_wolf_shrinkage
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.dummy import DummyClassifier
from sklearn.feature_selection import SelectKBest, VarianceThreshold
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.multioutput import MultiOutputClassifier
from sklearn.neighbors import NearestCentroid
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

from probekit.errors import InputError, SpecError

Floats = NDArray[np.floating[Any]]

ERASERS = ("leace", "mean-difference", "direction")
"""What ``--erase`` can be."""

RANK_TOLERANCE = 1e-6
"""A direction of the cross-covariance that is smaller than this share of the largest one is rounding."""


@dataclass(frozen=True, eq=False)
class Moments:
    """Of ``n`` states x and their labels z as numbers: ``mean`` (d,), ``cov_xx`` (d, d), ``cov_xz`` (d, k).

    ``var_z``: (k,). Covariances are divided by n. ``shrinkage``: how far to draw ``cov_xx`` to a multiple of the
    identity before it is inverted (Ledoit and Wolf 2004), which few rows of many dimensions need.
    """

    n: int
    mean: Floats
    cov_xx: Floats
    cov_xz: Floats
    var_z: Floats
    shrinkage: float = 0.0


@dataclass(frozen=True, eq=False)
class Erasure:
    """x - left @ right.T @ (x - mean), for ``left`` and ``right`` (d, rank) with right.T @ left = 1: a projection."""

    left: Floats
    right: Floats
    mean: Floats

    @property
    def rank(self) -> int:
        """How many directions are taken out."""
        return int(self.left.shape[1])

    def __call__(self, X: Floats) -> Floats:
        """(n, d) states without it, in float64."""
        return X - self.removed(X)

    def removed(self, X: Floats) -> Floats:
        """(n, d) what is taken out, in float64."""
        return np.asarray(((X - self.mean) @ self.right) @ self.left.T)


@dataclass(frozen=True, eq=False)
class Shift:
    """x + ``by``, (d,)."""

    by: Floats

    @property
    def rank(self) -> int:
        """One direction."""
        return 1

    def __call__(self, X: Floats) -> Floats:
        """(n, d) shifted, in float64."""
        return np.asarray(X + self.by)

    def removed(self, X: Floats) -> Floats:
        """Nothing that varies from row to row: (n, d) zeros."""
        return np.zeros_like(X, dtype=np.float64)


Change = Erasure | Shift


def moments(X: Floats, Z: Floats, source: str) -> Moments:
    """Of states (n, d) and labels as numbers (n, k): one-hot classes, numbers, or 0 and 1 by label.

    Raises InputError, which begins with ``source``, for states that are not finite.
    """
    if not np.isfinite(X).all():
        raise InputError(source, "what is erased is fitted on finite hidden states", "NaN or infinite values")
    X, Z = np.asarray(X, dtype=np.float64), np.asarray(Z, dtype=np.float64)
    mean = X.mean(axis=0)
    centred, labels = X - mean, Z - Z.mean(axis=0)
    n = len(X)
    return Moments(
        n,
        mean=mean,
        cov_xx=centred.T @ centred / n,
        cov_xz=centred.T @ labels / n,
        var_z=(labels**2).mean(axis=0),
        shrinkage=float(ledoit_wolf_shrinkage(centred, assume_centered=True)),
    )


def leace(found: Moments) -> Erasure:
    """LEACE, equation 2 of Belrose et al. 2023: x - W⁺ P W (x - mean), P onto the columns of W cov_xz.

    W whitens the states. The rank is that of the cross-covariance: one less than there are classes. With shrinkage W
    whitens them nearly, as the authors' own code does: no linear reader is left all the same, for that holds for every
    W, and only the smallest change becomes nearly the smallest.
    """
    values, vectors = np.linalg.eigh(found.cov_xx)
    values = (1 - found.shrinkage) * values + found.shrinkage * values.mean()
    kept = values > values[-1] * len(values) * np.finfo(np.float64).eps
    roots, vectors = np.sqrt(values[kept]), vectors[:, kept]
    whitened = _column_space((vectors / roots) @ (vectors.T @ found.cov_xz))
    return Erasure(
        left=vectors @ (roots[:, None] * (vectors.T @ whitened)),
        right=vectors @ ((vectors.T @ whitened) / roots[:, None]),
        mean=found.mean,
    )


def mean_difference(found: Moments) -> Erasure:
    """The orthogonal projection off the differences of class means; for numbers, off the covariance with them."""
    directions = _column_space(found.cov_xz)
    return Erasure(directions, directions, found.mean)


def along(directions: Floats, mean: Floats) -> Erasure:
    """The orthogonal projection off ``directions`` (d, k)."""
    basis = _column_space(directions)
    return Erasure(basis, basis, mean)


def random_erasure(rank: int, mean: Floats, rng: np.random.Generator) -> Erasure:
    """The orthogonal projection off ``rank`` random directions, of which each is as likely as any other."""
    basis = _random_basis(len(mean), rank, rng)
    return Erasure(basis, basis, mean)


def random_shift(norm: float, d: int, rng: np.random.Generator) -> Shift:
    """A shift of length ``norm`` in a random direction."""
    return Shift(norm * _random_basis(d, 1, rng)[:, 0])


def class_distance(found: Moments) -> Floats:
    """(d,) what separates the states of the second of two classes from the first: the difference of means.

    For numbers: the slope of the states per standard deviation of the number.
    """
    scale = found.var_z[-1] if found.cov_xz.shape[1] == 2 else np.sqrt(found.var_z[-1])
    return np.asarray(found.cov_xz[:, -1] / scale)


def along_direction(distance: Floats, direction: Floats) -> Floats:
    """(d,) the part of ``distance`` that lies along ``direction`` (d,)."""
    unit = direction / np.linalg.norm(direction)
    return np.asarray(unit * (unit @ distance))


def variance_removed(change: Change, X: Floats) -> float:
    """The variance of what is taken out of the states ``X`` (n, d), as a share of theirs, all dimensions together."""
    total = float(np.asarray(X, dtype=np.float64).var(axis=0).sum())
    return float(change.removed(X).var(axis=0).sum()) / total if total else 0.0


def probe_directions(estimator: Any, source: str) -> Floats:
    """(d, k) the directions in the states by which a fitted linear probe answers.

    Raises SpecError, which begins with ``source``, for a probe that has none.
    """
    if isinstance(estimator, MultiOutputClassifier):
        parts = [part for part in estimator.estimators_ if not isinstance(part, DummyClassifier)]
        return np.hstack([probe_directions(part, source) for part in parts])
    steps = [step for _, step in estimator.steps] if isinstance(estimator, Pipeline) else [estimator]
    if type(steps[-1]) not in ENDS or any(type(step) not in BEFORE for step in steps[:-1]):
        names = " > ".join(type(step).__name__ for step in steps)
        raise SpecError(source, "has no direction of its own, for it is not linear: take --erase leace", names)
    directions = ENDS[type(steps[-1])](steps[-1])
    for step in reversed(steps[:-1]):
        directions = BEFORE[type(step)](step, directions)
    return directions


def _coefficients(step: Any) -> Floats:
    return np.atleast_2d(np.asarray(step.coef_, dtype=np.float64)).T


def _class_coefficients(step: Any) -> Floats:
    """Of several classes, what sets each apart from their mean: what all have in common decides nothing."""
    found = _coefficients(step)
    return found - found.mean(axis=1, keepdims=True) if found.shape[1] > 1 else found


def _transformed(step: TransformedTargetRegressor) -> Floats:
    return _coefficients(step.regressor_)


def _centroids(step: NearestCentroid) -> Floats:
    """Two classes are told apart by the difference of their means, in units of the spread that it divides by."""
    scale = np.where(step.within_class_std_dev_ != 0, step.within_class_std_dev_, 1.0)
    return np.asarray((step.centroids_[1:] - step.centroids_[0]) / scale**2, dtype=np.float64).T


def _unscaled(step: StandardScaler, directions: Floats) -> Floats:
    return directions if step.scale_ is None else np.asarray(directions / step.scale_[:, None])


def _unselected(step: SelectKBest | VarianceThreshold, directions: Floats) -> Floats:
    support = step.get_support()
    whole = np.zeros((len(support), directions.shape[1]))
    whole[support] = directions
    return whole


ENDS: dict[type, Callable[[Any], Floats]] = {
    LogisticRegression: _class_coefficients,
    LinearDiscriminantAnalysis: _class_coefficients,
    Ridge: _coefficients,
    NearestCentroid: _centroids,
    TransformedTargetRegressor: _transformed,
}
"""How the last step of a probe gives its directions."""

BEFORE: dict[type, Callable[[Any, Floats], Floats]] = {
    StandardScaler: _unscaled,
    SelectKBest: _unselected,
    VarianceThreshold: _unselected,
}
"""What the steps before it make of them, read backwards."""


def _column_space(directions: Floats) -> Floats:
    """(d, rank) an orthonormal basis."""
    basis, sizes, _ = np.linalg.svd(np.asarray(directions, dtype=np.float64), full_matrices=False)
    return np.asarray(basis[:, sizes > RANK_TOLERANCE * max(float(sizes.max(initial=0.0)), np.finfo(float).tiny)])


def _random_basis(d: int, rank: int, rng: np.random.Generator) -> Floats:
    drawn, upper = np.linalg.qr(rng.standard_normal((d, rank)))
    return np.asarray(drawn * np.sign(np.diag(upper)))
