"""Finding a model's stack of blocks by watching it run, and streaming their states out one by one.

Layer k of probekit is ``hidden_states[k]`` of transformers. For k below the last this is, in nearly every model, what
goes *into* block k, so a hook before each block sees it and nothing has to be collected. (Mamba lists what comes *out*
of each block, and the embeddings not at all.) Which modules are the blocks is not looked up by name: a short run with
``output_hidden_states=True`` says what must come out, and the list of modules whose inputs or outputs equal it, in
order, is the stack. Where no list fits, the states are taken from ``output_hidden_states`` itself.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from probekit.errors import SpecError

Receive = Callable[[int, Tensor], None]


@dataclass(frozen=True)
class Stack:
    """The modules whose calls, in order, read layers 0..n_layers-1 (one shared module may be called many times).

    ``blocks`` is empty where no stack was found. ``after``: the states are what the blocks put out, not what they take
    in. ``final_norm``: layer ``n_layers`` is not what the last block put out. ``first``: the number of the first layer
    seen at ``blocks``; above 0, the last layer is seen there too and is not the model's own output. ``last_layer``: see
    ``with_last_layer``.
    """

    blocks: tuple[nn.Module, ...]
    n_layers: int
    final_norm: bool
    d_model: int
    after: bool = False
    first: int = 0
    last_layer: str = "normed"

    @property
    def deepest(self) -> int:
        """The last layer there is."""
        return self.n_layers + (self.last_layer == "both")

    @property
    def normed_layer(self) -> int | None:
        """The layer to which the model's final norm was applied, if there is one."""
        return self.deepest if self.final_norm and self.last_layer != "raw" else None


class _Done(Exception):  # noqa: N818  (not an error: it ends a forward pass)
    """The deepest layer asked for has been read."""


OUTPUTS = {"use_cache": False, "return_dict": True, "output_hidden_states": False, "output_attentions": False}
"""Keys and values kept for generation would hold memory for every block passed, and nobody generates here; the others
are what a config may ask for of its own accord."""


def only_states(model: nn.Module) -> None:
    """Let a model give its states under their names and nothing else, whatever its config asks for."""
    for module in model.modules():
        config: Any = getattr(module, "config", None)
        for name, value in OUTPUTS.items():
            if getattr(config, name, value) != value:
                setattr(config, name, value)


def find_stack(model: nn.Module, inputs: Mapping[str, Any]) -> Stack:
    """Run ``inputs`` (a short one) and find the stack; see the module's text.

    Raises ValueError where the model gives no hidden states, or not for each token a vector.
    """
    inputs = accepted(model, inputs)
    with torch.inference_mode():
        expected = getattr(model(**inputs, output_hidden_states=True), "hidden_states", None)
    if not expected:
        raise ValueError("it gives no hidden states")
    odd = [tuple(states.shape) for states in expected if states.ndim != 3]
    if odd:
        raise ValueError(f"its states are not (batch, tokens, d_model) but {odd[0]}")
    n_layers, d_model = len(expected) - 1, expected[-1].shape[-1]
    for blocks in _candidates(model):
        taken_in: list[Tensor] = []
        put_out: list[Tensor] = []
        before, behind = _watch(blocks, taken_in.append, after=False), _watch(blocks, put_out.append, after=True)
        with before, behind, torch.inference_mode():
            last = model(**inputs).last_hidden_state
        for seen, after in ((taken_in, False), (put_out, True)):
            if len(seen) == n_layers and all(map(torch.equal, [*seen, last], expected)):
                return Stack(blocks, n_layers, not torch.equal(put_out[-1], last), d_model, after)
    return Stack((), n_layers, final_norm=False, d_model=d_model)


def with_last_layer(stack: Stack, last_layer: str) -> Stack:
    """The stack whose layer ``n_layers`` is the model's own output ("normed") or what the last block put out ("raw").

    "both": that is "raw", and one layer more is "normed". Without a final norm the two are the same.

    Raises SpecError for "both" without a final norm, and where no stack was found.
    """
    if last_layer == "normed":
        return stack
    if not stack.blocks:
        raise SpecError(f"--last-layer {last_layer}", "needs a model whose blocks can be found; this one's can't")
    if last_layer == "both" and not stack.final_norm:
        raise SpecError("--last-layer both", "needs a model with a final norm; this one has none, raw is all there is")
    return replace(stack, last_layer=last_layer)


def accepted(model: nn.Module, inputs: Mapping[str, Any]) -> Mapping[str, Any]:
    """Those of ``inputs`` that the model takes: some know no mask."""
    takes = inspect.signature(model.forward).parameters
    if any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in takes.values()):
        return inputs
    return {name: value for name, value in inputs.items() if name in takes}


def stream_states(
    model: nn.Module, stack: Stack, inputs: Mapping[str, Any], *, layers: tuple[int, ...], receive: Receive
) -> None:
    """Run ``inputs`` and call ``receive(layer, states)`` for each of ``layers``, shallow to deep.

    ``states`` is the model's own tensor, (batch, tokens, d_model): read it, don't write it. The pass ends at the
    deepest layer asked for.
    """
    wanted, deepest = set(layers), max(layers)
    inputs = accepted(model, inputs)
    if not stack.blocks:
        hidden_states = model(**inputs, output_hidden_states=True).hidden_states
        for layer in sorted(wanted):
            receive(layer, hidden_states[layer])
        return
    position, n_put_out = stack.first, 0
    raw = stack.last_layer != "normed" and stack.n_layers in wanted

    def at_end(hidden: Tensor) -> None:
        nonlocal n_put_out
        n_put_out += 1
        if n_put_out == stack.n_layers:  # (one shared module may be called as often)
            receive(stack.n_layers, hidden)
            if deepest == stack.n_layers:
                raise _Done

    def at_block(hidden: Tensor) -> None:
        nonlocal position
        layer, position = position, position + 1
        if layer in wanted:
            receive(layer, hidden)
        if layer == deepest:
            raise _Done

    behind = _watch(stack.blocks, at_end, after=True) if raw else nullcontext()
    with _watch(stack.blocks, at_block, after=stack.after), behind:
        try:
            last = model(**inputs).last_hidden_state
        except _Done:
            return
    if stack.first == 0 and (stack.last_layer == "normed" or stack.normed_layer in wanted):
        receive(stack.deepest, last)


def _candidates(model: nn.Module) -> Iterator[tuple[nn.Module, ...]]:
    """Every list of modules in the model, longest first: the stack of blocks is nearly always the longest."""
    lists = [tuple(module) for module in model.modules() if isinstance(module, nn.ModuleList) and len(module)]
    return iter(sorted(lists, key=len, reverse=True))


@contextmanager
def _watch(blocks: tuple[nn.Module, ...], see: Callable[[Tensor], None], *, after: bool) -> Iterator[None]:
    """Call ``see`` with the hidden states before (or ``after``) every call of a block."""

    def before_hook(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        for value in (*args, *kwargs.values()):
            if isinstance(value, Tensor) and value.ndim == 3 and value.is_floating_point():
                see(value)
                return

    def after_hook(_module: nn.Module, _args: tuple[Any, ...], output: Any) -> None:
        see(output if isinstance(output, Tensor) else output[0])

    handles = [
        block.register_forward_hook(after_hook)
        if after
        else block.register_forward_pre_hook(before_hook, with_kwargs=True)
        for block in dict.fromkeys(blocks)
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
