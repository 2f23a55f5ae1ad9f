"""Inside a block: what its attention and its MLP add to the residual stream, found by watching the first block run.

No module is looked up by name. In a block that maps x to y, the two modules sought are those with x + a + m = y
(norms before, or beside them; blocks in parallel too), or with m added to a norm of x + a, of which y is another norm
(norms after, as in BERT). Of the modules that give the same tensor the outermost is taken.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from itertools import permutations
from typing import Any

import torch
from torch import Tensor, nn

from probekit.errors import SpecError
from probekit.models.blocks import Stack, stream_states
from probekit.spec import SITES

CLOSE = 0.05  # error relative to the smaller part, where the sum was taken in another order


@dataclass(frozen=True)
class _Call:
    """One call of a module inside the block: what it took in, what it put out, and its place in the order of ending."""

    name: str
    taken_in: Tensor | None
    put_out: Tensor
    order: int


def at_site(model: nn.Module, stack: Stack, inputs: Mapping[str, Any], site: str) -> Stack:
    """The stack whose states are what the attention or the MLP of each block adds; layers count from 1.

    Raises SpecError if the blocks are not made of such parts.
    """
    if site not in SITES:
        raise SpecError(f"--site {site}", f"one of {', '.join(SITES)}")
    if site == "block":
        return stack
    names = None if stack.after or not stack.blocks else _parts(*_watch_first_block(model, stack, inputs))
    if names is None:
        raise SpecError(f"--site {site}", "needs blocks that add an attention and an MLP to a residual stream")
    name = names[SITES.index(site) - 1]
    modules = tuple(block.get_submodule(name) for block in stack.blocks)
    return replace(stack, blocks=modules, after=True, first=1, final_norm=False)


def _watch_first_block(model: nn.Module, stack: Stack, inputs: Mapping[str, Any]) -> tuple[Tensor, Tensor, list[_Call]]:
    """Input and output of the first block, and the calls inside it that keep the shape of the states."""
    block = stack.blocks[0]
    calls: dict[str, _Call] = {}

    def see(name: str, _module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        out = output if isinstance(output, Tensor) else output[0] if isinstance(output, tuple) else None
        if isinstance(out, Tensor) and name not in calls:
            first = args[0] if args and isinstance(args[0], Tensor) else None
            calls[name] = _Call(name, first, out, len(calls))

    handles = [module.register_forward_hook(partial(see, name)) for name, module in block.named_modules()]
    taken_in: list[Tensor] = []
    try:
        with torch.inference_mode():
            stream_states(model, stack, inputs, layers=(0, 1), receive=lambda _k, states: taken_in.append(states))
    finally:
        for handle in handles:
            handle.remove()
    x, y = taken_in[0], calls[""].put_out
    inside = [call for name, call in calls.items() if name and call.put_out.shape == x.shape]
    outermost_first = sorted(inside, key=lambda call: call.name.count("."))
    return x, y, outermost_first


def _parts(x: Tensor, y: Tensor, calls: list[_Call]) -> tuple[str, str] | None:
    """Names of the modules that give the attention's and the MLP's part (the one that ends first is the attention)."""
    for a, m in permutations(calls, 2):
        if a.order < m.order and _adds_up(x, a.put_out, m.put_out, y):
            return a.name, m.name
    return next(_before_norms(x, y, calls), None)


def _before_norms(x: Tensor, y: Tensor, calls: list[_Call]) -> Iterator[tuple[str, str]]:
    """The same where a norm comes after each part."""
    norms = [call for call in calls if call.taken_in is not None and call.taken_in.shape == x.shape]
    last = [call for call in norms if torch.equal(call.put_out, y)]
    for norm in norms:
        for a in calls:
            if norm.taken_in is None or not _same(x + a.put_out, norm.taken_in, a.put_out):
                continue
            for m in (call for call in calls if a.order < norm.order < call.order):
                for end in last:
                    if end.taken_in is not None and _same(norm.put_out + m.put_out, end.taken_in, m.put_out):
                        yield a.name, m.name


def _adds_up(x: Tensor, a: Tensor, m: Tensor, y: Tensor) -> bool:
    return any(_same(total, y, a, m) for total in ((x + a) + m, (a + m) + x))


def _same(total: Tensor, expected: Tensor, *parts: Tensor) -> bool:
    """Equal to the bit, as the model's own dtype rounds, or but for an error that is small beside each part."""
    smallest = min(float(part.float().norm()) for part in parts)
    if not smallest:
        return False
    return torch.equal(total, expected) or float((total.float() - expected.float()).norm()) <= CLOSE * smallest
