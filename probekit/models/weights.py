"""Whether a checkpoint holds the weights that a model's states come from, before building and after loading.

transformers fills what a checkpoint lacks with random numbers and drops what the model has no place for. Which of that
matters is not looked up by name: it is what the hidden states of a short run depend on.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from probekit.errors import ModelError
from probekit.models.blocks import only_states
from probekit.models.decoder_side import one_side

NO_WEIGHTS = re.compile(
    r"((^|[._])(masked_bias|causal_mask|inv_freq|position_ids|[qkv]_scale)|(attn|attention)\.bias|embed_positions\.weights)$"
)
"""Masks, tables of positions and scales of a cache for generation, which older versions or other tools save too."""

ADAPTER = re.compile(r"(^|\.)(base_model\.model|lora_\w+|prompt_encoder|ia3_l|adapters?)\.")
"""What peft and its like call what they add; transformers drops it without a word."""

NAMED = 3  # keys that a message names


def check_size(source: str, empty: nn.Module, *, file_bytes: int | None, dtype: torch.dtype) -> None:
    """Raise ModelError if a model (on the meta device) can't be what the files hold, or does not fit into memory.

    ``file_bytes``: of the weights; None where they are not known yet. Weights on disk need no memory of their own.
    """
    n = sum(parameter.numel() for parameter in empty.parameters())
    if file_bytes and n > 8 * file_bytes:  # not even a bit for each
        message = f"the weight files can't hold the {n:,} parameters that config.json describes"
        raise ModelError(source, message, f"{file_bytes:,} bytes")
    needed, memory = n * dtype.itemsize, _memory()
    if file_bytes is not None and needed > memory + file_bytes:
        allowed = f"a model of {n:,} parameters needs {needed / 1e9:,.0f} GB in {str(dtype).removeprefix('torch.')}"
        raise ModelError(source, f"{allowed}, more memory than there is", f"{memory / 1e9:,.0f} GB")


def _memory() -> int:
    """Bytes of memory of this machine, or of its container."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text().strip()
    except OSError:
        return memory  # not in a container, or an older one
    return min(memory, int(limit)) if limit.isdigit() else memory


def check_weights(source: str, model: PreTrainedModel, found: Mapping[str, Any], *, side: str) -> None:
    """Raise ModelError where the states of ``side`` come from weights that the checkpoint does not hold.

    ``found``: what ``from_pretrained`` says with ``output_loading_info``. Whatever part of the model (a child of it:
    the embeddings, the stack, a pooler) the states come from must be there whole, and the checkpoint must have no more
    of it than the model. A part that they don't come from may be missing.
    """
    wrong_shape = {name: f"{name} {tuple(there)} for {tuple(here)}" for name, there, here in found["mismatched_keys"]}
    absent = {str(name) for name in found["missing_keys"]} - wrong_shape.keys()
    adapter = sorted(name for name in found["unexpected_keys"] if ADAPTER.search(name))
    if adapter:
        message = f"the checkpoint holds an adapter's weights ({adapter[0]}), which would not be used; merge it first"
        raise ModelError(source, message)
    parts = {name for name, _ in model.named_children()}
    surplus = {name for name in found["unexpected_keys"] if not NO_WEIGHTS.search(name)}
    surplus = {name for name in surplus if _part(name, model.base_model_prefix) in parts}
    if not (wrong_shape or absent or surplus):
        return
    used = _names_used(model, side)
    # A tied weight counts where it comes first: T5's table of tokens is in the decoder too.
    used_parts = {_part(name) for name, _ in model.named_parameters() if name in used}

    def matter(names: set[str], prefix: str = "") -> list[str]:
        return sorted(name for name in names if name in used or _part(name, prefix) in used_parts)

    faults = {
        "weights that the layers need are not in the checkpoint": matter(absent),
        "weights are of another shape than config.json says": [wrong_shape[name] for name in matter(set(wrong_shape))],
        "the checkpoint has weights for which config.json has no place": matter(surplus, model.base_model_prefix),
    }
    for message, names in faults.items():
        if names:
            more = f" and {len(names) - NAMED:,} more" if len(names) > NAMED else ""
            raise ModelError(source, f"{message}: {', '.join(names[:NAMED])}{more}")


def _part(name: str, prefix: str = "") -> str:
    """The child of the model that a parameter is in; ``prefix``: what some checkpoints put before every name."""
    return (name.removeprefix(f"{prefix}.") if prefix else name).split(".")[0]


def _names_used(model: PreTrainedModel, side: str) -> set[str]:
    """Names of the parameters that the hidden states of ``side`` depend on, found by running three tokens.

    Where the run leads to none (it gives no hidden states, or all weights are quantised), all of them.
    """
    named = [(name, tensor) for name, tensor in model.state_dict(keep_vars=True).items() if isinstance(tensor, Tensor)]
    floating = {name: tensor for name, tensor in named if tensor.is_floating_point()}
    before = [(tensor, tensor.requires_grad) for tensor in floating.values()]
    only_states(model)
    device = next(model.parameters()).device
    try:
        for tensor, _ in before:
            tensor.requires_grad_(True)
        with torch.enable_grad():
            output = one_side(model, side)(
                input_ids=torch.tensor([[1, 0, 1]], device=device), output_hidden_states=True
            )
        reached = _leaves(getattr(output, "hidden_states", None) or ())
    finally:
        for tensor, required in before:
            tensor.requires_grad_(required)
    return {name for name, tensor in floating.items() if id(tensor) in reached} or set(floating)


def _leaves(results: tuple[Tensor, ...]) -> set[int]:
    """``id`` of every tensor that the graph of ``results`` begins with."""
    waiting = [result.grad_fn for result in results if result.grad_fn is not None]
    seen = set(waiting)
    leaves = set()
    while waiting:
        node = waiting.pop()
        leaf = getattr(node, "variable", None)
        if leaf is not None:
            leaves.add(id(leaf))
        new = {following for following, _ in node.next_functions if following is not None} - seen
        seen |= new
        waiting.extend(new)
    return leaves
