"""The layer table as CSV and JSON."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

import pandas as pd

from probekit.spec import Json

DIGITS = 6
"""Significant digits in the CSV: more than any test set can tell apart."""


def table_rows(table: pd.DataFrame) -> list[Json]:
    """One JSON object per row, in full precision; what does not apply is null."""
    return [{str(name): plain_value(value) for name, value in row.items()} for row in table.to_dict("records")]


def table_csv(table: pd.DataFrame) -> str:
    """The table as RFC-4180 CSV with LF line ends; what does not apply is empty. The same table, the same bytes."""
    return table.to_csv(index=False, float_format=f"%.{DIGITS}g", lineterminator="\n")


def json_path(csv: Path) -> Path:
    """Where the JSON beside ``csv`` is."""
    return csv.with_suffix(".json")


def side_path(csv: Path, name: str) -> Path:
    """Where the table ``name`` that belongs to ``csv`` is.

    >>> side_path(Path("layers.csv"), "classes").name
    'layers.classes.csv'
    """
    return csv.with_suffix(f".{name}.csv")


def write_csv(table: pd.DataFrame, csv: Path) -> Path:
    """Write any table as CSV, whole under another name and then renamed; returns the path."""
    _publish(csv, table_csv(table))
    return csv


def write_table(table: pd.DataFrame, record: Json, csv: Path) -> tuple[Path, Path]:
    """Write the CSV, and a JSON beside it with the same rows and the provenance; returns both paths.

    Each is written whole under another name and then renamed.
    """
    record = record | {"rows": table_rows(table)}
    beside = json_path(csv)
    _publish(csv, table_csv(table))
    _publish(beside, json.dumps(record, indent=1, allow_nan=False, ensure_ascii=False) + "\n")
    return csv, beside


def _publish(path: Path, text: str) -> None:
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        partial.write_text(text, encoding="utf-8", newline="")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def plain_value(value: Any) -> Any:
    """A value as JSON has it: NumPy's scalars as Python's, and null for NaN, infinity and what is missing."""
    if hasattr(value, "item"):
        value = value.item()
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return None
    return value
