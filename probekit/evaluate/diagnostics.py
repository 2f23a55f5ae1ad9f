"""The health of the features, by pooling and layer: what to know before believing any score."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from probekit.evaluate.config import StateSource
from probekit.evaluate.geometry import effective_rank, linear_cka, mean_pair_cosine, top_dimension_share
from probekit.spec import HEALTH_COLUMNS, Listener, Silent

if TYPE_CHECKING:
    import pandas as pd

MAX_ROWS = 4096
N_PAIRS = 2000
BLOCK_ROWS = 4096


def feature_health(sources: Sequence[StateSource], *, seed: int = 0, listener: Listener | None = None) -> pd.DataFrame:
    """One row per pooling x layer, columns ``HEALTH_COLUMNS``.

    - ``max_abs``: largest absolute value among the finite ones; ``n_nonfinite``: how many are NaN or infinite.
    - ``top_dimension``: share of the total variance in one dimension; near 1, cosines and distances see that one only.
    - ``effective_rank``: how many directions carry the variance.
    - ``cosine``: mean cosine of 2,000 random pairs of rows; near 1, all texts look alike.
    - ``cka_previous``: linear CKA to the layer in the row before; empty in the first.

    The first two are of all rows, the others of 4,096 rows drawn by ``seed`` (without those that are not finite). Two
    layers at most are in memory.
    """
    listener = listener or Silent()
    listener.stage("health", total=sum(len(source.layers) for source in sources), unit="layers")
    rows: list[dict[str, Any]] = []
    for source in sources:
        for row in _of_source(source, seed):
            rows.append(row)
            listener.advance(len(rows))
    import pandas as pd

    return pd.DataFrame(rows, columns=list(HEALTH_COLUMNS))


def _of_source(source: StateSource, seed: int) -> Iterator[dict[str, Any]]:
    previous: NDArray[np.float64] | None = None
    for layer in source.layers:
        states = source.read(layer)
        n = len(states)
        drawn = np.sort(np.random.default_rng(seed).permutation(n)[:MAX_ROWS])  # the same rows of every layer
        sample = states[drawn].astype(np.float64)
        finite = np.isfinite(sample).all(axis=1)
        centred = _centred(sample[finite])
        max_abs, n_nonfinite = _extremes(states)
        yield {
            "pooling": source.pooling,
            "layer": layer,
            "max_abs": max_abs,
            "n_nonfinite": n_nonfinite,
            "top_dimension": top_dimension_share(centred) if len(centred) else float("nan"),
            "effective_rank": effective_rank(centred) if len(centred) else float("nan"),
            "cosine": mean_pair_cosine(sample[finite], n_pairs=N_PAIRS, seed=seed),
            "cka_previous": float("nan") if previous is None else _cka(previous, sample),
        }
        previous = sample


def _centred(X: NDArray[np.float64]) -> NDArray[np.float64]:
    return X - X.mean(axis=0) if len(X) else X


def _cka(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    finite = np.isfinite(a).all(axis=1) & np.isfinite(b).all(axis=1)
    return linear_cka(_centred(a[finite]), _centred(b[finite])) if finite.any() else float("nan")


def _extremes(states: NDArray[Any]) -> tuple[float, int]:
    """The largest finite absolute value and the number of others, block by block."""
    largest, n_nonfinite = 0.0, 0
    for start in range(0, len(states), BLOCK_ROWS):
        block = np.asarray(states[start : start + BLOCK_ROWS])
        finite = np.isfinite(block)
        n_nonfinite += int(block.size - np.count_nonzero(finite))
        largest = max(largest, float(np.max(np.abs(block), initial=0.0, where=finite)))
    return largest, n_nonfinite
