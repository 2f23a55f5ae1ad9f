"""What a cache holds, for people and for programs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.table import Table

from probekit.cli.screen import on_terminal, plain, screen
from probekit.layers import layer_range
from probekit.readspec import headings
from probekit.spec import Json
from probekit.store import CacheSummary
from probekit.store.disk import readable

if TYPE_CHECKING:
    from probekit.extraction.estimate import Estimate


def print_summary(summary: CacheSummary, *, full: bool) -> None:
    """A line per fact; ``full`` adds the columns and how it was made."""
    revision = str(summary.spec.get("revision"))
    revision = revision if full or len(revision) <= 24 else f"{revision[:19]}…"
    seed, tokens = summary.spec.get("random_seed"), summary.token_dtype
    random = "" if seed is None else f" (random weights, seed {seed})"
    unfinished = f"unfinished: {summary.rows_done:,} of {summary.n_examples:,} rows"
    state = "finished" if summary.sealed else f"{unfinished}; the same command goes on from there"
    every_token = "" if tokens is None else f"; every token as {tokens}"
    norm = ", ".join(map(str, sorted(summary.final_norm)))
    rows = {
        "cache": f"{summary.path} ({readable(summary.file_bytes)}, {state})",
        "model": f"{summary.spec.get('model')} @ {revision}{random}",
        "data": f"{summary.provenance.get('dataset')}: {summary.n_examples:,} texts, {summary.total_tokens:,} tokens",
        "truncated": f"{summary.n_truncated:,} texts at {summary.spec.get('max_length')} tokens",
        **_asked(summary.spec),
        "layers": _layers(summary.layers, summary.spec.get("n_layers"), summary.spec.get("site"), "stored")
        + (f" (final norm applied at {norm})" if norm else ""),
        "states": f"{', '.join(summary.poolings)} pooling, {summary.d_model} dimensions, computed in "
        f"{summary.spec.get('dtype')}, stored as {summary.pooled_dtype}{every_token}",
    }
    if full:
        rows["columns"] = ", ".join(f"{name} ({kind})" for name, kind in summary.columns.items()) or "none"
        rows["texts"] = "stored" if summary.has_text else "not stored"
        rows["computed"] = ", ".join(str(summary.spec.get(key)) for key in ("dtype", "device", "batching"))
        rows["made with"] = ", ".join(f"{k} {v}" for k, v in dict(summary.provenance.get("versions", {})).items())
        rows["fingerprint"] = summary.fingerprint
        if summary.split_windows:
            rows["memory"] = f"{summary.split_windows} windows had a batch split: close to, not byte-identical"
    _print_rows(rows)


def print_estimate(found: Estimate) -> None:
    """What an extraction would take."""
    minutes, seconds = divmod(round(found.seconds), 60)
    rows = {
        "texts": f"{found.n_rows:,} ({found.n_truncated:,} would be cut)",
        "tokens": f"{found.n_tokens:,} to read, special ones and prompt counted",
        "layers": _layers(found.layers, found.n_layers, found.site, "to store"),
        "on disk": f"{readable(found.file_bytes)}, the finished cache",
        "speed": f"{found.tokens_per_second:,.0f} tokens/s in a trial",
        "time": f"about {minutes} min {seconds:02d} s to read all texts, without loading the model",
    }
    _print_rows(rows)


def summary_json(summary: CacheSummary) -> Json:
    """The same for programs."""
    return {**vars(summary), "path": str(summary.path), "final_norm": sorted(summary.final_norm)}


def _print_rows(rows: dict[str, str]) -> None:
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows.items():
        table.add_row(name, plain(value))
    # A file or a program gets whole lines.
    screen(width=None if on_terminal() else 10_000).print(table)


def _asked(spec: Json) -> dict[str, str]:
    """What was asked for that makes other states of the same texts."""
    return {heading: _said(value) for heading, value in headings(spec).items()}


def _said(value: object) -> str:
    """A word as it is; text in quotes, its line ends and blanks visible."""
    if value is True:
        return "yes"
    return value if isinstance(value, str) and value.isalnum() else json.dumps(value, ensure_ascii=False)


def _layers(layers: Sequence[int], n_blocks: object, site: object, kept: str) -> str:
    """How many layers, and which: the embeddings are one of them."""
    blocks = [layer for layer in layers if layer > 0]
    part = "" if site in (None, "block") else f"{site} of "
    named = ["embeddings (0)"] if 0 in layers else []
    if blocks:
        named.append(f"{part}block{'s' if len(blocks) > 1 else ''} {layer_range(blocks)} of {n_blocks}")
    return f"{len(layers)} {kept}: {' and '.join(named)}"
