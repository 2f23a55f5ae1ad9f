"""Bootstrap intervals over rows or groups of rows, with the same draws for everything that is compared."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

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
