"""Labelled texts that are in memory: a list of texts, a pandas DataFrame, datasets of ``datasets``."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

import numpy as np
import pyarrow as pa

from probekit.errors import InputError, SpecError
from probekit.inputs.arrow import columns_from_arrow
from probekit.inputs.columns import LeftOut, words
from probekit.inputs.files import READERS
from probekit.inputs.hub import HUB_ID, choose_splits, table_from_dataset
from probekit.inputs.table import Table, clean_names, without_blanks

TEXTS = "list of texts"


@dataclass(frozen=True)
class Texts:
    """Texts in a list. ``columns``: what is known of each, n values by name."""

    texts: list[str]
    columns: Mapping[str, Any]


def texts_or_sources(data: Any, labels: Any = None) -> Any:
    """Tell a list of texts from a list of files or datasets; other data come back as they are.

    ``labels``: of a list of texts, n values for a column "label", or a mapping (or DataFrame) of columns. A list with
    labels has texts, and so has a pandas Series or an array. Without labels, a list of paths has files; so has a list
    of str if all of them look like files (there is one, or they have the ending of one) or datasets (ORG/NAME).

    Raises ``SpecError`` for a list of both, for one of single words, which may be texts or names of datasets, and for
    labels without a list of texts; ``InputError`` for an item that is no text.
    """
    column = _is_pandas(data, "Series") or isinstance(data, np.ndarray)
    if not column and not isinstance(data, list | tuple):
        if labels is not None:
            message = "go with a list of texts; other data have them in a column"
            raise SpecError("labels", message, f"labels for {type(data).__name__}")
        return data
    items = list(data)
    if labels is None and not column and _are_sources(items):
        return items
    for number, item in enumerate(items, 1):
        if not isinstance(item, str):
            raise InputError(f"{TEXTS}, item {number}", "every item must be text", f"{type(item).__name__} ({item!r})")
    columns = {} if labels is None else {"label": labels}
    if _is_pandas(labels, "DataFrame") or isinstance(labels, Mapping):
        columns = {str(name): labels[name] for name in labels}
    return Texts(list(map(str, items)), columns)  # without NumPy's own kind of str


def _are_sources(items: list[Any]) -> bool:
    """Raises SpecError where it can't be told."""
    if not items:
        return True  # for the message that something must be there
    if any(isinstance(item, os.PathLike) for item in items):
        return True
    if not all(isinstance(item, str) for item in items):
        return False
    files = {item for item in items if _is_file(item)}
    words_or_names = [item for item in items if item not in files]
    if not all(HUB_ID.fullmatch(item) for item in words_or_names):
        if files:
            message = (
                "a list has either files or texts (give texts that look like files with labels, or in a DataFrame)"
            )
            other = next(item for item in words_or_names if not HUB_ID.fullmatch(item))
            raise SpecError("data", message, f"{min(files)!r} and {other[:40]!r}")
        return False
    plain = [item for item in words_or_names if "/" not in item]
    if len(items) > 1 and plain:
        message = "single words may be texts or names of datasets: give texts with labels, or in a DataFrame"
        raise SpecError("data", message, repr(plain[0]))
    return True


def _is_file(item: str) -> bool:
    return "\n" not in item and (PurePath(item).suffix.lower() in READERS or os.path.isfile(item))


def is_in_memory(data: Any) -> bool:
    """Whether ``data`` are neither files nor ids of datasets but what ``tables_from_memory`` reads."""
    return isinstance(data, Texts | Mapping) or _is_pandas(data, "DataFrame") or _is_dataset(data)


def tables_from_memory(data: Any, *, split: str | None, id_column: str | None) -> tuple[list[Table], str]:
    """One table per split, and what results call the data.

    ``data``: ``Texts``, a DataFrame, a ``datasets.Dataset``, or a mapping of splits to such. ``split``: names of
    splits, separated by commas. ``id_column``: may also name the index of a DataFrame ("index", if it has no name).

    Raises ``InputError`` for data without rows and columns of several types or lengths.
    """
    if isinstance(data, Texts):
        if "text" in map(without_blanks, data.columns):
            raise InputError("labels", "columns beside the texts, which are the column 'text'", "a column 'text'")
        return [_table({"text": words(data.texts), **data.columns}, len(data.texts), TEXTS, "")], TEXTS
    if not isinstance(data, Mapping):
        return [_split_table(data, _name(data), "", id_column)], _name(data)
    for part, rows in data.items():
        if not _is_pandas(rows, "DataFrame") and not _is_dataset(rows):
            message = "a mapping has a Dataset or DataFrame for each split"
            raise InputError(f"data, {part!r}", message, type(rows).__name__)
    if not data:
        raise InputError("data", "at least one split", "none")
    name = _name(next(iter(data.values())))
    chosen = choose_splits(list(data), name, split)
    return [_split_table(data[part], name, str(part), id_column) for part in chosen], name


