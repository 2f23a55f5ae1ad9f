"""Tables become examples: the text and id columns are found, and every row is checked."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from probekit.errors import InputError, SpecError
from probekit.inputs.cells import decimal_commas, join_spellings
from probekit.inputs.columns import dtype_words
from probekit.inputs.parts import KNOWN, map_parts, short_path, table_parts, unique_names
from probekit.inputs.table import Table, id_texts, is_clean, join_columns, place, without_blanks
from probekit.spec import Examples

TEXT_NAMES = ("text", "sentence", "content", "review", "utterance")
"""Columns taken for the text, in this order, if none is named."""

WORD_NAMES = ("tokens", "words")
"""Columns of lists of text taken for it if none has one of those names."""

NUMBERED = ("none", "")
"""Given for the id column: rows are numbered."""

OTHER_IDS = "--id can name another column, and --id none numbers the rows"


def make_examples(
    tables: Sequence[Table],
    source: str,
    *,
    text: str | None,
    id_column: str | None,
    mapping: Mapping[str, str] | None = None,
    blank_texts: bool = False,
) -> Examples:
    """Check and join tables; see ``read_examples`` for the rules and the errors. ``mapping``: names to parts."""
    named = table_parts(tables)
    if mapping is not None:
        tables, named = map_parts(tables, mapping)
    ids_in = _find_ids(tables, id_column)
    columns = join_columns(tables, leave_out=ids_in)
    text_column = _find_text(tables, columns, ids_in) if text is None else without_blanks(text)
    _check_column(tables, text_column, "the text column must hold text", lists=("text",))
    words = _words(tables, columns, text_column, blank_texts)
    texts = _texts(tables, columns, text_column, blank_texts) if words is None else list(map(" ".join, words))
    ids = np.array([str(row) for row in range(len(texts))], dtype=np.object_)
    notes = [note for table in tables for note in table.notes]
    if ids_in is not None:
        ids, more = _ids(tables, ids_in, unique_names(tables, named))
        notes += more
    for name, values in {**columns, text_column: np.array(texts, dtype=np.object_)}.items():
        if values.dtype.kind == "O":
            _check_characters(tables, values, name)
    rest = {name: values for name, values in columns.items() if name != text_column}
    if all(table.as_written for table in tables):
        notes += _join_spellings(rest)
    parts, more = _parts(tables, named, mapped=mapping is not None)
    notes += [*more, *_left_out(tables), *_hints(tables, rest, text_column, words=words is not None)]
    return Examples(source, text_column, texts, ids, {**rest, **parts}, words, tuple(notes))


def _find_ids(tables: Sequence[Table], id_column: str | None) -> str | None:
    """The column with ids, None for none."""
    if id_column is None:
        found = all("id" in table.columns and "id" not in table.lists for table in tables)
        return "id" if found else None
    if id_column in NUMBERED and not any(id_column in table.names for table in tables):
        return None
    return without_blanks(id_column)


def _join_spellings(columns: dict[str, NDArray[Any]]) -> list[str]:
    """Join, in place, what differs by outer blanks alone; sentences that say so."""
    notes = []
    for name, values in columns.items():
        if values.dtype.kind != "O":
            continue
        columns[name], joined = join_spellings(values)
        if joined:
            shown = ", ".join(repr(value) for value in joined[:3]) + (", …" if len(joined) > 3 else "")
            notes.append(f"column {name!r}: blanks around {shown} don't count")
    return notes


def _left_out(tables: Sequence[Table]) -> list[str]:
    """Sentences that name the columns that can't be kept, and why."""
    first = {name: table for table in reversed(tables) for name in table.nested}
    notes = []
    for name in [name for name in tables[0].names if name in first]:
        table, (what, row) = first[name], first[name].nested[name]
        file = f"{table.name}, " if len(tables) > 1 else ""
        where = f"{file}row {row} has {what}" if row else f"{file}it holds {what}"
        notes.append(f"column {name!r} is left out: {where}")
    return notes


def _hints(tables: Sequence[Table], columns: Mapping[str, NDArray[Any]], text: str, *, words: bool) -> list[str]:
    """What else could be meant: numbers with commas, words beside the text."""
    notes = []
    lists = {name for table in tables for name in table.lists}
    for name, values in columns.items():
        if values.dtype.kind == "O" and name not in lists and decimal_commas(values):
            example = next(value for value in values if "," in value)
            notes.append(f"column {name!r} is read as text: numbers have a point, not a comma as in {example!r}")
    if words:
        return notes
    for name in [name for name in columns if name.lower() in WORD_NAMES and name in lists]:
        lengths = list(map(_length, columns[name]))
        tags = [other for other in lists - {name} if other in columns and list(map(_length, columns[other])) == lengths]
        if tags:
            shown = " and ".join(repr(tag) for tag in sorted(tags))
            notes.append(f"column {name!r} has words: with --text {name} in place of {text}, {shown} can be probed")
    return notes


