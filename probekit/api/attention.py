"""What a model's heads attend to in a text."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from probekit.arguments import texts_of
from probekit.errors import InputError, SpecError
from probekit.extraction.request import check_request
from probekit.layers import LayerChoice, layer_choice
from probekit.models.source import locate
from probekit.readspec import ReadSpec, RunOptions
from probekit.spec import Listener, Silent

if TYPE_CHECKING:
    from probekit.explanation.attention import AttentionPlan
    from probekit.explanation.attention_result import AttentionResult


def attention(
    model: str | os.PathLike[str],
    text: str,
    *,
    layers: Any = "all",
    heads: Any = None,
    rollout: bool = False,
    hide_first: bool = False,
    side: str = "encoder",
    max_length: int | None = None,
    revision: str | None = None,
    dtype: str = "float32",
    device: str = "auto",
    threads: int | None = None,
    trust_remote_code: bool = False,
    listener: Listener | None = None,
) -> AttentionResult:
    """The attention weights of ``text``'s n tokens: (n_layers, n_heads, n, n) float32, a row per token that attends.

    ``layers``: "all", numbers, slices, or a text as on the command line ("1,4:7,-1"). Layer k is the attention of block
    k, as in ``extract(site="attn")``: 1 is the first. Only these are computed eagerly, where the model's attention goes
    through transformers' ``AttentionInterface``; the pass ends at the deepest. ``heads``: alike, from 0 (None: all).
    ``rollout``: attention multiplied through all layers from the first to the deepest of ``layers``, all heads
    averaged, as half of each layer with half of the identity (Abnar and Zuidema, 2020): (n, n), a row says what of the
    tokens of the text is mixed into a token. ``hide_first``: pictures made of the result leave the first token's column
    out (the attention sink of Xiao et al., 2023) and let the rest of each row sum to 1; ``weights`` and ``rollout``
    stay as they are, ``without_first`` of ``probekit.explanation.attention_result`` gives the others. ``side``: of an
    encoder-decoder model; that of the decoder is its self-attention, read one token late behind the start token.
    ``max_length``: a longer text is cut (None: at what the model can read). ``dtype``: to compute in, or "auto".

    ``probekit.report.attention_figure.draw_attention`` and ``probekit.report.attention_html.write_attention`` make
    pictures of the result.

    Raises ModelError for a model without attention, and where weights are not finite; InputError for a text without a
    token of its own; SpecError for a layer or head that there is not, and for more than there is memory for.
    """
    listener = listener or Silent()
    plan = plan_attention(
        model,
        text,
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
        listener=listener,
    )
    return plan.read(listener)


def plan_attention(model: str | os.PathLike[str], text: str, *, listener: Listener, **asked: Any) -> AttentionPlan:
    """``attention`` up to the pass: the plan knows how much there will be, and reads it. ``asked``: its arguments."""
    check_text(text)
    layers, heads = layer_choice(asked["layers"]), head_choice(asked["heads"])
    dtype = None if asked["dtype"] == "auto" else asked["dtype"]
    spec = ReadSpec(side=asked["side"], max_length=asked["max_length"], dtype=dtype)
    check_request(spec)
    source = locate(os.fspath(model), revision=asked["revision"])
    from probekit.explanation.attention import Asked  # here, because it loads torch
    from probekit.explanation.attention import plan_attention as plan

    options = RunOptions(asked["device"], asked["threads"], trust_remote_code=asked["trust_remote_code"])
    what = Asked(layers, heads, bool(asked["rollout"]), bool(asked["hide_first"]))
    return plan(text, what, spec=spec, source=source, options=options, listener=listener)


def check_text(text: str) -> None:
    """Raise InputError for what is not a text, or has nothing in it."""
    if not isinstance(text, str):
        raise InputError("text", "one text", type(text).__name__)
    (found,) = texts_of(text)
    if not found.strip():
        raise InputError("--text", "must not be empty", repr(found[:40]))


def head_choice(value: Any) -> LayerChoice:
    """Heads as layers are written, None for all. Raises SpecError about --heads."""
    try:
        return "all" if value is None else layer_choice(value)
    except SpecError as error:
        raise SpecError("--heads", error.allowed, error.got) from error
