"""Caches of one model to the transfer table."""

from __future__ import annotations

import os
from collections.abc import Sequence

import pandas as pd

from probekit.api.asking import ProbeOptions, check_run, prepare_texts
from probekit.api.probe import opened_caches
from probekit.api.workers import workers
from probekit.errors import SpecError
from probekit.evaluate.transfer import Domain, transfer
from probekit.spec import Listener
from probekit.store import Cache

SAME_FIELDS = ("model", "revision", "tokenizer", "n_layers", "side", "site", "random_seed", "quantize")
"""What of their specs the caches must share, so that their states mean the same."""


def run_transfer(
    caches: Sequence[Cache | str | os.PathLike[str]],
    targets: Sequence[str],
    *,
    options: ProbeOptions,
    jobs: int = 1,
    listener: Listener | None = None,
) -> pd.DataFrame:
    """Fit on each cache's training rows and test on the test rows of all: one row per pair, layer, pooling and target.

    A cache is named by its file's name without the ending, or by its path where two would have one name. The options
    hold for all caches. Raises SpecError for caches of different models, layers or poolings.
    """
    check_run(targets, options, jobs)
    if len(caches) < 2:
        raise SpecError("--transfer", "at least two caches", str(len(caches)))
    with opened_caches(caches) as opened, workers(jobs) as executor:
        asked = [prepare_texts(cache, targets, options, "transfer") for cache in opened]
        for cache, one in zip(opened, asked, strict=True):
            _check_same(cache, opened[0])
            mine, first = ([(s.pooling, s.layers) for s in part] for part in (one.sources, asked[0].sources))
            if mine != first:
                message = f"must have the layers and poolings of {opened[0].path.name}; see --layers and --pooling"
                raise SpecError(f"--transfer {cache.path.name}", message)
        names = _names(opened)
        tables = [
            transfer(
                [
                    Domain(name, one.sources[s], one.targets[t], one.question)
                    for name, one in zip(names, asked, strict=True)
                ],
                model=opened[0].model,
                executor=executor,
                listener=listener,
            )
            for s in range(len(asked[0].sources))
            for t in range(len(targets))
        ]
    return pd.concat(tables, ignore_index=True)


def _check_same(cache: Cache, first: Cache) -> None:
    for field in SAME_FIELDS:
        mine, others = cache.spec.get(field), first.spec.get(field)
        if mine != others:
            raise SpecError(
                f"--transfer {cache.path.name}", f"must have the {field} of {first.path.name}: {others}", str(mine)
            )


def _names(caches: Sequence[Cache]) -> list[str]:
    short = [cache.path.stem for cache in caches]
    names = short if len(set(short)) == len(short) else [str(cache.path) for cache in caches]
    if len(set(names)) < len(names):
        raise SpecError("--transfer", "different caches, none twice", ", ".join(names))
    return names
