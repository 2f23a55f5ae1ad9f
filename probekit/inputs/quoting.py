"""Whether the quotes of a tab-separated file are characters of its fields, or stand around them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

from probekit.inputs.cells import DECIMAL, WHOLE

# A field wholly in quotes, or one without any, and what ends it. (A carriage return alone ends nothing.)
_FIELD = re.compile(r'("(?:[^"]|"")*+"|[^"\t\n]*+)(\t|\r?\n|\r?\Z)')
_NEEDS_QUOTES = re.compile(r'["\t\r\n]')


@dataclass(frozen=True)
class Quoted:
    """A file read as if quotes stood around fields.

    ``rows``: their fields without these quotes; ``in_quotes``: which of them had some; ``lines``: where rows begin.
    """

    rows: list[list[str]]
    in_quotes: list[list[bool]]
    lines: list[int]

    @property
    def fields(self) -> Iterator[tuple[str, bool]]:
        """Every field, and whether it had quotes around it."""
        return zip(chain(*self.rows), chain(*self.in_quotes), strict=True)


def read_quoted(text: str) -> Quoted | None:
    """Read ``text`` so; None if it has a quote that can't be read like that, or rows of several widths."""
    rows: list[list[str]] = [[]]
    in_quotes: list[list[bool]] = [[]]
    lines = [1]
    position, line = 0, 1
    while (found := _FIELD.match(text, position)) is not None:
        field, end = found.groups()
        position = found.end()
        quoted = field.startswith('"')
        rows[-1].append(
            field[1:-1].replace('""', '"') if quoted else field if end == "\t" else field.removesuffix("\r")
        )
        in_quotes[-1].append(quoted)
        line += found[0].count("\n")
        if end != "\t":
            if position == len(text):
                break
            rows.append([])
            in_quotes.append([])
            lines.append(line)
    if found is None:
        return None
    while rows and rows[-1] == [""] and in_quotes[-1] == [False]:  # blank lines at the end
        rows.pop()
        in_quotes.pop()
        lines.pop()
    same_width = len({len(row) for row in rows}) == 1
    return Quoted(rows, in_quotes, lines) if same_width and any(map(any, in_quotes)) else None


def is_quoted(quoted: Quoted, plain: Sequence[Sequence[str]]) -> bool:
    """Whether a file was written in quotes, ``plain`` being the fields of its lines with quotes as characters.

    It was if its lines make no table as they are; if all names in its header are in quotes; or if those fields are in
    quotes that need it, and no others: those with a tab, a line end or a quote, which then is written twice (pandas),
    or also those with a comma (spreadsheets). A text that merely is a quotation, ``"like this"``, needs none, so it
    keeps its quotes. Where a quotation seems to run over several lines, each of which could as well be a row, they are
    rows.
    """
    width = len(quoted.rows[0])
    if any(len(row) != width or row == [""] for row in plain):
        return True
    if all(quoted.in_quotes[0]):
        return True
    return _those_that_need_it(quoted) and not _lines_are_rows(quoted, plain)


def _those_that_need_it(quoted: Quoted) -> bool:
    needing = {field for field, marked in quoted.fields if marked and _NEEDS_QUOTES.search(field)}
    others = {field for field, marked in quoted.fields if marked} - needing
    if len(quoted.rows[0]) == 1:
        others.discard("")  # of one column, an empty field would be a blank line
    if not others:
        return bool(needing)
    commas = not any("," in field for field, marked in quoted.fields if not marked)
    return bool(needing) and commas and all("," in field for field in others)


def _lines_are_rows(quoted: Quoted, plain: Sequence[Sequence[str]]) -> bool:
    """Whether some column without quotes goes on as it is through the lines of what seems to be one field."""
    in_quotes = [field for field, marked in quoted.fields if marked]
    if len(plain[0]) == 1 or any('"' in field for field in in_quotes) or not any("\n" in field for field in in_quotes):
        return False
    columns = zip(zip(*plain, strict=True), zip(*quoted.rows, strict=True), strict=True)
    return any(_goes_on(by_line[1:], set(of_rows[1:])) for by_line, of_rows in columns)


def _goes_on(cells: Sequence[str], known: set[str]) -> bool:
    if any('"' in cell for cell in cells):
        return False
    numbers = all(WHOLE.fullmatch(cell) or DECIMAL.fullmatch(cell) for cell in cells)
    return numbers or set(cells) <= known
