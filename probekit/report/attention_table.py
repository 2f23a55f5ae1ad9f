"""Attention for a terminal: a row per head, or per layer where there are many; of a single head the strongest links."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray
from rich.console import RenderableType
from rich.text import Text

from probekit.explanation.attention_result import AttentionResult
from probekit.plain import plain
from probekit.report.labels import number
from probekit.report.layout import ByWidth, Cells, one_table, width_of

MOST_ROWS = 48
"""Heads one by one; of more, a row is a layer."""

N_LINKS = 12
LONGEST_TOKEN = 16


@dataclass(frozen=True)
class Link:
    """Token ``source`` (0..n-1) attends to another one, ``target``, by ``weight``."""

    source: int
    target: int
    weight: float


def attention_tables(result: AttentionResult) -> Iterator[RenderableType]:
    """What each head does on average, and where there is one head alone or rollout, its strongest links."""
    n, read = len(result.tokens), ", cut" if result.truncated else ""
    yield Text(f"{plain(result.model)}: attention in {n:,} tokens{read}", style="bold")
    yield ByWidth(partial(_summary, result))
    if len(result.layers) * len(result.heads) == 1:
        title = f"layer {result.layers[0]}, head {result.heads[0]}"
        yield from _links(result, result.weights[0, 0], title, "attends to")
    if result.rollout is not None:
        yield from _links(result, result.rollout, f"rollout, layers 1..{result.rollout_layer}", "has from")


def strongest(weights: NDArray[np.float32], n_links: int, *, hide_first: bool) -> list[Link]:
    """The strongest links (n, n) between two different tokens, or without those to the first one; ties by position."""
    others = np.array(weights)
    np.fill_diagonal(others, 0.0)
    if hide_first:
        others[:, 0] = 0.0
    order = np.argsort(-others, axis=None, kind="stable")[:n_links]
    sources, targets = np.unravel_index(order, others.shape)
    links = zip(sources.tolist(), targets.tolist(), strict=True)
    return [Link(q, k, float(others[q, k])) for q, k in links if others[q, k] > 0]


def _summary(result: AttentionResult, width: int) -> Iterator[RenderableType]:
    maps = list(result.maps())
    by_head = len(maps) <= MOST_ROWS
    groups = [[one] for one in maps] if by_head else [[m for m in maps if m[0] == layer] for layer in result.layers]
    figures = [np.mean([_figures(weights) for _, _, weights in group], axis=0).tolist() for group in groups]
    to_first, to_itself, to_previous, entropy = ([number(row[i]) for row in figures] for i in range(4))
    columns = [Cells("layer", [str(group[0][0]) for group in groups])]
    if by_head:
        columns.append(Cells("head", [str(group[0][1]) for group in groups]))
    columns += [Cells("to first", to_first), Cells("entropy", entropy)]
    more = [Cells("to itself", to_itself), Cells("to previous", to_previous)]
    link = Cells("strongest link", [_strongest_of(result, group, with_head=not by_head) for group in groups], "left")
    for extra in ([*more, link], [link], more, []):
        if width_of([*columns, *extra]) <= width:
            columns += extra
            break
    yield one_table(columns)
    shown = "means over tokens" if by_head else f"means over tokens and {len(result.heads)} heads"
    note = f"{shown}; entropy in bits, {number(np.log2(len(result.tokens)))} if all tokens get alike"
    yield Text(f"{note}; the strongest link is to another token than the first", style="dim")


def _figures(weights: NDArray[np.float32]) -> tuple[float, float, float, float]:
    """Mean attention to the first token, to itself, to the one before, and mean entropy of a row in bits.

    The first token's own row counts for entropy and itself alone: it often has nothing else to attend to.
    """
    after = weights[1:]
    logs = np.log2(weights, out=np.zeros_like(weights), where=weights > 0)
    entropy = float(np.mean(-(weights * logs).sum(axis=-1)))
    if not len(after):
        return float("nan"), float(weights[0, 0]), float("nan"), entropy
    return float(after[:, 0].mean()), float(np.diagonal(weights).mean()), float(np.diagonal(after).mean()), entropy


def _strongest_of(
    result: AttentionResult, group: Sequence[tuple[int, int, NDArray[np.float32]]], *, with_head: bool
) -> str:
    best = [(head, strongest(weights, 1, hide_first=True)) for _, head, weights in group]
    found = [(links[0], head) for head, links in best if links]
    if not found:
        return ""
    link, head = max(found, key=lambda pair: pair[0].weight)
    text = f"{_token(result, link.source)} → {_token(result, link.target)} {number(link.weight)}"
    return f"{text} (head {head})" if with_head else text


def _links(result: AttentionResult, weights: NDArray[np.float32], title: str, verb: str) -> Iterator[RenderableType]:
    links = strongest(weights, N_LINKS, hide_first=result.hide_first)
    yield Text(f"{title}: the strongest links", style="bold")
    if not links:
        yield Text("none: no token attends to another one", style="dim")
        return
    yield one_table(
        [
            Cells("token", [str(link.source) for link in links]),
            Cells("", [_token(result, link.source) for link in links], "left"),
            Cells(verb, [str(link.target) for link in links]),
            Cells("", [_token(result, link.target) for link in links], "left"),
            Cells("by", [number(link.weight) for link in links]),
        ]
    )
    yield Text("tokens are counted from 0", style="dim")


def _token(result: AttentionResult, i: int) -> str:
    token = plain(result.tokens[i])
    return token if len(token) <= LONGEST_TOKEN else token[: LONGEST_TOKEN - 1] + "…"
