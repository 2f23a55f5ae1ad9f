"""Where the tokens of texts are, for probes that read them all."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from probekit.errors import SpecError
from probekit.evaluate.config import StateSource
from probekit.spec import ATTENTION
from probekit.store import Cache, TextTokens


@dataclass(frozen=True)
class TokenReader:
    """Reads one layer by text; picklable, so that a worker reads it and nothing is sent."""

    cache: Cache
    offsets: NDArray[np.int64]

    def __call__(self, layer: int) -> TextTokens:
        """The states of ``layer``."""
        return TextTokens(self.cache.token_rows(layer), self.offsets)


def token_source(cache: Cache, probe: str, layers: tuple[int, ...], random: Cache | None) -> StateSource:
    """The states of all tokens of texts, for the probe of this name; of ``random`` too, if that has them.

    Raises SpecError where the cache has pooled states only, and for texts of which a span is meant.
    """
    if cache.spec.get("tokens") is None:
        message = "needs the states of every token: extract with --tokens"
        raise SpecError(f"--probe {probe}", message, "pooled states only")
    if cache.spec.get("pool_over") == "span":
        raise SpecError(f"--probe {probe}", "reads whole texts; this cache is of a span of each")
    read_random = None if random is None or random.spec.get("tokens") is None else _reader(random, layers)
    return StateSource(ATTENTION, layers, cache.final_norm, _reader(cache, layers), read_random, of_tokens=True)


def _reader(cache: Cache, layers: tuple[int, ...]) -> TokenReader:
    return TokenReader(cache, cache.tokens(layers[0]).offsets)
