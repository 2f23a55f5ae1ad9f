"""Several tables become one set of columns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from probekit.errors import InputError
from probekit.inputs.cells import type_cells
from probekit.inputs.scalars import type_objects, words
from probekit.inputs.table import Table, place


def join_columns(tables: Sequence[Table], *, leave_out: str | None) -> dict[str, NDArray[Any]]:
    """The scalar columns of all tables, one below the other, (n_rows in all,) each, typed as a whole.

    A column that is nested in one of them is dropped; ``leave_out`` is one more to drop.

    Raises ``InputError`` if the tables' columns differ, or their types do.
    """
    for table in tables[1:]:
        _check_same(tables[0], table)
    nested = {column for table in tables for column in table.nested}
    return {column: _stack(tables, column) for column in tables[0].columns if column not in {*nested, leave_out}}


def _check_same(first: Table, table: Table) -> None:
    lacking = [repr(name) for name in first.names if name not in table.names]
    besides = [repr(name) for name in table.names if name not in first.names]
    if lacking or besides:
        differences = [f"no {' or '.join(lacking)}"] if lacking else []
        differences += [f"{' and '.join(besides)} besides"] if besides else []
        raise InputError(table.name, f"the same columns as {first.name}", ", ".join(differences))


def _stack(tables: Sequence[Table], column: str) -> NDArray[Any]:
    parts = [table.columns[column] for table in tables]
    if all(table.as_written for table in tables):
        return type_cells(np.concatenate(parts))
    parts = [type_cells(part) if table.as_written else part for table, part in zip(tables, parts, strict=True)]
    if len({part.dtype for part in parts}) == 1:
        return np.concatenate(parts)
    values = [value for part in parts for value in ([None] * len(part) if _is_blank(part) else part.tolist())]
    return type_objects(values, column, where=lambda row: place(tables, row))


def _is_blank(part: NDArray[Any]) -> bool:
    return part.dtype.kind == "O" and not any(part)


def id_texts(tables: Sequence[Table], column: str) -> NDArray[np.object_]:
    """(n_rows in all,) the ids as text, those of a text file as written (007 stays 007); "" where one is missing."""
    texts: list[str | None] = []
    for table in tables:
        values = table.columns[column].tolist()
        texts += [None if value != value else str(value) for value in values]  # noqa: PLR0124 - NaN differs from itself
    return words(texts)
