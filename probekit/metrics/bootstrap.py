"""Bootstrap intervals over rows or groups of rows, and differences of scores over the same draws."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

N_DRAWS = 1000

_BLOCK = 2_000_000
"""Random numbers in memory at a time."""


def bootstrap_terms(
    value: Callable[[NDArray[np.float64]], NDArray[np.float64]],
    terms: NDArray[np.float64],
    *,
    groups: NDArray[Any] | None,
    seed: int,
    n_draws: int = N_DRAWS,
) -> NDArray[np.float64]:
    """Scores of resampled rows, (n_draws, n_layers) float64; NaN where a draw leaves the score undefined.

    ``terms``: (n, n_layers, n_terms) what each row adds to the sums; ``value`` makes a score of them (see ``Score``).
    ``groups``: (n,), then whole groups are drawn with replacement, as rows of one group are not independent (cluster
    bootstrap; Davison and Hinkley 1997, section 3.8), else rows. Draw b resamples the same rows for every layer, so the
    difference of two columns is a paired bootstrap.
    """
    if groups is not None:
        names, group_of = np.unique(groups, return_inverse=True)
        of_groups = np.zeros((len(names), *terms.shape[1:]))
        np.add.at(of_groups, group_of, terms)
        terms = of_groups
    flat = terms.reshape(len(terms), -1)
    sums = np.concatenate([counts @ flat for counts in _resampling_counts(len(terms), n_draws, seed)])
    return value(sums.reshape(n_draws, *terms.shape[1:]))


def interval(draws: NDArray[np.float64], confidence: float = 0.95) -> tuple[float, float]:
    """Percentile interval of the draws (any shape); undefined draws are left out, (NaN, NaN) if none is defined.

    >>> interval(np.arange(101.0), confidence=0.5)
    (25.0, 75.0)
    """
    defined = draws[~np.isnan(draws)]
    if len(defined) == 0:
        return np.nan, np.nan
    tail = (1 - confidence) / 2
    low, high = np.quantile(defined, [tail, 1 - tail])
    return float(low), float(high)


def _resampling_counts(n_units: int, n_draws: int, seed: int) -> Iterator[NDArray[np.float64]]:
    """How often each unit is drawn: blocks of (n_draws of the block, n_units); each row sums to n_units."""
    rng = np.random.default_rng(seed)
    size = max(1, _BLOCK // n_units)
    for start in range(0, n_draws, size):
        n_block = min(size, n_draws - start)
        drawn = rng.integers(0, n_units, size=(n_block, n_units))
        drawn += np.arange(n_block)[:, None] * n_units
        yield np.bincount(drawn.ravel(), minlength=n_block * n_units).reshape(n_block, n_units).astype(np.float64)


@dataclass(frozen=True)
class PairedDifference:
    """Percentile interval of a difference of scores and its two-sided p-value; NaN if no draw is defined."""

    low: float
    high: float
    p_value: float


def paired_difference(
    draws_a: NDArray[np.float64], draws_b: NDArray[np.float64], *, confidence: float = 0.95
) -> PairedDifference:
    """The difference a - b over paired draws.

    ``draws_a``, ``draws_b``: (n_draws,) columns of one ``bootstrap_terms``: draw i is of the same rows for both.
    ``p_value``: twice the share of draws on the far side of zero, the data itself counted as one of them (Davison and
    Hinkley 1997, sections 4.2.5 and 5.5), so never below 2 / (n_draws + 1).

    >>> paired_difference(np.array([0.9, 0.8, 0.9]), np.array([0.5, 0.7, 0.6])).p_value
    0.5
    """
    difference = draws_a - draws_b
    difference = difference[~np.isnan(difference)]
    if len(difference) == 0:
        return PairedDifference(np.nan, np.nan, np.nan)
    beyond = min(np.count_nonzero(difference <= 0), np.count_nonzero(difference >= 0))
    low, high = interval(difference, confidence)
    return PairedDifference(low, high, float(min(1.0, 2.0 * (1 + beyond) / (len(difference) + 1))))


def differences_from(draws: NDArray[np.float64], reference: int) -> list[PairedDifference]:
    """Each layer's score minus that of layer ``reference``, with p-values corrected for comparing all of them (Holm).

    ``draws``: (n_draws, n_layers) of ``bootstrap_terms``. ``reference`` must not be chosen by the rows that were drawn
    (choose it on validation). Its own entry is (0, 0, 1). Intervals are for one layer each, not for all at once.
    To get a corrected p-value below 0.05, n_draws must be above 40 x (n_layers - 1).
    """
    found = [paired_difference(column, draws[:, reference]) for column in draws.T]
    p_values = np.array([difference.p_value for difference in found])
    others = np.arange(len(found)) != reference
    p_values[others] = holm(p_values[others])
    return [replace(difference, p_value=float(p)) for difference, p in zip(found, p_values, strict=True)]


def holm(p_values: ArrayLike) -> NDArray[np.float64]:
    """p-values corrected for being several, (n,) -> (n,): the chance of any false alarm stays below the level.

    Holm's step-down method (1979), valid for dependent tests. NaN stays NaN and does not count.

    >>> holm([0.01, 0.04, 0.03]).round(2).tolist()
    [0.03, 0.06, 0.06]
    """
    corrected = np.array(p_values, dtype=np.float64)
    defined = np.flatnonzero(~np.isnan(corrected))
    order = defined[np.argsort(corrected[defined], kind="stable")]
    factors = np.arange(len(order), 0, -1)
    corrected[order] = np.minimum(np.maximum.accumulate(corrected[order] * factors), 1.0)
    return corrected
