"""Tables become examples: the text and id columns are found, and every row is checked."""

from __future__ import annotations

import difflib
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from probekit.errors import InputError
from probekit.inputs.join import id_texts, join_columns
from probekit.inputs.scalars import dtype_words
from probekit.inputs.table import Table, is_clean, place
from probekit.spec import Examples

TEXT_NAMES = ("text", "sentence", "content", "review", "utterance")
"""Columns taken for the text, in this order, if none is named."""

WORD_NAMES = ("tokens", "words")
"""Columns of lists of text taken for it if none has one of those names."""


def make_examples(
    tables: Sequence[Table], source: str, *, text: str | None, id_column: str | None, blank_texts: bool = False
) -> Examples:
    """Check and join tables; see ``read_examples`` for the rules and the errors."""
    ids_in = id_column
    if ids_in is None and all("id" in table.columns and "id" not in table.lists for table in tables):
        ids_in = "id"
    columns = join_columns(tables, leave_out=ids_in)
    text_column = _find_text(tables, columns, ids_in) if text is None else text
    _check_column(tables, text_column, "the text column must hold text", lists=("text",))
    words = _words(tables, columns, text_column, blank_texts)
    texts = (
        _texts(tables, columns, text_column, blank_texts)
        if words is None
        else [" ".join(sentence) for sentence in words]
    )
    ids = np.array([str(row) for row in range(len(texts))], dtype=np.object_)
    if ids_in is not None:
        ids = _ids(tables, ids_in)
    for name, values in {**columns, text_column: np.array(texts, dtype=np.object_)}.items():
        if values.dtype.kind == "O":
            _check_characters(tables, values, name)
    rest = {name: values for name, values in columns.items() if name != text_column}
    return Examples(source, text_column, texts, ids, {**rest, **_parts(tables)}, words)


def _find_text(tables: Sequence[Table], columns: dict[str, NDArray[Any]], ids_in: str | None) -> str:
    names = [name for name in tables[0].names if name != ids_in]
    lists = {name for table in tables for name in table.lists}
    of_text = {name for table in tables for name, items in table.lists.items() if items == "text"}
    candidates = [(wanted, name) for wanted in TEXT_NAMES for name in names if name not in lists]
    candidates += [(wanted, name) for wanted in WORD_NAMES for name in names if name in of_text]
    for wanted, name in candidates:
        if name.lower() == wanted:
            return name
    strings = [name for name, values in columns.items() if values.dtype.kind == "O" and name not in lists]
    if len(strings) != 1:
        message = f"name the text column with --text; none of them is called {', '.join(TEXT_NAMES)}"
        raise InputError(tables[0].name, message, f"columns {', '.join(names)}")
    return strings[0]


def _words(tables: Sequence[Table], columns: dict[str, NDArray[Any]], name: str, blank: bool) -> list[list[str]] | None:
    """The words of each row if the text column has lists of them."""
    with_words = [table for table in tables if name in table.lists]
    if not with_words or name not in columns:
        return None
    for table in tables:
        if name not in table.lists:
            message = f"lists of words, as {with_words[0].name} has"
            raise InputError(f"{table.name}, column {name!r}", message, dtype_words(table.columns[name]))
    words: list[list[str]] = [json.loads(cell or "[]") for cell in columns[name]]
    for row, sentence in enumerate(words):
        if not sentence and not blank:
            message = "every row must have a list of words"
            raise InputError(f"{place(tables, row)}, column {name!r}", message, columns[name][row] or "none")
        for number, word in enumerate(sentence, 1):
            if not word or word.isspace():
                where = f"{place(tables, row)}, column {name!r}, word {number}"
                raise InputError(where, "a word must not be empty", repr(word))
    return words


def _texts(tables: Sequence[Table], columns: dict[str, NDArray[Any]], name: str, blank: bool) -> list[str]:
    if name not in columns:  # as the id column it was left out
        return list(id_texts(tables, name))
    texts = columns[name]
    if texts.dtype.kind != "O":
        where = f"{tables[0].name}, column {name!r}"
        raise InputError(where, "the text column must hold text", dtype_words(texts))
    if not blank:
        _check_filled(tables, texts, name, "text")
    return list(texts)


def _ids(tables: Sequence[Table], name: str) -> NDArray[np.object_]:
    _check_column(tables, name, "ids must be text or numbers", lists=())
    ids = id_texts(tables, name)
    _check_filled(tables, ids, name, "an id")
    _check_characters(tables, ids, name)
    if len(set(ids)) < len(ids):
        first: dict[str, int] = {}
        for row, text in enumerate(ids):
            if first.setdefault(text, row) != row:
                where = f"{place(tables, row)}, column {name!r}"
                raise InputError(where, "every id must occur once", f"{text!r}, which {place(tables, first[text])} has")
    return ids


def _check_column(tables: Sequence[Table], name: str, allowed: str, *, lists: Sequence[str]) -> None:
    """``allowed``: for messages. ``lists``: what lists in it may hold."""
    for table in tables:
        where = f"{table.name}, column {name!r}"
        if name in table.nested:
            raise InputError(where, allowed, table.nested[name])
        if name in table.lists and table.lists[name] not in lists:
            raise InputError(where, allowed, f"lists of {table.lists[name]}")
        if name not in table.columns:
            lower = {known.lower(): known for known in table.names}
            near = difflib.get_close_matches(name.lower(), lower, n=1)
            hint = f"; did you mean {lower[near[0]]!r}?" if near else ""
            raise InputError(where, f"this {table.kind} has {', '.join(table.names)}{hint}")


def _check_filled(tables: Sequence[Table], values: NDArray[Any], name: str, what: str) -> None:
    for row, value in enumerate(values):
        if not value or value.isspace():
            raise InputError(f"{place(tables, row)}, column {name!r}", f"{what} must not be empty", repr(value))


def _check_characters(tables: Sequence[Table], values: NDArray[Any], name: str) -> None:
    if is_clean("".join(values)):
        return
    row = next((row for row, value in enumerate(values) if not is_clean(value)), 0)
    where = f"{place(tables, row)}, column {name!r}"
    raise InputError(where, "text must have no NUL and no lone surrogate", ascii(values[row]))


def _parts(tables: Sequence[Table]) -> dict[str, NDArray[np.object_]]:
    """Which table each row is from, if there are several and the name is free."""
    free = [name for name in ("split", "source_file") if name not in tables[0].names]
    if len(tables) == 1 or not free:
        return {}
    return {free[0]: np.array([table.part for table in tables for _ in range(table.n_rows)], dtype=np.object_)}
