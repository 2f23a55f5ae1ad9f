"""Attention as one HTML file, without network: the reader picks layer and head.

Whatever a text holds is inert in it: jinja2 escapes what stands in the page, and the data are JSON in which ``<``,
``>`` and ``&`` are escapes. The page makes no markup of them either: tokens become the text of elements, or are drawn;
and characters that would reorder a line are escapes, too.
"""

from __future__ import annotations

import base64
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from probekit.explanation.attention_result import AttentionResult
from probekit.output import write_whole
from probekit.plain import plain, plain_lines
from probekit.spec import Json

MOST_WEIGHTS = 40_000_000
"""In a page: about 110 MB."""

STEPS = 65535
"""A weight is kept in two bytes, as so many of it."""


def write_attention(result: AttentionResult, path: Path) -> None:
    """Write ``result`` as a page: every map, rollout if there is one, and the strongest links of what is picked."""
    write_whole(path, attention_page(result).encode())


def attention_page(result: AttentionResult) -> str:
    """The page as text."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    loader = PackageLoader("probekit.report", "templates")
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined)
    return environment.get_template("attention.html").render(
        result=result, text=plain_lines(result.text), data=_data(result)
    )


def _data(result: AttentionResult) -> Json:
    """What the page draws from."""
    return {
        "tokens": list(map(plain, result.tokens)),
        "layers": list(result.layers),
        "heads": list(result.heads),
        "steps": STEPS,
        "weights": _packed(result.weights),
        "rollout": None if result.rollout is None else _packed(result.rollout),
        "rolloutLayer": result.rollout_layer,
        "hideFirst": result.hide_first,
    }


def _packed(weights: NDArray[np.float32]) -> str:
    """Two bytes for each, the low one first, in base64."""
    steps = np.round(np.clip(weights, 0.0, 1.0) * STEPS).astype("<u2")
    return base64.b64encode(steps.tobytes()).decode("ascii")
