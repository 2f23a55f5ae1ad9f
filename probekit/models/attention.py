"""What each head of a model attends to. Only the layers asked for are computed eagerly, the rest stays as it was.

Under a name of our own in transformers' ``AttentionInterface`` the attention of a layer that is asked for is computed
by ``eager_attention_forward`` of the module's own file, which gives the weights, and any other as the model had it
(sdpa, mostly). Which layer is running is counted at the blocks of the stack, so nothing is looked up by name. A model
whose attention does not go through that interface is asked for ``output_attentions``, which computes every layer.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import eager_mask

from probekit.errors import ModelError
from probekit.models import packing
from probekit.models.backbone import Backbone, padded_inputs
from probekit.models.blocks import accepted
from probekit.models.decoder_side import DecoderSide
from probekit.models.foreign import first_line
from probekit.models.live import model_type, whole_model

NAME = "probekit_attention"
EAGER = "eager"
TRIED = 8
"""Tokens of the short run by which it is found out how a model's attention can be read."""

COPIES = 4
"""Matrices of all heads that an eager layer holds at once, at most: scores, with the mask, probabilities, rounded."""

Attention = Callable[..., tuple[Tensor, Tensor | None]]
Receive = Callable[[int, Tensor], None]


class _ReadEnough(Exception):  # noqa: N818  (not an error: it ends a forward pass)
    """The deepest layer asked for has been read."""


class _NoEagerError(LookupError):
    """The file of an attention module has no function of that name."""


@dataclass(frozen=True)
class AttentionForm:
    """How the attention of a model can be read.

    ``n_heads``: of each layer, the first block's first (layer 1); 0 for one without attention. ``layerwise``: single
    layers can be computed eagerly, else all are.
    """

    n_heads: tuple[int, ...]
    layerwise: bool

    def bytes_at_once(self, n_tokens: int, *, itemsize: int) -> int:
        """Memory that a pass needs on the model's device for attention alone, whatever is kept of it."""
        together = max(self.n_heads) * COPIES + (0 if self.layerwise else sum(self.n_heads))
        return together * n_tokens**2 * itemsize


@dataclass
class _Pass:
    """One forward pass: where it is, and what is done with the attention of a layer."""

    rest: Attention
    wanted: frozenset[int]
    receive: Receive
    deepest: int
    layer: int | None = None
    entered: int = 0
    calls: Counter[int] = field(default_factory=Counter)

    def attend(self, module: nn.Module, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor | None]:
        """The attention of a module in the block that is running, or outside of all of them (of an encoder)."""
        if self.layer is None:
            return self.rest(module, *args, **kwargs)
        self.calls[self.layer] += 1
        # The second one in a block of a decoder is that over the encoder's states.
        if self.layer not in self.wanted or self.calls[self.layer] > 1:
            return self.rest(module, *args, **kwargs)
        output, weights = _eager(module, *args, **kwargs)
        self.receive(self.layer, _one_text(weights))
        if self.layer == self.deepest:
            raise _ReadEnough
        return output, None

    def enter(self, *_: Any) -> None:
        """A block begins."""
        self.entered += 1
        self.layer = self.entered

    def leave(self, *_: Any) -> None:
        """A block has ended."""
        self.layer = None


_PASS: ContextVar[_Pass] = ContextVar("pass")


def _attend(module: nn.Module, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor | None]:
    return _PASS.get().attend(module, *args, **kwargs)


def _eager(module: nn.Module, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor | None]:
    """The eager attention of the module's own file, or of that of a class it is derived from."""
    for kind in type(module).__mro__:
        function = getattr(sys.modules[kind.__module__], "eager_attention_forward", None)
        if function is not None:
            return cast("Attention", function)(module, *args, **kwargs)
    raise _NoEagerError(f"{type(module).__module__} has no eager_attention_forward")


AttentionInterface.register(NAME, _attend)
AttentionMaskInterface.register(NAME, eager_mask)  # which sdpa reads too


