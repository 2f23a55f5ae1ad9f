"""Is one layer better than another? Differences of scores over the same draws."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from probekit.metrics.bootstrap import interval


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
