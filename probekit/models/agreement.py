"""How far a text's states beside others are from those that it has alone, and how far rounding can take them.

A model that ignores its mask, or that computes something over the whole batch, gives a text other states in other
company. Rounding does so too, but less: in bfloat16, in deep models, by one or two per cent.
"""

from __future__ import annotations

import torch
from torch import Tensor

ROUNDING = {"float32": 1e-4, "float16": 0.01, "bfloat16": 0.05}
"""By compute dtype, what is still rounding, relative to the states."""

EXACT = "float32"


def tolerance(dtype: str, *, quantised: bool) -> float:
    """What is still rounding; 8-bit weights round each batch by its own largest values."""
    return max(ROUNDING.values()) if quantised else ROUNDING.get(dtype, ROUNDING[EXACT])


def difference(alone: Tensor, together: Tensor, *, dtype: str) -> float:
    """How far apart two readings of one text at one layer are, relative to the states; (tokens, d_model) each.

    A token's error is relative to its own norm or to the median one, whichever is larger: some models give the first
    token a norm a hundred times that of others, which would hide these, and some tokens have next to none. In float32
    the worst token counts. With less precision it is the median one, or a tenth of the worst, for there a single token
    may well go to another expert of a mixture by rounding alone.
    """
    alone, together = (
        torch.nan_to_num(states.float(), nan=0.0, posinf=0.0, neginf=0.0) for states in (alone, together)
    )
    norms = alone.norm(dim=-1)
    scale = torch.maximum(norms, norms.median()).clamp(min=torch.finfo(torch.float32).tiny)
    errors = (together - alone).norm(dim=-1) / scale
    worst = errors.max()
    return float(worst if dtype == EXACT else torch.maximum(errors.median(), 0.1 * worst))
