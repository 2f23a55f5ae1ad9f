"""Poolings of ragged token states: one vector per example, over real tokens only.

States come as (total_tokens, d_model), example after example, with ``lengths`` (n_examples,) saying where each ends.
There is no padding in this form, so no pooling can be wrong about padding or its side.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

Pooling = Callable[[Tensor, Tensor], Tensor]


def _starts(lengths: Tensor) -> Tensor:
    return torch.cumsum(lengths, 0) - lengths


def mean_pool(hidden: Tensor, lengths: Tensor) -> Tensor:
    """Mean over all tokens of each example.

    >>> mean_pool(torch.tensor([[1.0], [3.0], [5.0]]), torch.tensor([2, 1])).tolist()
    [[2.0], [5.0]]
    """
    rows = torch.arange(len(hidden), device=hidden.device)
    return embedding_bag(rows, hidden, _starts(lengths), mode="mean")


def mean_skip_first_pool(hidden: Tensor, lengths: Tensor) -> Tensor:
    """Mean without the first token, where decoders put an attention sink (Xiao et al. 2023); a lone token is kept.

    >>> mean_skip_first_pool(torch.tensor([[900.0], [3.0], [5.0], [7.0]]), torch.tensor([3, 1])).tolist()
    [[4.0], [7.0]]
    """
    keep = torch.ones(len(hidden), dtype=torch.bool, device=hidden.device)
    keep[_starts(lengths)[lengths > 1]] = False
    kept = torch.where(lengths > 1, lengths - 1, lengths)
    return embedding_bag(torch.nonzero(keep).squeeze(1), hidden, _starts(kept), mode="mean")


def first_pool(hidden: Tensor, lengths: Tensor) -> Tensor:
    """The first token (``[CLS]`` in BERT-like models)."""
    return hidden[_starts(lengths)]


def last_pool(hidden: Tensor, lengths: Tensor) -> Tensor:
    """The last token: in a causal model the only one that has read the whole text."""
    return hidden[torch.cumsum(lengths, 0) - 1]


def max_pool(hidden: Tensor, lengths: Tensor) -> Tensor:
    """The maximum over tokens, dimension by dimension."""
    return torch.segment_reduce(hidden, "max", lengths=lengths, axis=0)


POOLINGS: dict[str, Pooling] = {
    "mean": mean_pool,
    "last": last_pool,
    "first": first_pool,
    "max": max_pool,
    "mean_skip_first": mean_skip_first_pool,
}
"""Each takes float32 (total_tokens, d_model) and int64 (n_examples,), and gives float32 (n_examples, d_model)."""
