"""Explanations for a terminal: the text with its words shaded, their importances, and whether to trust them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from rich.cells import cell_len
from rich.console import RenderableType
from rich.text import Text

from probekit.explanation.data_set import top_words
from probekit.explanation.results import Explanation, LayerExplanation
from probekit.plain import plain, plain_lines
from probekit.report.bars import scale_of
from probekit.report.explain_facts import (
    Said,
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
from probekit.report.layout import GAP, ByWidth, Cells, one_table, stacked_tables, width_of
from probekit.spec import Json

if TYPE_CHECKING:
    import pandas as pd

N_WORDS, FEW_WORDS = 10, 12
"""Words in the table; all of them where they are few."""
N_ROWS = 40
"""Words in the table of words x layers."""
SHORTEST_WORD, LONGEST_WORD = 10, 28
"""Longer words go on below."""
BAR_WIDTH = 24
FOR, AGAINST = "green", "magenta"
STRENGTHS = (0.1, 1 / 3, 2 / 3)
"""Of the largest importance: from here on a word is shaded a little, more, and most."""
STYLES = ("", "{}", "bold {}", "bold reverse {}")
MARKS = (".", "+", "++", "+++"), (".", "-", "--", "---")
"""For cells that have no room for numbers."""


def explained_text(explanation: Explanation, *, named: bool = False) -> Iterator[RenderableType]:
    """The answer, the text with its words shaded, a table of the most important words, and checks in sentences.

    ``named``: the id of the text stands before it.
    """
    yield Text(title(explanation, named=named), style="bold")
    yield _shaded(explanation)
    yield ByWidth(partial(_word_table, explanation))
    for said in checks(explanation):
        yield _sentence(said)


def explained_layers(layers: LayerExplanation) -> Iterator[RenderableType]:
    """Words x layers with shaded cells, then a row per layer: score, answer, share on the text baseline's words."""
    yield Text(layers_title(layers), style="bold")
    yield ByWidth(partial(_layer_map, layers))
    yield ByWidth(partial(_layer_rows, layers))
    for said in layer_facts(layers):
        yield _sentence(said)


def word_lists(
    table: pd.DataFrame, answers: Sequence[Any] | None = None, *, n: int = 10, least: int = 3
) -> Iterator[RenderableType]:
    """For each of ``answers`` (all by default) the ``n`` words that speak most for it, and most against it.

    ``table``: as of ``data_set.word_table``; of words that occur at least ``least`` times.
    """
    for answer in answers_of(table) if answers is None else answers:
        yield ByWidth(partial(_word_list, table, answer, n, least))


def _sentence(said: Said) -> Text:
    return Text(f"Careful: {said.text}" if said.careful else said.text, style="yellow" if said.careful else "")


def _shaded(explanation: Explanation) -> Text:
    """The text as it is, control characters as escapes, each word in the style of its importance."""
    text, end = Text(), 0
    importance = explanation.first.words
    share = shares(importance)
    for i, (a, b) in enumerate(explanation.words):
        text.append(plain_lines(explanation.text[end:a]))
        style = _style(float(share[i])) if np.isfinite(importance[i]) else "dim"
        if i == explanation.of_word:
            style += " underline"
        text.append(plain(explanation.text[a:b]), style=style.strip() or None)
        end = b
    text.append(plain_lines(explanation.text[end:]))
    return text


def _strength(share: float) -> int:
    return sum(abs(share) >= least for least in STRENGTHS)


def _style(share: float) -> str:
    return STYLES[_strength(share)].format(FOR if share > 0 else AGAINST)


