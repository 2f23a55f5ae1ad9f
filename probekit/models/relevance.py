"""Rules under which a gradient times its input says how much each part of the input contributed: AttnLRP.

Achtibat et al. 2024, "AttnLRP: attention-aware layer-wise relevance propagation for transformers", in the form that
changes the backward pass alone: what a model computes stays the same.

- A norm divides by a length; that length counts as a constant.
- An activation f(x) counts as x times the constant f(x) / x.
- Where two things are multiplied, each gets half: the gate of an MLP, attention weights and values, queries and keys.

No module is looked up by name: a short run with one text says which are norms (their output stays the same when their
input is doubled) and which are activations (each number goes its own way, and not in proportion).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from probekit.errors import SpecError
from probekit.models.backbone import Backbone, padded_inputs
from probekit.models.blocks import accepted
from probekit.models.live import model_type, whole_model
from probekit.models.packing import switch_attention

NAME = "probekit_relevance"
SAME = 1e-3
"""How far outputs may be apart, relative to the largest, to count as the same: norms add a small number to a length."""


@dataclass(frozen=True)
class Rules:
    """Which modules of a model have a rule. ``centred``: those of ``norms`` that take off the mean first.

    ``gated``: those that take in the product of an activation and something else.
    """

    norms: tuple[nn.Module, ...]
    centred: frozenset[nn.Module]
    activations: tuple[nn.Module, ...]
    gated: tuple[nn.Module, ...]


class _Attention:
    """transformers' sdpa, its gradients halved at each product. ``calls``: since it was last set to 0."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(
        self, module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **kwargs: Any
    ) -> Any:
        """(n, heads, tokens, head_dim) each."""
        self.calls += 1
        query, key, value = _share(query, 4), _share(key, 4), _share(value, 2)
        return ALL_ATTENTION_FUNCTIONS["sdpa"](module, query, key, value, attention_mask, **kwargs)


ATTENTION = _Attention()
AttentionInterface.register(NAME, ATTENTION)
AttentionMaskInterface.register(NAME, ALL_MASK_ATTENTION_FUNCTIONS["sdpa"])


def find_rules(backbone: Backbone, ids: Any) -> Rules:
    """Watch the model read the text ``ids`` once. Inside ``for_training`` only.

    Raises SpecError for a model without attention, or whose attention goes another way than transformers' sdpa.
    """
    refusal = SpecError(
        "--method lrp", "needs a model whose attention goes through transformers' sdpa", f"a {model_type(backbone)}"
    )
    if backbone.model.config._attn_implementation != "sdpa":
        raise refusal
    calls: list[tuple[nn.Module, Tensor, Tensor]] = []

    def watch(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        alone = len(args) == 1 and not kwargs  # (a norm that takes in a gate, too, has no rule)
        if alone and isinstance(args[0], Tensor) and isinstance(output, Tensor) and args[0].is_floating_point():
            calls.append((module, args[0].detach(), output.detach()))

    leaves = [module for module in backbone.model.modules() if not any(True for _ in module.children())]
    handles = [module.register_forward_hook(watch, with_kwargs=True) for module in leaves]
    ATTENTION.calls = 0
    try:
        with torch.no_grad(), _own_attention(backbone):
            inputs = padded_inputs([ids], backbone.pad_id, backbone.device)
            backbone.model(**accepted(backbone.model, inputs))
    finally:
        for handle in handles:
            handle.remove()
    if not ATTENTION.calls:
        raise refusal
    with torch.no_grad():
        return _rules(calls)


def _rules(calls: list[tuple[nn.Module, Tensor, Tensor]]) -> Rules:
    norms: dict[nn.Module, None] = {}
    activations: dict[nn.Module, None] = {}
    gated: dict[nn.Module, None] = {}
    centred: set[nn.Module] = set()
    before: Tensor | None = None
    """What the activation before put out, until something takes it in."""
    for module, taken_in, put_out in calls:
        if before is not None and taken_in.shape == before.shape and _has_matrix(module):
            if not torch.equal(taken_in, before):
                gated[module] = None
            before = None
        if taken_in.shape != put_out.shape or _has_matrix(module):
            continue
        if _is_activation(module, taken_in, put_out):
            activations[module] = None
            before = put_out
        elif _alike(module(2 * taken_in), put_out) and not _alike(2 * put_out, put_out):
            norms[module] = None
            if _alike(module(taken_in + taken_in.abs().max()), put_out):
                centred.add(module)
    return Rules(tuple(norms), frozenset(centred), tuple(activations), tuple(gated))


def _has_matrix(module: nn.Module) -> bool:
    return any(parameter.ndim > 1 for parameter in module.parameters())


def _is_activation(module: nn.Module, taken_in: Tensor, put_out: Tensor) -> bool:
    """No weights, each number by itself, and neither in proportion nor as it came."""
    if any(True for _ in module.parameters()) or _alike(module(2 * taken_in), 2 * put_out):
        return False
    half = taken_in.clone()
    half[..., ::2] = 1.0
    return bool(torch.equal(module(half)[..., 1::2], put_out[..., 1::2]))


def _alike(a: Tensor, b: Tensor) -> bool:
    return bool((a - b).abs().max() <= SAME * b.abs().max())


@contextmanager
def relevance(backbone: Backbone, rules: Rules) -> Iterator[None]:
    """Gradients go by ``rules`` for a while. Inside ``for_training`` only."""
    with ExitStack() as closing:
        closing.enter_context(_own_attention(backbone))
        for module in rules.norms:
            hook = partial(_norm, centred=module in rules.centred)
            closing.callback(module.register_forward_hook(hook).remove)
        for module in rules.activations:
            closing.callback(module.register_forward_hook(_activation).remove)
        for module in rules.gated:
            closing.callback(module.register_forward_pre_hook(_gate).remove)
        yield


@contextmanager
def _own_attention(backbone: Backbone) -> Iterator[None]:
    model = whole_model(backbone)
    switch_attention(model, NAME)
    try:
        yield
    finally:
        switch_attention(model, "sdpa")


def _share(x: Tensor, among: int) -> Tensor:
    """``x``, with a gradient divided by ``among``; the value is the same to the bit."""
    return x.detach() + (x - x.detach()) / among


def _as_product(x: Tensor, y: Tensor) -> Tensor:
    """``y``, its gradient that of x times the constant y / x."""
    ratio = torch.where(x != 0, y / torch.where(x != 0, x, torch.ones_like(x)), torch.zeros_like(x)).detach()
    return y.detach() + (x - x.detach()) * ratio


def _norm(module: nn.Module, args: tuple[Any, ...], output: Tensor, *, centred: bool) -> Tensor:
    x: Tensor = args[0]
    bias = getattr(module, "bias", None)
    put_out = output if bias is None else output - bias
    counted = _as_product(x - x.mean(-1, keepdim=True) if centred else x, put_out)
    return output.detach() + counted - put_out.detach()


def _activation(_module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
    return _as_product(args[0], output)


def _gate(_module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
    return (_share(args[0], 2), *args[1:])
