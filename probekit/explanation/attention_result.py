"""What a model's heads attend to in one text, as arrays: what pictures and tables are made of."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from probekit.spec import Json

ROUNDED = 6
"""Decimals of a weight in JSON."""


@dataclass(frozen=True)
class AttentionResult:
    """The attention of some layers and heads for one text of n tokens.

    ``weights[i, h, q, k]``: how much token q attends to token k in head ``heads[h]`` of layer ``layers[i]``,
    (n_layers, n_heads, n, n) float32. As in ``--site attn`` layers count from 1: layer 1 is the first block. Heads
    count from 0 and are those of the queries, where several share keys. A row sums to 1, but in a model with learned
    sinks (gpt-oss), which take the rest of it.
    ``rollout``: (n, n) float32 or None; see ``probekit.attention``. ``rollout_layer``: the layer up to which it goes.
    ``tokens``: n pieces of the text, special tokens by their names; ``token_ids``: (n,).
    ``truncated``: whether the text was longer than what was read. ``hide_first``: pictures and the links in tables
    leave the first token out; the arrays here never do.
    """

    model: str
    text: str
    side: str
    tokens: tuple[str, ...]
    token_ids: NDArray[np.int64]
    layers: tuple[int, ...]
    heads: tuple[int, ...]
    weights: NDArray[np.float32]
    rollout: NDArray[np.float32] | None = None
    rollout_layer: int | None = None
    truncated: bool = False
    hide_first: bool = False

    def maps(self) -> Iterator[tuple[int, int, NDArray[np.float32]]]:
        """Layer, head and weights (n, n) of every map there is."""
        for i, layer in enumerate(self.layers):
            for j, head in enumerate(self.heads):
                yield layer, head, self.weights[i, j]

    def shown(self, weights: NDArray[np.float32]) -> NDArray[np.float32]:
        """``weights`` (n, n) as pictures show them: see ``hide_first``."""
        return without_first(weights) if self.hide_first else weights

    def json(self) -> Json:
        """Everything as JSON, with weights as they are, whatever pictures hide."""
        return {
            "model": self.model,
            "side": self.side,
            "text": self.text,
            "truncated": self.truncated,
            "tokens": list(self.tokens),
            "token_ids": self.token_ids.tolist(),
            "layers": list(self.layers),
            "heads": list(self.heads),
            "renormalised": False,
            "weights": _rounded(self.weights),
            "rollout": None if self.rollout is None else _rounded(self.rollout),
            "rollout_layer": self.rollout_layer,
        }


def without_first(weights: NDArray[np.float32]) -> NDArray[np.float32]:
    """Attention (..., n, n) without what goes to the first token: its column is NaN, and the rest of a row sums to 1.

    The first token draws most of the attention of many heads for no sake of its own (the attention sink of Xiao et al.,
    2023), and what they do besides is not seen beside it. A row that has nothing else is NaN.
    """
    rest = np.array(weights, dtype=np.float32)
    rest[..., 0] = 0.0
    total = rest.sum(axis=-1, keepdims=True)
    shown = np.full_like(rest, np.nan)
    np.divide(rest, total, out=shown, where=total > 0)
    shown[..., 0] = np.nan
    return shown


def _rounded(weights: NDArray[np.float32]) -> list[object]:
    """As lists; by way of float64, or 0.1 would be 0.10000000149."""
    found: list[object] = np.round(weights.astype(np.float64), ROUNDED).tolist()
    return found
