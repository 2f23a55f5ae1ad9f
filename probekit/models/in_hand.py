"""A model that somebody else loaded, made ready to be read with gradients; what is not asked for stays as it was."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from torch import nn
from transformers import PreTrainedModel

from probekit.errors import ModelError
from probekit.models.backbone import Backbone, length_limit, padded_inputs, table_rows
from probekit.models.blocks import OUTPUTS, find_stack, only_states, with_last_layer
from probekit.models.decoder_side import one_side
from probekit.models.foreign import foreign
from probekit.models.sites import at_site

LENGTHS = (3, 17)
"""Of the texts by which it is found out whether a model can be read in batches."""

OFFSET = 8
"""Positions that some models keep for padding, and more."""

MANY = 1 << 30


def in_hand(model: nn.Module, *, site: str = "block", last_layer: str = "normed") -> Backbone:
    """The bare model inside ``model`` (of an encoder-decoder its encoder), to be read padded or one by one.

    Found out by short runs, after which modes, flags and config of ``model`` are what they were.

    Raises ModelError for what is no transformers model or gives no hidden states.
    """
    if not isinstance(model, PreTrainedModel):
        got = type(model).__name__
        hint = " (hand in its get_base_model(), which has the adapters in it)" if hasattr(model, "peft_config") else ""
        raise ModelError("model", f"must be a transformers model, a PreTrainedModel{hint}", f"a {got}")
    name = f"model {type(model).__name__}"
    if model.main_input_name != "input_ids":
        raise ModelError(name, "must read texts as token ids", f"one that takes {model.main_input_name}")
    bare: Any = one_side(model.base_model, "encoder")
    config = bare.config.get_text_config()
    vocabulary = table_rows(bare) or int(getattr(config, "vocab_size", None) or 2)
    pad_id = getattr(config, "pad_token_id", None)
    if pad_id is None or not 0 <= pad_id < vocabulary:  # some say -1 for none
        pad_id = 0
    positions = getattr(config, "max_position_embeddings", None) or 0  # (some say -1 for any number)
    longest = min(max(LENGTHS), length_limit(config) or MANY, max(1, positions - OFFSET) if positions > 0 else MANY)
    rows = [[(7 * i + 11 * j + 5) % vocabulary for j in range(min(n, longest))] for i, n in enumerate(LENGTHS)]
    rows = [[token + 1 if token == pad_id and token + 1 < vocabulary else token for token in row] for row in rows]
    with as_it_was(model), plain_outputs(bare), foreign(name, "can't be read"):
        inputs = padded_inputs(rows[:1], pad_id, bare.device)
        stack = find_stack(bare, inputs)
        stack = with_last_layer(at_site(bare, stack, inputs, site), last_layer)
        backbone = Backbone(
            model=bare,
            stack=stack,
            device=bare.device,
            dtype=str(bare.dtype).removeprefix("torch."),
            dtype_reason="as it came",
            causal=False,  # (not asked here)
            position_start=None,
            batching="padded: with gradients",
            pad_id=pad_id,
            max_positions=None,
            length_limit=length_limit(config),
            vocabulary=vocabulary,
        )
        texts = [np.array(row, dtype=np.int32) for row in rows]
        return backbone.checked_on(texts, layer=stack.deepest, batch_tokens=2 * max(LENGTHS))


@contextmanager
def as_it_was(model: nn.Module) -> Iterator[None]:
    """The model in ``eval()`` for a while; what it had before has its modes and flags again, what is new its mode."""
    mode = model.training
    modes = {module: module.training for module in model.modules()}
    flags = {parameter: parameter.requires_grad for parameter in model.parameters()}
    model.eval()
    try:
        yield
    finally:
        for module in model.modules():
            module.training = modes.get(module, mode)
        for parameter in model.parameters():
            if parameter in flags:
                parameter.requires_grad_(flags[parameter])


@contextmanager
def plain_outputs(model: nn.Module) -> Iterator[None]:
    """The model giving its states and nothing else for a while, whatever its config asks for: see ``only_states``."""
    configs = {id(m.config): m.config for m in model.modules() if getattr(m, "config", None) is not None}
    before = [
        (config, name, getattr(config, name))
        for config in configs.values()
        for name in OUTPUTS
        if hasattr(config, name)
    ]
    only_states(model)
    try:
        yield
    finally:
        for config, name, value in before:
            if getattr(config, name) != value:
                setattr(config, name, value)
