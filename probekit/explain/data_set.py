"""Over a data set: what each word did on the mean, wherever it stood."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from probekit.explain.results import WORD_COLUMNS, Explanation
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