def _length(cell: str) -> int:
    return len(json.loads(cell or "[]"))


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


def _ids(tables: Sequence[Table], name: str, prefixes: Sequence[str]) -> tuple[NDArray[np.object_], list[str]]:
    """The ids of all rows, and a sentence that says so if the tables' names had to be set before them."""
    _check_column(tables, name, "ids must be text or numbers", lists=())
    ids = id_texts(tables, name)
    _check_filled(tables, ids, name, "an id", OTHER_IDS)
    _check_characters(tables, ids, name)
    if len(set(ids)) == len(ids):
        return ids, []
    first: dict[tuple[int, str], int] = {}
    table_of = [number for number, table in enumerate(tables) for _ in range(table.n_rows)]
    for row, key in enumerate(zip(table_of, ids.tolist(), strict=True)):
        if first.setdefault(key, row) != row:
            where = f"{place(tables, row)}, column {name!r}"
            allowed = f"every id must occur once ({OTHER_IDS})"
            raise InputError(where, allowed, f"{key[1]!r}, which {place(tables, first[key])} has")
    made = [f"{prefixes[number]}/{text}" for number, text in zip(table_of, ids.tolist(), strict=True)]
    example = f"{made[0]!r}, {made[table_of.index(1)]!r}"
    note = f"ids of column {name!r} occur in more than one {tables[0].kind} and have its name before them: {example}, …"
    return np.array(made, dtype=np.object_), [note]


def _check_column(tables: Sequence[Table], name: str, allowed: str, *, lists: Sequence[str]) -> None:
    """``allowed``: for messages. ``lists``: what lists in it may hold."""
    for table in tables:
        where = f"{table.name}, column {name!r}"
        if name in table.nested:
            raise InputError(where, allowed, table.nested[name].what)
        if name in table.lists and table.lists[name] not in lists:
            raise InputError(where, allowed, f"lists of {table.lists[name]}")
        if name not in table.columns:
            lower = {known.lower(): known for known in table.names}
            near = difflib.get_close_matches(name.lower(), lower, n=1)
            hint = f"; did you mean {lower[near[0]]!r}?" if near else ""
            raise InputError(where, f"this {table.kind} has {', '.join(table.names)}{hint}")


def _check_filled(tables: Sequence[Table], values: NDArray[Any], name: str, what: str, hint: str = "") -> None:
    for row, value in enumerate(values):
        if not value or value.isspace():
            allowed = f"{what} must not be empty" + (f" ({hint})" if hint else "")
            raise InputError(f"{place(tables, row)}, column {name!r}", allowed, repr(value))


def _check_characters(tables: Sequence[Table], values: NDArray[Any], name: str) -> None:
    if is_clean("".join(values)):
        return
    row = next((row for row, value in enumerate(values) if not is_clean(value)), 0)
    where = f"{place(tables, row)}, column {name!r}"
    raise InputError(where, "text must have no NUL and no lone surrogate", ascii(values[row]))


def _parts(
    tables: Sequence[Table], named: Sequence[str], *, mapped: bool
) -> tuple[dict[str, NDArray[np.object_]], list[str]]:
    """Which part each row is from, if there are several tables and the name is free, and what to say of it.

    ``named``: the part of each table. ``mapped``: whether the user gave them.
    """
    own = [table.part for table in tables]
    if "split" in tables[0].names:
        if mapped:
            raise SpecError("--split", "names parts where the data name none", "data with a column 'split'")
        several = len(tables) > 1 and "source_file" not in tables[0].names
        return ({"source_file": _repeat(tables, own)} if several else {}), []
    if len(tables) == 1 and not mapped:
        return {}, []
    columns = {"split": _repeat(tables, named)}
    if len(set(named)) < len(set(own)) and "source_file" not in tables[0].names:
        columns["source_file"] = _repeat(tables, own)
    unknown = [part for part in dict.fromkeys(named) if part.strip().lower() not in KNOWN]
    if unknown:
        shown = ", ".join(repr(part) for part in unknown[:5]) + (", …" if len(unknown) > 5 else "")
        return columns, [
            f"column 'split' has {shown}, no name of a part (train, dev, test): say which part is which "
            f"(--split {unknown[0]}=train,…), or probe with --split 0.2"
        ]
    if mapped or list(named) == own:
        return columns, []
    pairs = ", ".join(f"{part} ({short_path(table)})" for table, part in zip(tables[:5], named, strict=False))
    return columns, [f"column 'split' has the parts that the names say: {pairs}{', …' if len(tables) > 5 else ''}"]


def _repeat(tables: Sequence[Table], values: Sequence[str]) -> NDArray[np.object_]:
    pairs = zip(tables, values, strict=True)
    return np.array([value for table, value in pairs for _ in range(table.n_rows)], dtype=np.object_)
