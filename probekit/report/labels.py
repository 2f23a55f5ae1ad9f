"""How metrics and numbers are written for people."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

METRIC_LABELS = {"accuracy": "accuracy", "r2": "R²", "micro_f1": "micro F1", "entity_f1": "entity F1"}

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


def known(value: Any) -> bool:
    """Whether a cell of a table holds something."""
    return bool(pd.notna(value))
