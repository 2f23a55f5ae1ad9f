"""JSON Lines: one object per line."""

from __future__ import annotations

import json
from pathlib import PurePath
from typing import Any

from numpy.typing import NDArray

from probekit.errors import InputError
from probekit.inputs.columns import LeftOut, list_items, list_texts, type_objects
from probekit.inputs.plain_text import decode, split_lines
from probekit.inputs.table import Table, clean_names


def read_jsonl(data: bytes, name: str) -> Table:
    """Every line is a row; a key that a row lacks is a missing value, and so is null.

    Columns keep JSON's types; flat lists become JSON text (see ``list_items``); one with another list or an
    object anywhere is nested.

    Raises ``InputError`` for a line that is no JSON object and for a column of several types; names the line or row.
    """
    rows = [_parse(line, f"{name}, line {number}") for number, line in enumerate(split_lines(decode(data, name)), 1)]
    keys = list(dict.fromkeys(key for row in rows for key in row))
    columns: dict[str, NDArray[Any]] = {}
    nested, lists = {}, {}
    for key, column in zip(keys, clean_names(keys, name), strict=True):
        values = [row.get(key) for row in rows]
        if not set(map(type, values)) & {list, dict}:
            columns[column] = type_objects(values, column, where=lambda row: f"{name}, row {row + 1}")
        elif isinstance(items := list_items(values), LeftOut):
            nested[column] = items
        else:
            columns[column], lists[column] = list_texts(values), items
    return Table(name, PurePath(name).stem, "file", len(rows), columns, nested, lists)


def _parse(line: str, where: str) -> dict[str, Any]:
    if not line.strip():
        raise InputError(where, "every line must be a JSON object", "a blank line")
    try:
        row = json.loads(line, object_pairs_hook=_unique)
    except json.JSONDecodeError as error:
        found = f"{error.msg} at character {error.pos + 1}"
        raise InputError(where, "every line must be a JSON object", found) from error
    except (ValueError, RecursionError) as error:  # a key twice, a number of over 4,300 digits, too deep a nesting
        raise InputError(where, "every line must be a JSON object", str(error)) from error
    if not isinstance(row, dict):
        raise InputError(where, "every line must be a JSON object", type(row).__name__)
    return row


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    row = dict(pairs)
    if len(row) < len(pairs):  # json keeps the last one and says nothing
        keys = [key for key, _ in pairs]
        raise ValueError(f"the key {next(key for key in keys if keys.count(key) > 1)!r} twice")
    return row
