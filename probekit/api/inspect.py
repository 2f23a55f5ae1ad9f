"""What a cache holds: the diagnostics of its states."""

from __future__ import annotations

from functools import partial

from probekit.api.probe import CacheLike, opened_caches
from probekit.evaluate.config import StateSource
from probekit.evaluate.diagnostics import feature_health
from probekit.spec import Listener, Result


def diagnostics(cache: CacheLike, *, listener: Listener | None = None) -> Result:
    """Largest values, spread, angles and likeness of all pooled states: a row per pooling x layer.

    The result's table "diagnostics" has the columns ``HEALTH_COLUMNS``, explained at
    :func:`probekit.evaluate.diagnostics.feature_health`.
    """
    with opened_caches([cache]) as (opened,):
        sources = [
            StateSource(pooling, opened.layers, opened.final_norm, partial(opened.layer, pooling=pooling, mapped=False))
            for pooling in opened.poolings
        ]
        record = {"cache": {"file": opened.path.name, "fingerprint": opened.fingerprint, "spec": opened.spec}}
        return Result({"diagnostics": feature_health(sources, listener=listener)}, record=record)
