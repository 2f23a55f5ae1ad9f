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
from probekit.inputs.columns import LeftOut, class_names, exact_numbers, list_texts, name_labels, type_objects, words
from probekit.inputs.table import Table, clean_names


def read_parquet(data: bytes, name: str) -> Table:
    """All row groups of a Parquet file; class labels become names if ``datasets`` wrote it.

    Raises ``InputError`` for a damaged file, one column name used twice, text that is not UTF-8, and
    dates that Python has no type for.
    """
    try:
        table = pq.ParquetFile(pa.BufferReader(data)).read()
    except (pa.ArrowException, OSError) as error:
        raise InputError(name, "a readable Parquet file", " ".join(str(error).split())) from error
    columns, nested, lists = columns_from_arrow(table, name, labels=_labels(table.schema.metadata))
    return Table(name, PurePath(name).stem, "file", table.num_rows, columns, nested, lists)


def columns_from_arrow(
    table: pa.Table, name: str, *, labels: Mapping[str, Sequence[str]]
) -> tuple[dict[str, NDArray[Any]], dict[str, LeftOut], dict[str, str]]:
    """Scalar columns and those of flat lists, (n,) each; why the others can't be kept; what the lists hold.

    Categories become their values, dates and times ISO 8601 text, decimals float64, lists JSON text. ``labels``: the
    names of the classes of columns that are their codes, or lists of these; a negative code is a missing value.

    Raises ``InputError`` for bad names of columns.
    """
    columns: dict[str, NDArray[Any]] = {}
    nested: dict[str, LeftOut] = {}
    lists: dict[str, str] = {}
    names = clean_names(table.column_names, name)
    for column, given, values in zip(names, table.column_names, table.columns, strict=True):
        plain = values.cast(values.type.value_type) if pa.types.is_dictionary(values.type) else values
        converted = _column(plain, column, name, labels.get(given))
        if converted is not None:
            columns[column] = converted
            continue
        listed = _list_column(plain, column, name, labels.get(given))
        if isinstance(listed, LeftOut):
            nested[column] = listed
        else:
            columns[column], lists[column] = listed
    return columns, nested, lists


def _labels(metadata: Mapping[bytes, bytes] | None) -> dict[str, list[str]]:
    try:
        return class_names(json.loads((metadata or {})[b"huggingface"])["info"]["features"])
    except (KeyError, TypeError, ValueError, RecursionError):  # another program's, or damaged: codes stay numbers
        return {}


def _column(values: pa.ChunkedArray, column: str, name: str, labels: Sequence[str] | None) -> NDArray[Any] | None:
    """(n,), or None where the values are no scalars that a probe could read."""
    kind = values.type
    if labels is not None and pa.types.is_integer(kind):
        (named,) = name_labels([values.to_pylist()], labels)
        if named is not None and all(label is None or isinstance(label, str) for label in named):
            return words(named)
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
) -> tuple[NDArray[np.object_], str] | LeftOut:
    """(n,) JSON text and what the lists hold, or why not, where the values are no flat lists, or lack items."""
    kind = values.type
    if not (pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)):
        return LeftOut(str(kind))
    items = _items(kind.value_type.value_type if pa.types.is_dictionary(kind.value_type) else kind.value_type)
    if items is None:
        return LeftOut(str(kind))
    lists = _objects(values, column, name)
    gap = next((row for row, value in enumerate(lists, 1) if value is not None and None in value), 0)
    if gap:
        return LeftOut("a list with an empty (null) item", gap)
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
