"""``probekit attention``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from probekit.errors import SpecError
from probekit.output import check_can_write

if TYPE_CHECKING:
    from probekit.explanation.attention import AttentionPlan
    from probekit.explanation.attention_result import AttentionResult

MOST_NUMBERS = 10_000_000
"""In JSON: about 100 MB."""


def attention(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Hugging Face model id, local folder or .gguf file.")],
    text: Annotated[list[str], typer.Option("--text", help="The text, one.")],
    layers: Annotated[
        str, typer.Option(help="all, or numbers and ranges: 1,4 or 1:12:2 or -1; layer 1 is the first block.")
    ] = "all",
    heads: Annotated[str, typer.Option(help="all, or numbers and ranges; head 0 is the first.")] = "all",
    rollout: Annotated[
        bool,
        typer.Option("--rollout", help="Attention multiplied through all layers up to the deepest asked for, too."),
    ] = False,
    hide_first: Annotated[
        bool,
        typer.Option(
            "--hide-first",
            help="Leave out the first token (an attention sink) of pictures, where rows sum to 1 without it.",
        ),
    ] = False,
    plot: Annotated[
        Path | None, typer.Option(help="Draw the heads, or with --rollout that: .png, .svg or .pdf.")
    ] = None,
    html: Annotated[
        Path | None, typer.Option(help="Make a page (.html) on which to pick layer and head; needs no network.")
    ] = None,
    max_length: Annotated[int | None, typer.Option(help="Tokens to read. [default: what the model can]")] = None,
    side: Annotated[str, typer.Option(help="Of an encoder-decoder model: encoder or decoder.")] = "encoder",
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit of a hub model.")] = None,
    dtype: Annotated[str, typer.Option(help="Compute in auto, float32, bfloat16 or float16.")] = "float32",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")] = "auto",
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads. [default: the cores there are]")] = None,
    trust_remote_code: Annotated[
        bool, typer.Option("--trust-remote-code", help="Run code that comes with the model.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print all weights as JSON, with none hidden.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace files that are there.")] = False,
) -> None:
    """What the heads of a model attend to in a text.

    Prints a line per head or layer, and the strongest links of a single head. Only the layers asked for are computed
    eagerly; attention says where a head looks, not what the model's answer depends on.
    """
    if len(text) != 1:
        raise SpecError("--text", "one at a time", f"{len(text)}")
    _check_outputs(plot, html, overwrite=overwrite)
    from probekit.api.attention import check_text, head_choice, plan_attention
    from probekit.cli.progress import Bars
    from probekit.cli.screen import say
    from probekit.layers import parse_layers

    check_text(text[0])
    parse_layers(layers)
    head_choice(heads)
    with Bars() as bars:
        plan = plan_attention(
            model,
            text[0],
            layers=layers,
            heads=heads,
            rollout=rollout,
            hide_first=hide_first,
            side=side,
            max_length=max_length,
            revision=revision,
            dtype=dtype,
            device=device,
            threads=threads,
            trust_remote_code=trust_remote_code,
            listener=bars,
        )
        _check_sizes(plan, html=html, as_json=as_json)
        result = plan.read(bars)
    written = _write(result, plot, html)
    try:
        _show(result, as_json=as_json)
    finally:  # whoever reads the table may have gone away
        if written:
            say(f"wrote {', '.join(map(str, written))}")


def _check_outputs(plot: Path | None, html: Path | None, *, overwrite: bool) -> None:
    """Raise SpecError before the work for what could not be written after it."""
    for option, path, kinds in (("--plot", plot, (".png", ".svg", ".pdf")), ("--html", html, (".html",))):
        if path is not None and path.suffix not in kinds:
            raise SpecError(f"{option} {path}", f"must end in {' or '.join(kinds)}")
        if path is not None:
            check_can_write(option, path, overwrite=overwrite)


def _check_sizes(plan: AttentionPlan, *, html: Path | None, as_json: bool) -> None:
    """Raise SpecError before the pass for more weights than a page, or a reader of JSON, can do with."""
    from probekit.report.attention_html import MOST_WEIGHTS

    hint = "ask for fewer with --layers, --heads or --max-length"
    for option, asked, most in (("--html", html is not None, MOST_WEIGHTS), ("--json", as_json, MOST_NUMBERS)):
        if asked and plan.n_weights > most:
            raise SpecError(option, f"takes {most:,} weights at most; {hint}", f"{plan.n_weights:,}")


def _write(result: AttentionResult, plot: Path | None, html: Path | None) -> Sequence[Path]:
    if plot is not None:
        from probekit.report.attention_figure import draw_attention

        draw_attention(result, plot)
    if html is not None:
        from probekit.report.attention_html import write_attention

        write_attention(result, html)
    return [path for path in (plot, html) if path is not None]


def _show(result: AttentionResult, *, as_json: bool) -> None:
    from probekit.cli.screen import screen, show_json

    if as_json:
        show_json(result.json())
        return
    from probekit.report.attention_table import attention_tables

    console = screen()
    for part in attention_tables(result):
        console.print(part)
