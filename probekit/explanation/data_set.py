"""Many texts as tables: each word of each text, what a word did on the mean, how far a method is to be trusted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from probekit.explanation.results import TRUST_COLUMNS, WORD_COLUMNS, Explanation, LayerExplanation, Trust
from probekit.spec import Json

if TYPE_CHECKING:
    import pandas as pd


def word_table(explanations: Sequence[Explanation]) -> pd.DataFrame:
    """A row for each answer and word type (a word in lower case), columns ``WORD_COLUMNS``, the highest mean first.

    ``explanations``: with importances for every answer. A word's importance is of each place where it stands.
    """
    import pandas as pd

    found: dict[tuple[int, str], list[float]] = {}
    texts: dict[str, set[int]] = {}
    first = explanations[0]
    answers: tuple[Any, ...] = first.answers or (None,)
    for i, one in enumerate(explanations):
        if one.all_words is None:
            raise ValueError("explanations need importances for every answer")
        for w in range(len(one.words)):
            word = one.word(w).lower()
            if not np.isfinite(one.all_words[0, w]):
                continue
            texts.setdefault(word, set()).add(i)
            for k in range(len(answers)):
                found.setdefault((k, word), []).append(float(one.all_words[k, w]))
    rows: list[Json] = []
    for (k, word), values in found.items():
        rows.append(
            {
                "target": first.target,
                "answer": answers[k],
                "word": word,
                "n": len(values),
                "n_texts": len(texts[word]),
                "mean_importance": float(np.mean(values)),
                "sd": float(np.std(values, ddof=1)) if len(values) > 1 else float("nan"),
                "method": first.first.method,
            }
        )
    table = pd.DataFrame(rows, columns=list(WORD_COLUMNS))
    order = {answer: k for k, answer in enumerate(answers)}
    table["_answer"] = [order[answer] for answer in table["answer"]] if first.answers else 0
    table = table.sort_values(["_answer", "mean_importance", "word"], ascending=[True, False, True], kind="stable")
    return table.drop(columns="_answer").reset_index(drop=True)


def text_table(explanations: Sequence[Explanation]) -> pd.DataFrame:
    """A row for each word of each text: where it is, what is explained, and its importance by each method."""
    import pandas as pd

    rows: list[Json] = []
    for one in explanations:
        said = {"id": one.id, "target": one.target, "answer": one.answer, "value": one.value}
        said["probability"] = one.probability
        for w, (a, b) in enumerate(one.words):
            by_method = {part.method: part.words[w] for part in one.importances}
            rows.append({**said, "start": a, "end": b, "word": one.word(w), **by_method})
    return pd.DataFrame(rows)


def layer_table(layers: LayerExplanation) -> pd.DataFrame:
    """A row for each layer and word: importance there, the layer's score and share, the text baseline's loss."""
    import pandas as pd

    rows: list[Json] = []
    for k, layer in enumerate(layers.layers):
        of_layer = {"target": layers.target, "answer": layers.answer, "probe": layers.probe, "method": layers.method}
        of_layer |= {"layer": layer, "score": layers.score[k], "metric": layers.metric, "value": layers.value[k]}
        of_layer |= {"share": layers.share[k], "chance": layers.chance}
        for w, (a, b) in enumerate(layers.words):
            alone = np.nan if layers.baseline is None else layers.baseline[w]
            of_word = {"start": a, "end": b, "word": layers.word(w), "importance": layers.importance[k, w]}
            rows.append({**of_layer, **of_word, "words_alone": alone, "in_share": w in layers.baseline_words})
    return pd.DataFrame(rows)


def trust_table(explanations: Sequence[Explanation]) -> pd.DataFrame:
    """A row for each method, columns ``TRUST_COLUMNS``: means over the texts that have two words or more.

    ``lower`` and ``upper``: 95% interval of the mean of ``comprehensiveness - random_comprehensiveness``, by the
    normal approximation over texts.
    """
    import pandas as pd

    found: dict[str, list[Trust]] = {}
    for one in explanations:
        for part in one.importances:
            if part.trust is not None:
                found.setdefault(part.method, []).append(part.trust)
    rows: list[Json] = []
    for method, of_texts in found.items():
        names = ("comprehensiveness", "random_comprehensiveness", "sufficiency", "random_sufficiency")
        values = np.array([[getattr(trust, name) for name in names] for trust in of_texts])
        beyond = values[:, 0] - values[:, 1]
        wide = 1.96 * beyond.std(ddof=1) / len(beyond) ** 0.5 if len(beyond) > 1 else np.nan
        means = dict(zip(names, values.mean(axis=0).tolist(), strict=True))
        ends = {"lower": float(beyond.mean() - wide), "upper": float(beyond.mean() + wide)}
        rows.append(
            {"method": method, "n_texts": len(of_texts), **means, "beyond_random": float(beyond.mean()), **ends}
        )
    return pd.DataFrame(rows, columns=list(TRUST_COLUMNS))


def top_words(table: pd.DataFrame, answer: Any, *, n: int, least: int) -> tuple[list[Json], list[Json]]:
    """The ``n`` words that speak most for ``answer``, and those that speak most against it, strongest first.

    Of words that occur at least ``least`` times.
    """
    of_answer = table if answer is None else table[table["answer"] == answer]
    often = of_answer[of_answer["n"] >= least]
    rows = [{str(name): value for name, value in row.items()} for row in often.to_dict("records")]
    positive = [row for row in rows if row["mean_importance"] > 0][:n]
    negative = [row for row in reversed(rows) if row["mean_importance"] < 0][:n]
    return positive, negative
