"""What a model looks up for the tokens of a text: seen, and replaced, on its way into the model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from probekit.models.backbone import Backbone

CLOSE = 1e-2
"""How far what is found may be from a scaled row of the table, relative."""

See = Callable[[int, Tensor], Tensor]


@contextmanager
def look_ups(backbone: Backbone, ids: Tensor, see: See) -> Iterator[None]:
    """For one pass over ``ids`` (n_tokens,), in as many rows as there are: let ``see`` replace what is looked up.

    ``see(k, embedded)`` gets what the k-th look-up of the pass found, (n_rows, n, d), and gives what the model goes on
    with, in the same shape. (Most models look tokens up once. Some have a second table; and where the decoder of an
    encoder-decoder is read, both sides look them up, the decoder shifted by one: n is then n_tokens - 1.)
    """
    n_seen = 0

    def watch(module: nn.Embedding, args: tuple[Any, ...], output: Any) -> Any:
        nonlocal n_seen
        shift = _shift(args[0], ids) if args else None
        if shift is None or not _is_looked_up(output, module, args[0]):
            return None
        n_seen += 1
        found = see(n_seen - 1, output[:, shift:])
        return torch.cat([output[:, :shift], found], 1) if shift else found

    handles = [m.register_forward_hook(watch) for m in backbone.model.modules() if isinstance(m, nn.Embedding)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _is_looked_up(output: Any, table: nn.Embedding, asked: Tensor) -> bool:
    """Whether ``output`` is the rows of ``table`` that the tokens stand for, up to a scale.

    (A table of positions may be handed the tokens too, to count them.)
    """
    if not isinstance(output, Tensor) or output.ndim != 3 or output.shape[:2] != asked.shape:
        return False
    rows, found = table.weight.detach()[asked.to(table.weight.device)].float(), output.detach().float()
    scale = (rows * found).sum() / (rows * rows).sum().clamp(min=torch.finfo(torch.float32).tiny)
    return bool((found - scale * rows).norm() <= CLOSE * found.norm())


def _shift(asked: Any, ids: Tensor) -> int | None:
    """How many places later than in the text its tokens stand in ``asked`` (n_rows, n_tokens); None for other rows."""
    if not isinstance(asked, Tensor) or asked.ndim != 2 or asked.shape[1] != len(ids) or asked.is_floating_point():
        return None
    ids = ids.to(asked.device)
    if bool((asked == ids).all()):
        return 0
    return 1 if len(ids) > 1 and bool((asked[:, 1:] == ids[:-1]).all()) else None