def _word_table(explanation: Explanation, width: int) -> Iterator[RenderableType]:
    first, n_words = explanation.first, len(explanation.words)
    order = by_size(first.words)
    shown = order if n_words <= FEW_WORDS else order[:N_WORDS]
    if not shown:
        return
    at = Cells("#", [str(i) for i in shown])
    numbers = [Cells(one.method, _picked(written(one.words), shown)) for one in explanation.importances]
    room = width - width_of([at, *numbers]) - 2 * GAP
    longest = max(cell_len(plain(explanation.word(i))) for i in shown)
    fold = min(max(SHORTEST_WORD, width // 3), LONGEST_WORD)
    words = Cells("word", [_word(explanation.word(i), first.words[i], first.words) for i in shown], "left", fold)
    bars = min(BAR_WIDTH, room - min(longest, fold))
    scale = scale_of([float(first.words[i]) for i in shown], 0.0, is_r2=False)
    if bars >= max(scale.narrowest, 8) and np.any(first.words[shown] != 0):
        drawn = [Text(scale.bar(float(first.words[i]), bars), FOR if first.words[i] > 0 else AGAINST) for i in shown]
        numbers.insert(1, Cells(scale.heading(bars), drawn, "left"))
    yield from stacked_tables([at, words], numbers, width)
    of = f"The {len(shown)} most important of {n_words} words. " if len(shown) < len(order) else ""
    yield Text(of + reading_key(explanation), style="dim")


def _picked(values: Sequence[str], shown: Iterable[int]) -> list[str]:
    return [values[i] for i in shown]


def _word(word: str, importance: float, among: NDArray[np.float64]) -> Text:
    most = float(np.nanmax(np.abs(among)))
    return Text().append(plain(word), style=_style(importance / most if most > 0 else 0.0) or None)


# Layers


def _layer_map(layers: LayerExplanation, width: int) -> Iterator[RenderableType]:
    """Numbers where there is room for all of them, else marks."""
    read = np.flatnonzero(np.isfinite(layers.importance).any(axis=0))
    size = np.abs(np.nan_to_num(layers.importance[:, read])).max(axis=0, initial=0.0)
    shown = np.sort(read[np.argsort(-size, kind="stable")[:N_ROWS]])
    largest = float(size.max(initial=0.0))
    at = Cells("#", [str(i) for i in shown])
    fold = min(max(SHORTEST_WORD, width // 4), LONGEST_WORD)
    words = Cells("word", [plain(layers.word(int(i))) for i in shown], "left", fold)
    texts = np.array(written(layers.importance.ravel())).reshape(layers.importance.shape)
    by_words: list[Cells] = []
    if layers.baseline is not None:
        share, said = shares(layers.baseline), written(layers.baseline)
        by_words = [Cells("words alone", [Text(said[i], _style(float(share[i]))) for i in shown])]
    columns = [
        Cells(str(layer), [Text(texts[k, i], _style(_share(layers.importance[k, i], largest))) for i in shown])
        for k, layer in enumerate(layers.layers)
    ]
    marked = width_of([at, words, *by_words, *columns]) > width
    if marked:
        columns = [
            Cells(str(layer), [_mark(_share(layers.importance[k, i], largest)) for i in shown], "left")
            for k, layer in enumerate(layers.layers)
        ]
    yield from stacked_tables([at, words], [*by_words, *columns], width)
    if len(shown) < len(layers.words):
        yield Text(
            f"{len(shown)} of {len(layers.words)} words, those that are most important at any layer", style="dim"
        )
    if marked:
        steps = ", ".join(
            f"{MARKS[0][k + 1]} from {written([least * largest])[0]}" for k, least in enumerate(STRENGTHS)
        )
        yield Text(f"{steps}; - in place of + where a word speaks against the answer", style="dim")


def _share(value: float, largest: float) -> float:
    return value / largest if largest > 0 and np.isfinite(value) else 0.0


def _mark(share: float) -> Text:
    return Text(MARKS[int(share < 0)][_strength(share)], style=_style(share))


def _layer_rows(layers: LayerExplanation, width: int) -> Iterator[RenderableType]:
    names = Cells("layer", [str(layer) for layer in layers.layers])
    columns = [
        Cells(score_heading(layers), [number(score) for score in layers.score]),
        Cells(value_heading(layers), [number(value) for value in layers.value]),
    ]
    if layers.baseline is not None:
        columns.append(Cells("share", [f"{share:.1%}" if np.isfinite(share) else "–" for share in layers.share]))
    best = [_strongest(layers, k) for k in range(len(layers.layers))]
    most = Cells("most important", best, "left", max(SHORTEST_WORD, width - width_of([names, *columns]) - GAP))
    yield one_table([names, *columns, most])
    if layers.baseline is not None:
        yield Text("share: of a layer's importance, what falls on the words of the text baseline", style="dim")


def _strongest(layers: LayerExplanation, k: int) -> str:
    said = written(layers.importance[k])
    return ", ".join(f'"{plain(layers.word(i))}" {said[i]}' for i in by_size(layers.importance[k])[:3])


# A data set


def _word_list(table: pd.DataFrame, answer: Any, n: int, least: int, width: int) -> Iterator[RenderableType]:
    positive, negative = top_words(table, answer, n=n, least=least)
    target = plain(str(table["target"].iloc[0])) if len(table) else ""
    name = target if answer is None else f"{target} = {plain(str(answer))}"
    yield Text(name, style="bold")
    if not positive and not negative:
        yield Text(f"No word that occurs {times(least)} or more speaks for it or against it.")
        return
    sides = [
        _side("raise it" if answer is None else "speak for it", positive, FOR),
        _side("lower it" if answer is None else "speak against it", negative, AGAINST),
    ]
    sides = [_level(side, max(len(positive), len(negative))) for side in sides]
    beside = [*sides[0], Cells("", [""] * max(len(positive), len(negative))), *sides[1]]
    if positive and negative and width_of(beside) <= width:
        yield one_table(beside)
    else:
        for rows, side in zip((positive, negative), sides, strict=True):
            if rows:
                yield one_table(_level(side, len(rows)))
    method = plain(str(table["method"].iloc[0]))
    yield Text(f"mean importance by {method}, and how often the word occurs (at least {times(least)})", style="dim")


def _side(heading: str, rows: Sequence[Json], style: str) -> list[Cells]:
    return [
        Cells(heading, [Text(plain(str(row["word"])), style) for row in rows], "left", LONGEST_WORD),
        Cells("mean", written([row["mean_importance"] for row in rows])),
        Cells("n", [f"{row['n']:,}" for row in rows]),
    ]


def _level(side: Sequence[Cells], n: int) -> list[Cells]:
    """The same with as many rows."""
    return [Cells(c.heading, [*c.cells[:n], *[""] * (n - len(c.cells))], c.justify, c.fold) for c in side]
