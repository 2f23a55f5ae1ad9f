"""The layer table as CSV and JSON."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd

from probekit.output import json_path, plain_value, replacing, write_whole
from probekit.spec import Json

DIGITS = 6
"""Significant digits in the CSV: more than any test set can tell apart."""


def table_rows(table: pd.DataFrame) -> list[Json]:
    """One JSON object per row, in full precision; what does not apply is null."""
    return [{str(name): plain_value(value) for name, value in row.items()} for row in table.to_dict("records")]


def table_csv(table: pd.DataFrame) -> str:
    """The table as RFC-4180 CSV with LF line ends; what does not apply is empty. The same table, the same bytes."""
    return table.to_csv(index=False, float_format=f"%.{DIGITS}g", lineterminator="\n")


def write_csv(table: pd.DataFrame, csv: Path) -> Path:
    """Write any table as CSV; returns the path."""
    write_whole(csv, _encoded(table_csv(table)))
    return csv


def write_table(table: pd.DataFrame, record: Json, csv: Path) -> tuple[Path, Path]:
    """Write the CSV, and a JSON beside it with the same rows and the provenance; returns both paths.

    Both are written before either gets its name.
    """
    record = record | {"rows": table_rows(table)}
    beside = json_path(csv)
    with replacing(csv) as new_csv, replacing(beside) as new_json:
        new_csv.write_bytes(_encoded(table_csv(table)))
        new_json.write_bytes(_encoded(json.dumps(record, indent=1, allow_nan=False, ensure_ascii=False) + "\n"))
    return csv, beside


def _encoded(text: str) -> bytes:
    """UTF-8; a lone surrogate (of a file name that is none) becomes an escape, which JSON reads as such."""
    return text.encode("utf-8", "backslashreplace")
