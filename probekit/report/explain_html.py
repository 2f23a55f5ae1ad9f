"""Explanations as one HTML file, without network: texts with shaded words, words x layers, the words of a data set.

Whatever a text holds is inert in it: control characters are shown as escapes, jinja2 escapes what stands in the page,
and the data for the script are JSON in which ``<``, ``>`` and ``&`` are escapes; it makes no markup of them either.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from probekit.explanation.data_set import top_words
from probekit.explanation.results import Explanation, LayerExplanation
from probekit.plain import plain, plain_lines
from probekit.report.explain_facts import (
    answers_of,
    by_size,
    checks,
    layer_facts,
    layers_title,
    reading_key,
    score_heading,
    shares,
    times,
    title,
    value_heading,
    written,
)
from probekit.report.labels import number
from probekit.spec import Json

if TYPE_CHECKING:
    import pandas as pd

MOST_TEXTS = 500
"""Of more, the first are shown, and that is said."""
DARKEST, FAINT = 0.6, 0.1
"""Opacity of the largest importance; shares below have no line under them."""


def explanations_html(
    explanations: Sequence[Explanation],
    layers: LayerExplanation | None = None,
    words: pd.DataFrame | None = None,
    *,
    n: int = 10,
    least: int = 3,
) -> str:
    """The page as text: each of ``explanations``, words x ``layers`` as a heat map, lists of ``words``.

    ``words``: as of ``data_set.word_table``; ``n``, ``least``: as for ``explain_terminal.word_lists``.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    loader = PackageLoader("probekit.report", "templates")
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined)
    shown = explanations[:MOST_TEXTS]
    first = shown[0] if shown else None
    methods = [one.method for one in first.importances] if first else []
    what = [reading_key(first, one.method) for one in first.importances] if first else []
    table = [[_cells(one.words, one_text.of_word) for one in one_text.importances] for one_text in shown]
    packed = [[[[c["kind"], c["alpha"], c["said"]] for c in cells] for cells in of_text] for of_text in table]
    return environment.get_template("explain.html").render(
        heading=_heading(explanations, layers, words),
        texts=[_text(one, cells, named=len(shown) > 1) for one, cells in zip(shown, table, strict=True)],
        left_out=len(explanations) - len(shown),
        methods=methods,
        what=what,
        layers=None if layers is None else _layers(layers),
        lists=None if words is None else _lists(words, n, least),
        data={"methods": methods, "what": what, "texts": packed},
    )


def _heading(explanations: Sequence[Explanation], layers: LayerExplanation | None, words: pd.DataFrame | None) -> str:
    if explanations:
        return plain(explanations[0].target)
    if layers is not None:
        return plain(layers.target)
    return plain(str(words["target"].iloc[0])) if words is not None and len(words) else ""


def _cell(share: float, said: str) -> Json:
    """A number with its colour. ``share``: of the largest; NaN where there is none."""
    if not np.isfinite(share):
        return {"kind": "", "alpha": "0", "said": said}
    kind = ("for" if share > 0 else "against") + (" faint" if abs(share) < FAINT else "")
    return {"kind": kind, "alpha": f"{abs(share) * DARKEST:.3f}", "said": said}


def _cells(importance: NDArray[np.float64], at: int | None = None) -> list[Json]:
    """Of each word. ``at``: which one's tag is explained."""
    share = np.where(np.isfinite(importance), shares(importance), np.nan)
    cells = [_cell(float(s), said) for s, said in zip(share, written(importance), strict=True)]
    for i, cell in enumerate(cells):
        if not np.isfinite(share[i]):
            cell |= {"kind": "unread", "said": "not read"}
        if i == at:
            cell["kind"] += " at"
    return cells


def _text(explanation: Explanation, cells: Sequence[Sequence[Json]], *, named: bool) -> Json:
    methods = [one.method for one in explanation.importances]
    first = explanation.first
    parts: list[Json] = []
    end = 0
    for i, (a, b) in enumerate(explanation.words):
        parts.append({"word": None, "text": plain_lines(explanation.text[end:a])})
        cell = cells[0][i]
        said = f"{first.method}: {cell['said']}"
        parts.append({**cell, "word": i, "text": plain(explanation.text[a:b]), "said": said})
        end = b
    parts.append({"word": None, "text": plain_lines(explanation.text[end:])})
    unread = [i for i in range(len(explanation.words)) if not np.isfinite(first.words[i])]
    rows = [
        {"at": i, "word": plain(explanation.word(i)), "cells": [of_method[i] for of_method in cells]}
        for i in [*by_size(first.words), *unread]
    ]
    by_token = [one for one in explanation.importances if one.tokens is not None]
    of_tokens = [_cells(np.asarray(one.tokens)) for one in by_token]
    tokens = [
        {
            "at": t,
            "token": plain(token),
            "of": "" if word < 0 else plain(explanation.word(word)),
            "cells": [of_method[t] for of_method in of_tokens],
        }
        for t, (token, word) in enumerate(zip(explanation.tokens, explanation.token_word.tolist(), strict=True))
    ]
    return {
        "title": title(explanation, named=named),
        "parts": parts,
        "checks": checks(explanation),
        "methods": methods,
        "words": rows,
        "tokens": tokens,
        "token_methods": [one.method for one in by_token],
    }


def _layers(layers: LayerExplanation) -> Json:
    share = shares(layers.importance)
    share[~np.isfinite(layers.importance)] = np.nan
    said = np.array(written(layers.importance.ravel()), dtype=object).reshape(layers.importance.shape)
    by_words: list[Json] = [] if layers.baseline is None else _cells(layers.baseline)
    words = []
    for i in range(len(layers.words)):
        cells = [_cell(float(share[k, i]), str(said[k, i])) for k in range(len(layers.layers))]
        row = [by_words[i], *cells] if by_words else cells
        words.append({"word": plain(layers.word(i)), "top": i in layers.baseline_words, "cells": row})
    return {
        "title": layers_title(layers),
        "facts": layer_facts(layers),
        "has_baseline": layers.baseline is not None,
        "words": words,
        "score": score_heading(layers),
        "value": value_heading(layers),
        "layers": [
            {
                "layer": layer,
                "score": number(layers.score[k]),
                "value": number(layers.value[k]),
                "share": f"{layers.share[k]:.1%}" if np.isfinite(layers.share[k]) else "–",
            }
            for k, layer in enumerate(layers.layers)
        ],
    }


def _lists(table: pd.DataFrame, n: int, least: int) -> Json:
    target = plain(str(table["target"].iloc[0])) if len(table) else ""
    return {
        "method": plain(str(table["method"].iloc[0])) if len(table) else "",
        "least": times(least),
        "answers": [_list(table, answer, target, n, least) for answer in answers_of(table)],
    }


def _list(table: pd.DataFrame, answer: Any, target: str, n: int, least: int) -> Json:
    both = top_words(table, answer, n=n, least=least)
    most = max((abs(row["mean_importance"]) for rows in both for row in rows), default=0.0)
    headings = ("raise it", "lower it") if answer is None else ("speak for it", "speak against it")
    sides = []
    for heading, rows in zip(headings, both, strict=True):
        said = written([row["mean_importance"] for row in rows])
        cells = [_cell(row["mean_importance"] / most, text) for row, text in zip(rows, said, strict=True)]
        named = [
            {"word": plain(str(row["word"])), "n": f"{row['n']:,}", "cell": cell}
            for row, cell in zip(rows, cells, strict=True)
        ]
        sides.append({"heading": heading, "rows": named})
    return {"name": target if answer is None else f"{target} = {plain(str(answer))}", "sides": sides}