def attention_form(backbone: Backbone, ids: Sequence[int]) -> AttentionForm:
    """Find out by a short run over the first of ``ids`` how the attention of a model can be read.

    Raises ModelError where it has none, or none with a number for each head and pair of tokens.
    """
    ids, source = list(ids[:TRIED]), f"a {model_type(backbone)}"
    counted: Counter[int] = Counter()
    why = "none of its blocks has one"
    if backbone.stack.blocks:
        every = tuple(range(1, backbone.stack.n_layers + 1))
        try:
            calls = _pass(backbone, ids, every, lambda layer, weights: counted.update({layer: len(weights)}))
        except (LookupError, TypeError, ValueError, RuntimeError, AttributeError) as error:
            counted, why = Counter(), first_line(error)
        else:
            several = [layer for layer, n in calls.items() if n > 1]
            if several and not isinstance(backbone.model, DecoderSide):
                raise ModelError(source, "needs one attention in each block", f"{calls[several[0]]}")
    if counted:
        return AttentionForm(tuple(counted[layer] for layer in every), layerwise=True)
    try:
        heads = [len(weights) for weights in _together(backbone, ids)]
    except (LookupError, TypeError, ValueError, RuntimeError, AttributeError) as error:
        heads, why = [], first_line(error)
    if not heads:
        raise ModelError(source, f"has no attention that can be read ({why})")
    if len(heads) != backbone.stack.n_layers:
        raise ModelError(source, "needs an attention for each block", f"{len(heads)} of {backbone.stack.n_layers}")
    return AttentionForm(tuple(heads), layerwise=False)


def stream_attention(
    backbone: Backbone, form: AttentionForm, ids: Sequence[int], *, layers: Sequence[int], receive: Receive
) -> None:
    """Read one text's token ids; ``receive(layer, weights)`` is called for each of ``layers``, shallow to deep.

    ``layers`` count from 1 for the first block. ``weights``: (n_heads, n_tokens, n_tokens) on the model's device and in
    its dtype, row i is where token i attends to. The pass ends at the deepest layer.
    """
    if form.layerwise:
        _pass(backbone, ids, layers, receive)
        return
    for layer, weights in enumerate(_together(backbone, ids), start=1):
        if layer in layers:
            receive(layer, weights)


def _pass(backbone: Backbone, ids: Sequence[int], layers: Sequence[int], receive: Receive) -> Counter[int]:
    """Returns how often attention was called in each block that ran."""
    own = "sdpa" if backbone.position_start is not None else backbone.model.config._attn_implementation
    rest = _eager if own == EAGER else cast("Attention", AttentionInterface()[own])
    run = _Pass(rest, frozenset(layers), receive, max(layers))
    token = _PASS.set(run)
    blocks = dict.fromkeys(backbone.stack.blocks)
    handles = [block.register_forward_pre_hook(run.enter) for block in blocks]
    handles += [block.register_forward_hook(run.leave) for block in blocks]
    try:
        with _attention(backbone, NAME), torch.inference_mode():
            backbone.model(**_inputs(backbone, ids))
    except _ReadEnough:
        pass
    finally:
        _PASS.reset(token)
        for handle in handles:
            handle.remove()
    return run.calls


def _together(backbone: Backbone, ids: Sequence[int]) -> list[Tensor]:
    """The attention of all layers at once, as transformers itself gives it; none if it gives none."""
    inputs = accepted(backbone.model, {**_inputs(backbone, ids), "output_attentions": True})
    with _attention(backbone, EAGER), torch.inference_mode():
        attentions = getattr(backbone.model(**inputs), "attentions", None)
    return [_one_text(weights) for weights in attentions or ()]


def _inputs(backbone: Backbone, ids: Sequence[int]) -> dict[str, Any]:
    return dict(accepted(backbone.model, padded_inputs([list(ids)], backbone.pad_id, backbone.device)))


@contextmanager
def _attention(backbone: Backbone, name: str) -> Iterator[None]:
    """The model with the attention ``name`` for a while."""
    model = whole_model(backbone)
    before = model.config._attn_implementation
    packing.switch_attention(model, name)
    try:
        yield
    finally:
        packing.switch_attention(model, before)


def _one_text(weights: Tensor | None) -> Tensor:
    """(n_heads, n_tokens, n_tokens) of the one text in the batch."""
    if weights is None or weights.ndim != 4 or len(weights) != 1 or weights.shape[2] != weights.shape[3]:
        shape = "none" if weights is None else str(tuple(weights.shape))
        raise ValueError(f"its attention is not (batch, heads, tokens, tokens) but {shape}")
    return weights[0]
