"""The rows of one file or one split, before they are checked and joined to examples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from numpy.typing import NDArray

from probekit.errors import InputError


@dataclass(frozen=True)
class Table:
    """The rows of one file, or of one split of a dataset.

    ``name``: what messages call it. ``part``: what a column "split" says of its rows. ``columns``: (n_rows,) each, of
    the dtypes of ``Examples.columns``; where ``as_written`` they are all still str, as the file has them.
    ``nested``: columns that are neither scalars nor flat lists, with their type for messages. ``lists``: those of
    ``columns`` that are lists as JSON text ("" for a missing one), with what they hold: "text", "true/false" or
    "numbers". ``lines``: (n_rows,) the line of the file on which each row begins; empty where that is the row's own
    number, or where there are no lines.
    """

    name: str
    part: str
    kind: Literal["file", "split"]
    n_rows: int
    columns: Mapping[str, NDArray[Any]]
    nested: Mapping[str, str]
    lists: Mapping[str, str] = field(default_factory=dict)
    lines: Sequence[int] = ()
    as_written: bool = False

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


def check_names(names: Sequence[str], source: str) -> None:
    """Column names can be told apart and stored.

    Raises ``InputError`` for a name that occurs twice, is empty, or is no valid Unicode text.
    """
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise InputError(source, "every column must have a name of its own", f"{name!r} twice")
        if not name or not is_clean(name):
            raise InputError(source, "column names are text without NUL or lone surrogates", repr(name))
        seen.add(name)


def is_clean(text: str) -> bool:
    """Whether it can be stored and tokenised: no NUL, and no lone surrogate (which UTF-8 can't express)."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in text
