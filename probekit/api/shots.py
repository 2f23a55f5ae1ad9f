"""Caches to the few-shot table."""

from __future__ import annotations

import os
from collections.abc import Sequence

import pandas as pd

from probekit.api.asking import ProbeOptions, check_run, prepare_texts
from probekit.api.probe import opened_caches
from probekit.api.workers import workers
from probekit.evaluate import Shots, few_shots
from probekit.spec import Listener
from probekit.store import Cache


def run_shots(
    caches: Sequence[Cache | str | os.PathLike[str]],
    targets: Sequence[str],
    *,
    options: ProbeOptions,
    shots: Shots,
    jobs: int = 1,
    listener: Listener | None = None,
) -> pd.DataFrame:
    """Few-shot curves of every layer: a probe learns from k training rows of each class and is scored on the test rows.

    For numbers k rows in all. The probe is logistic regression with C = 1 or ridge with alpha = d_model on standardised
    states (so few rows can't choose), or with ``shots=MTEB`` what MTEB's classification protocol says: 8 rows of each
    class, states of length 1, no scaler. ``options.probes`` and ``options.controls`` don't matter here.

    Returns one row per target x pooling x layer x number of shots, columns ``SHOT_COLUMNS``. Raises as ``few_shots``.
    """
    check_run(targets, options, jobs)
    with opened_caches(caches) as opened, workers(jobs) as executor:
        asked = [prepare_texts(cache, targets, options, "few-shot curves") for cache in opened]
        done = [
            few_shots(
                one.sources,
                one.targets,
                one.question,
                shots=shots,
                origin=one.origin,
                executor=executor,
                listener=listener,
            )
            for one in asked
        ]
    return pd.concat(done, ignore_index=True)
