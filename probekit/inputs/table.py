"""The rows of one file or one split, before they are checked and joined to examples."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from numpy.typing import NDArray

from probekit.errors import InputError

# str.strip() leaves the two that stand for nothing: a byte order mark and a blank without width.
_OUTER_BLANKS = re.compile(r"^[\s\ufeff\u200b]+|[\s\ufeff\u200b]+$")


class LeftOut(NamedTuple):
    """Why a column can't be kept: ``what`` it has, and the first ``row`` (from 1) that has it, 0 where all have."""

    what: str
    row: int = 0


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
