"""A cache to the table of its features' health."""

from __future__ import annotations

import os
from functools import partial

import pandas as pd

from probekit.api.probe import opened_caches
from probekit.evaluate import StateSource, feature_health
from probekit.spec import Listener
from probekit.store import Cache


def cache_health(cache: Cache | str | os.PathLike[str], *, listener: Listener | None = None) -> pd.DataFrame:
    """Largest values, spread, angles and likeness of all pooled states, one row per pooling x layer.

    The columns are explained at :func:`probekit.evaluate.feature_health`.
    """
    with opened_caches([cache]) as (opened,):
        sources = [
            StateSource(pooling, opened.layers, opened.final_norm, partial(opened.layer, pooling=pooling, mapped=False))
            for pooling in opened.poolings
        ]
        return feature_health(sources, listener=listener)
