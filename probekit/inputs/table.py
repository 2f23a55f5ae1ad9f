"""The rows of one file or one split, and how several of these become one set of columns."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from probekit.errors import InputError
from probekit.inputs.cells import type_cells
from probekit.inputs.columns import LeftOut, type_objects, words

# str.strip() leaves the two that stand for nothing: a byte order mark and a blank without width.
_OUTER_BLANKS = re.compile(r"^[\s\ufeff\u200b]+|[\s\ufeff\u200b]+$")


@dataclass(frozen=True)
class Table:
    """The rows of one file, or of one split of a dataset.

    ``name``: what messages call it. ``part``: the file's name without its ending, or the split's name. ``kind``: what
    it is, for messages. ``columns``: (n_rows,) each, of the dtypes of ``Examples.columns``; where ``as_written`` they
    are all still str, as the file has them. ``nested``: columns that are neither scalars nor flat lists, and why.
    ``lists``: those of ``columns`` that are lists as JSON text ("" for a missing one), with what they hold: "text",
    "true/false" or "numbers". ``lines``: (n_rows,) the line of the file on which each row begins; empty where that is
    the row's own number, or where there are no lines. ``path``: of a file, as the user wrote it. ``notes``: what the
    user should know of how it was read.
    """

    name: str
    part: str
    kind: Literal["file", "split", "table"]
    n_rows: int
    columns: Mapping[str, NDArray[Any]]
    nested: Mapping[str, LeftOut]
    lists: Mapping[str, str] = field(default_factory=dict)
    lines: Sequence[int] = ()
    as_written: bool = False
    path: str = ""
    notes: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """All columns, the nested ones last."""
        return (*self.columns, *self.nested)


def place(tables: Sequence[Table], row: int) -> str:
    """Where a row of the joined tables stands, for messages: "train.csv, row 2 (line 3)"."""
    for table in tables:
        if row < table.n_rows:
            line = f" (line {table.lines[row]})" if table.lines else ""
            return f"{table.name}, row {row + 1}{line}"
        row -= table.n_rows
    raise IndexError(row)


def without_blanks(name: str) -> str:
    """A column's name without the blanks around it, those without width included."""
    return _OUTER_BLANKS.sub("", name)


def clean_names(names: Sequence[str], source: str) -> list[str]:
    """Column names without outer blanks, which can be told apart and stored.

    Raises ``InputError`` for a name that then occurs twice, is empty, or is no valid Unicode text.
    """
    seen: dict[str, str] = {}
    for given in names:
        name = without_blanks(given)
        if name in seen:
            got = (
                f"{name!r} twice" if given == seen[name] else f"{seen[name]!r} and {given!r}, one but for outer blanks"
            )
            raise InputError(source, "every column must have a name of its own", got)
        if not name or not is_clean(name):
            raise InputError(source, "column names are text without NUL or lone surrogates", repr(given))
        seen[name] = given
    return list(seen)


def is_clean(text: str) -> bool:
    """Whether it can be stored and tokenised: no NUL, and no lone surrogate (which UTF-8 can't express)."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in text


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
