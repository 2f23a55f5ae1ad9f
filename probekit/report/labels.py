"""How metrics, numbers and what they are held against are called on a terminal and in a picture."""

from __future__ import annotations

import math

METRIC_LABELS = {"accuracy": "accuracy", "r2": "R²", "micro_f1": "micro F1", "entity_f1": "entity F1"}

TRIVIAL = {
    "classification": "majority class",
    "regression": "mean",
    "multilabel": "labels of most rows",
    "tags": "commonest tag",
    "entities": "commonest tag",
}
"""What the trivial baseline answers, by task."""

WORDS_ALONE = "words alone (TF-IDF)"
LOOKED_UP = "each word looked up"
"""The text baseline: of texts, of words."""

LOWEST_R2 = -1.0
"""So far below zero there is nothing to read off: pictures and bars end here."""

LEVEL = 0.05
"""A p-value above it: not clearly different."""

MOST_DECIMALS = 1e5


def number(value: float) -> str:
    """A score for people: three decimals, whatever its size; a dash where there is none.

    >>> number(0.5), number(-1234.5), number(float("nan")), number(-1.5e12)
    ('0.500', '-1234.500', '–', '-1.5e+12')
    """
    if not math.isfinite(value):
        return "–"
    return f"{value:.3f}" if abs(value) < MOST_DECIMALS else f"{value:.3g}"