def _split_table(rows: Any, name: str, part: str, id_column: str | None) -> Table:
    if _is_dataset(rows):
        return table_from_dataset(rows, name, part)
    names = list(map(_column_name, rows.columns))
    columns = {column: rows.iloc[:, position] for position, column in enumerate(names)}
    title = f"{name}, split {part!r}" if part else name
    if len(columns) < len(names):
        twice = next(column for column in names if names.count(column) > 1)
        raise InputError(title, "every column must have a name of its own", f"{twice!r} twice")
    index = rows.index.name or "index"
    if id_column == index and index not in map(without_blanks, columns):
        columns[index] = rows.index.to_series()
    return _table(columns, len(rows), title, part)


def _column_name(name: Any) -> str:
    if isinstance(name, tuple):
        raise InputError("DataFrame", "column names are text, of one level", repr(name))
    return str(name)


def _table(columns: Mapping[str, Any], n_rows: int, title: str, part: str) -> Table:
    if n_rows == 0:
        raise InputError(title, "at least one row", "none")
    arrays: dict[str, Any] = {}
    left_out: dict[str, LeftOut] = {}
    for name, values in columns.items():
        array = _arrow(values, n_rows, f"{title}, column {name!r}")
        if isinstance(array, LeftOut):
            left_out[name] = array
        else:
            arrays[name] = array
    clean_names(list(columns), title)
    read, nested, lists = columns_from_arrow(pa.table(arrays), title, labels={})
    return Table(title, part, "split" if part else "table", n_rows, read, nested | left_out, lists)


def _arrow(values: Any, n_rows: int, where: str) -> Any:
    """A column as Arrow's, whose types decide what it becomes, as in a Parquet file."""
    if not isinstance(values, list | tuple) and not _is_pandas(values, "Series"):
        if isinstance(values, str | bytes | Mapping) or not isinstance(values, Iterable):
            raise InputError(where, f"{n_rows} values, one for each row", type(values).__name__)
        values = values if hasattr(values, "isna") else np.asarray(values)  # pandas' own arrays, or others' tensors
    if getattr(values, "ndim", 1) != 1:
        raise InputError(where, f"{n_rows} values, one for each row", f"shape {np.shape(values)}")
    if len(values) != n_rows:
        raise InputError(where, f"{n_rows} values, one for each row", str(len(values)))
    if str(getattr(values, "dtype", "")).startswith("Sparse"):
        values = np.asarray(values)
    kinds = _kinds(values)
    scalars = kinds.keys() & SCALARS
    if len(scalars) > 1:
        first, second = sorted((kinds[kind], kind) for kind in scalars)[:2]
        got = f"{first[1]} in row {first[0]}, {second[1]} in row {second[0]}"
        raise InputError(where, "one type per column", got)
    try:
        return pa.array(values, from_pandas=True)
    except OverflowError:  # whole numbers that no type holds are text, as in other data
        return pa.array([None if _is_gap(value) else str(value) for value in values])
    except UnicodeEncodeError as error:
        raise InputError(where, "text must have no NUL and no lone surrogate", ascii(error.object)[:60]) from error
    except (pa.ArrowException, TypeError, ValueError) as error:
        if scalars:
            raise InputError(where, "text, numbers, true/false, dates or flat lists", str(error)) from error
        kind, row = next(iter(kinds.items()), (str(getattr(values, "dtype", "")), 0))
        return LeftOut(f"{kind}, which is no text, number, date or flat list", row)


SCALARS = {"text", "numbers", "true/false"}


def _kinds(values: Any) -> dict[str, int]:
    """What Python objects a column holds, with the first row of each; nothing where it has a type of its own."""
    kinds: dict[str, int] = {}
    if isinstance(values, list | tuple) or str(values.dtype) == "object":
        for row, value in enumerate(values, 1):
            if not _is_gap(value):
                kinds.setdefault(_kind(value), row)
    return kinds


def _kind(value: Any) -> str:
    if isinstance(value, bool | np.bool_):
        return "true/false"
    if isinstance(value, int | float | np.number):
        return "numbers"
    return "text" if isinstance(value, str) else type(value).__name__


def _is_gap(value: Any) -> bool:
    """None, NaN, pandas' NA and NaT; but no list that has one."""
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return True
    return isinstance(value, float | np.floating) and bool(np.isnan(value))


def _name(data: Any) -> str:
    """What results call it: of a dataset its name, or that of what built it."""
    info = getattr(data, "info", None)
    if _is_dataset(data) and info is not None:
        return str(info.dataset_name or info.builder_name or "Dataset")
    return type(data).__name__


def _is_pandas(data: Any, kind: str) -> bool:
    """Whether it is a DataFrame or Series; who has one has pandas loaded."""
    pandas = sys.modules.get("pandas")
    return pandas is not None and isinstance(data, getattr(pandas, kind))


def _is_dataset(data: Any) -> bool:
    datasets = sys.modules.get("datasets")
    return datasets is not None and isinstance(data, datasets.Dataset)
