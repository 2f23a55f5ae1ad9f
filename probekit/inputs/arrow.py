"""Parquet files and Arrow tables."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from probekit.errors import InputError
from probekit.inputs.lists import label_lists, list_texts, name_labels
from probekit.inputs.scalars import exact_numbers, type_objects, words
from probekit.inputs.table import Table, check_names


def read_parquet(data: bytes, name: str) -> Table:
    """All row groups of a Parquet file; lists of class labels become names if ``datasets`` wrote it.

    Raises ``InputError`` for a damaged file, one column name used twice, text that is not UTF-8, and
    dates that Python has no type for.
    """
    try:
        table = pq.ParquetFile(pa.BufferReader(data)).read()
    except (pa.ArrowException, OSError) as error:
        raise InputError(name, "a readable Parquet file", " ".join(str(error).split())) from error
    check_names(table.column_names, name)
    columns, nested, lists = columns_from_arrow(table, name, labels=_labels(table.schema.metadata))
    return Table(name, PurePath(name).stem, "file", table.num_rows, columns, nested, lists)


def columns_from_arrow(
    table: pa.Table, name: str, *, labels: Mapping[str, Sequence[str]]
) -> tuple[dict[str, NDArray[Any]], dict[str, str], dict[str, str]]:
    """Scalar columns and those of flat lists, (n,) each; the Arrow types of the others; what the lists hold.

    Categories become their values, dates and times ISO 8601 text, decimals float64, lists JSON text. ``labels``: the
    names of the classes of columns that are lists of their codes.
    """
    columns: dict[str, NDArray[Any]] = {}
    nested: dict[str, str] = {}
    lists: dict[str, str] = {}
    for column, values in zip(table.column_names, table.columns, strict=True):
        plain = values.cast(values.type.value_type) if pa.types.is_dictionary(values.type) else values
        converted = _column(plain, column, name)
        listed = _list_column(plain, column, name, labels.get(column)) if converted is None else None
        if converted is not None:
            columns[column] = converted
        elif listed is not None:
            columns[column], lists[column] = listed
        else:
            nested[column] = str(plain.type)
    return columns, nested, lists


def _labels(metadata: Mapping[bytes, bytes] | None) -> dict[str, list[str]]:
    try:
        return label_lists(json.loads((metadata or {})[b"huggingface"])["info"]["features"])
    except (KeyError, TypeError, ValueError, RecursionError):  # another program's, or damaged: codes stay numbers
        return {}


def _column(values: pa.ChunkedArray, column: str, name: str) -> NDArray[Any] | None:
    """(n,), or None where the values are no scalars that a probe could read."""
    kind = values.type
    if _is_string(kind):
        return words(_objects(values, column, name))
    if pa.types.is_boolean(kind) or pa.types.is_null(kind):
        return type_objects(values.to_pylist(), column, where=lambda row: f"{name}, row {row + 1}")
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        numbers = (values.cast(pa.float64()) if pa.types.is_decimal(kind) else values).to_pylist()
        exact = exact_numbers(numbers)
        return words([None if number is None else str(number) for number in numbers]) if exact is None else exact
    if pa.types.is_date(kind) or pa.types.is_timestamp(kind) or pa.types.is_time(kind):
        moments = _objects(values, column, name)
        return words([None if moment is None else moment.isoformat() for moment in moments])
    return None


def _list_column(
    values: pa.ChunkedArray, column: str, name: str, labels: Sequence[str] | None
) -> tuple[NDArray[np.object_], str] | None:
    """(n,) JSON text and what the lists hold, or None where the values are no flat lists, or lack items."""
    kind = values.type
    if not (pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)):
        return None
    items = _items(kind.value_type.value_type if pa.types.is_dictionary(kind.value_type) else kind.value_type)
    lists = _objects(values, column, name) if items else []
    if items is None or any(None in value for value in lists if value is not None):
        return None
    if labels is not None and pa.types.is_integer(kind.value_type):
        lists, items = name_labels(lists, labels), "text"
    return list_texts(lists), items


def _items(kind: pa.DataType) -> str | None:
    if _is_string(kind) or pa.types.is_null(kind):  # the latter where all lists are empty
        return "text"
    if pa.types.is_boolean(kind):
        return "true/false"
    numeric = pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)
    return "numbers" if numeric else None


def _is_string(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _objects(values: pa.ChunkedArray, column: str, name: str) -> list[Any]:
    objects: list[Any] = []
    try:
        for value in values:
            objects.append(value.as_py())
    except UnicodeDecodeError as error:
        where = f"{name}, row {len(objects) + 1}, column {column!r}"
        raise InputError(where, "text must be UTF-8", f"byte 0x{error.object[error.start]:02x}") from error
    except (OverflowError, ValueError) as error:
        where = f"{name}, row {len(objects) + 1}, column {column!r}"
        raise InputError(where, "dates must be within the years 1 to 9999", str(error)) from error
    return objects
