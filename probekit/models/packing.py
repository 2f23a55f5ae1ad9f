"""Packed attention: many texts in one row of tokens, no padding, each text attending to itself only.

Registered with transformers' ``AttentionInterface``; sdpa runs once per group of equal lengths. No mask is built: under
a name for which transformers knows no mask function, models hand on ``None``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, PreTrainedModel

NAME = "probekit_packed"
NO_LIMIT = 1 << 30


class PackingUnsupportedError(ValueError):
    """The model's attention needs something that packing does not carry (a bias, a softcap, a sink)."""


@dataclass
class PackedAttention:
    """The attention function and its state: the lengths in the row now being read.

    ``window``: the narrowest sliding window seen since it was last set, for the calibration of one model: a text no
    longer than that attends as if there were none. It belongs to no model, so a model keeps its own copy.
    """

    lengths: list[int] = field(default_factory=list)
    window: int = NO_LIMIT

    def __call__(
        self,
        module: torch.nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | None,
        **kwargs: Any,  # transformers' calling convention, not ours
    ) -> tuple[Tensor, None]:
        """(1, heads, tokens, head_dim) each; gives (1, tokens, heads, head_dim)."""
        unknown = [name for name in ("softcap", "s_aux", "position_bias") if kwargs.get(name) is not None]
        if unknown or attention_mask is not None or query.shape[2] != sum(self.lengths) or key.shape != value.shape:
            raise PackingUnsupportedError(f"attention with {unknown or 'a mask of its own'}")
        if kwargs.get("sliding_window") is not None:
            self.window = min(self.window, int(kwargs["sliding_window"]))
        causal = kwargs.get("is_causal")
        causal = bool(getattr(module, "is_causal", True) if causal is None else causal)
        shared_heads = query.shape[1] != key.shape[1]
        outputs, start = [], 0
        for length, group in groupby(self.lengths):
            count = len(list(group))
            stop = start + count * length
            q, k, v = (
                part[0, :, start:stop].reshape(part.shape[1], count, length, -1).transpose(0, 1)
                for part in (query, key, value)
            )
            attended = scaled_dot_product_attention(
                q, k, v, scale=kwargs.get("scaling"), is_causal=causal and length > 1, enable_gqa=shared_heads
            )
            outputs.append(attended.transpose(1, 2).flatten(0, 1))
            start = stop
        return torch.cat(outputs).unsqueeze(0), None


PACKED = PackedAttention()
AttentionInterface.register(NAME, PACKED)


def switch_attention(model: torch.nn.Module, name: str) -> None:
    """Let a transformers model use the attention registered as ``name`` from now on."""
    cast("PreTrainedModel", model).set_attn_implementation(name)
