"""CSV, quoted as in RFC 4180, and TSV, which is quoted only where the whole file shows it."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import PurePath

import numpy as np

from probekit.errors import InputError
from probekit.inputs.plain_text import decode, split_lines
from probekit.inputs.quoting import Quoted, is_quoted, read_quoted
from probekit.inputs.table import Table, clean_names, without_blanks


def read_tsv(data: bytes, name: str) -> Table:
    """Every line is a row and every tab ends a field; quotes are characters like any other.

    But a file that pandas or a spreadsheet wrote, whose fields stand in quotes where they hold tabs, line ends or
    quotes (which are written twice), is read without these quotes; ``is_quoted`` tells the two apart, and a note says
    so.

    Raises ``InputError`` for a row with more or fewer fields than the header, naming its line, and for a bad header.
    """
    text = decode(data, name)
    rows = [line.split("\t") for line in split_lines(text)]
    quoted = read_quoted(text) if '"' in text else None
    if quoted is None:
        return _table(rows, range(1, len(rows) + 1), name)
    if is_quoted(quoted, rows):
        note = f"{name}: {_fields(quoted)} in quotes, as pandas and spreadsheets write them, and read without"
        return _table(quoted.rows, quoted.lines, name, notes=(note,))
    note = f"{name}: {_fields(quoted)} in quotes, which are read as a part of the text"
    return _table(rows, range(1, len(rows) + 1), name, notes=(note,))


def _fields(quoted: Quoted) -> str:
    n = sum(map(sum, quoted.in_quotes))
    return "1 field is" if n == 1 else f"{n:,} fields are"


def read_csv(data: bytes, name: str) -> Table:
    """Commas between fields; a quoted field may hold commas, line ends, and quotes written twice (RFC 4180).

    Raises ``InputError`` for a row with more or fewer fields than the header or a quote that isn't closed, naming the
    line on which the row begins, and for a bad header.
    """
    text = decode(data, name)
    rows: list[list[str]] = []
    lines: list[int] = []
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    begin = 1
    # The csv module refuses fields over 131,072 characters, which a long document has; its limit is global.
    before = csv.field_size_limit()
    csv.field_size_limit(max(before, len(text)))
    try:
        for row in reader:
            rows.append(row)
            lines.append(begin)
            begin = reader.line_num + 1
    except csv.Error as error:
        message = "a field that begins with a quote must end with one, and quotes within it are written twice"
        raise InputError(f"{name}, line {begin}", message, str(error)) from error
    finally:
        csv.field_size_limit(before)
    while rows and not rows[-1]:  # blank lines at the end
        rows.pop()
    return _table(rows, lines[: len(rows)], name)


def _table(rows: list[list[str]], lines: Sequence[int], name: str, *, notes: tuple[str, ...] = ()) -> Table:
    if not rows:
        raise InputError(name, "a header line and at least one row", "an empty file")
    # pandas leaves the name of its index column empty, and reads it back under this one.
    header = [column if without_blanks(column) else f"Unnamed: {position}" for position, column in enumerate(rows[0])]
    if not any(map(without_blanks, rows[0])):
        raise InputError(f"{name}, line {lines[0]}", "a header line with the columns' names", "a blank line")
    if len(header) == 1 and set(header[0]) & set(",;|\t"):
        message = "a .csv file has commas between its fields, a .tsv file tabs"
        raise InputError(f"{name}, line {lines[0]}", message, f"one column {header[0]!r}")
    header = clean_names(header, f"{name}, line {lines[0]}")
    for row, line in zip(rows, lines, strict=True):
        if len(row) != len(header):
            found = "a blank line" if row in ([], [""]) else f"{len(row)}"
            raise InputError(f"{name}, line {line}", f"every row must have the header's {len(header)} fields", found)
    cells = zip(*rows[1:], strict=True) if len(rows) > 1 else ([] for _ in header)
    columns = {column: np.array(values, dtype=np.object_) for column, values in zip(header, cells, strict=True)}
    part = PurePath(name).stem
    return Table(name, part, "file", len(rows) - 1, columns, {}, lines=lines[1:], as_written=True, notes=notes)
