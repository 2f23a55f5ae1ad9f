"""What is asked of several caches of one model to the transfer table."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor

import pandas as pd

from probekit.errors import SpecError
from probekit.evaluate.plan import Asked
from probekit.evaluate.transfer import Domain, plan_transfer, transfer
from probekit.spec import Listener
from probekit.store import Cache

SAME_FIELDS = ("model", "revision", "tokenizer", "n_layers", "side", "site", "random_seed", "quantize", "last_layer")
"""What of their specs the caches must share, so that their states mean the same."""


def transfer_domains(caches: Sequence[Cache], asked: Sequence[Asked]) -> list[list[Domain]]:
    """The caches' rows as domains, for each pooling and target.

    Raises SpecError for caches of different models, layers or poolings and for tags of words, InputError for targets
    that don't fit together.
    """
    for cache, one in zip(caches, asked, strict=True):
        one.check_texts("transfer tables")
        _check_same(cache, caches[0])
        mine, first = ([(s.pooling, s.layers) for s in part] for part in (one.sources, asked[0].sources))
        if mine != first:
            message = f"must have the layers and poolings of {caches[0].path.name}; see --layers and --pooling"
            raise SpecError(f"--transfer {cache.path.name}", message)
    found = [
        [Domain(one.origin.cache, one.sources[s], one.targets[t], one.question) for one in asked]
        for s in range(len(asked[0].sources))
        for t in range(len(asked[0].targets))
    ]
    for domains in found:
        plan_transfer(domains)
    return found


def transfer_table(
    found: Sequence[Sequence[Domain]], *, model: str, executor: Executor | None, listener: Listener | None
) -> pd.DataFrame:
    """Fit on each cache's training rows and test on the test rows of all: one row per pair, layer, pooling and target.

    The caches are called as in the layer table.
    """
    tables = [transfer(domains, model=model, executor=executor, listener=listener) for domains in found]
    return pd.concat(tables, ignore_index=True)


def _check_same(cache: Cache, first: Cache) -> None:
    for field in SAME_FIELDS:
        mine, others = cache.spec.get(field), first.spec.get(field)
        if mine != others:
            raise SpecError(
                f"--transfer {cache.path.name}", f"must have the {field} of {first.path.name}: {others}", str(mine)
            )
