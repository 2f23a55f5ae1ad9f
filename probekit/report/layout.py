"""Tables that fit the terminal: a number is never cut, what does not fit goes to a table below."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

GAP = 2
"""Blanks between columns."""
ASCII = str.maketrans({"→": ">", "²": "2", "–": "-", "±": "~", "…": "~", "│": "|", "█": "#", "▌": "#", "▐": "#"})
"""For terminals that can show nothing else: one character for one, so that columns stay in line."""


@dataclass(frozen=True)
class ByWidth:
    """Something that is drawn for the width there is."""

    draw: Callable[[int], Iterable[RenderableType]]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """The parts one below the other, in plain characters where the terminal has no others."""
        for part in self.draw(options.max_width):
            for text, style, control in console.render(part, options):
                yield Segment(text.translate(ASCII) if options.ascii_only else text, style, control)


@dataclass(frozen=True)
class Cells:
    """A column of a table: numbers, which are never broken, on the right, or names on the left.

    ``fold``: the widest line of a name or a heading; what is longer goes on below.
    """

    heading: str
    cells: Sequence[str | Text]
    justify: Literal["left", "right"] = "right"
    fold: int | None = None

    @property
    def width(self) -> int:
        """Characters that the column takes."""
        heading, widest = cell_len(self.heading), max(cell_len(str(cell)) for cell in self.cells)
        if self.fold is None:
            return max(heading, widest)
        return max(min(heading, self.fold), widest if self.justify == "right" else min(widest, self.fold))


def width_of(columns: Sequence[Cells]) -> int:
    """Characters that a table of ``columns`` takes."""
    return sum(column.width for column in columns) + GAP * (len(columns) - 1)


def one_table(columns: Sequence[Cells], styles: Sequence[str] = ()) -> Table:
    """All columns side by side. ``styles``: of the rows, if any has one."""
    table = Table(box=None, padding=(0, GAP, 0, 0), pad_edge=False)
    for column in columns:
        heading = Text(column.heading)
        table.add_column(heading, justify=column.justify, width=column.width, overflow="fold", no_wrap=not column.fold)
    rows = zip(*(column.cells for column in columns), strict=True)
    for i, row in enumerate(rows):
        cells = [cell if isinstance(cell, Text) else Text(cell) for cell in row]
        table.add_row(*cells, style=styles[i] if styles else None)
    return table


def stacked_tables(
    first: Sequence[Cells], columns: Sequence[Cells], width: int, *, styles: Sequence[str] = ()
) -> Iterator[Table]:
    """As many of ``columns`` beside ``first`` as fit into ``width``, the others in tables below."""
    start = 0
    while start < len(columns):
        stop = start + 1
        while stop < len(columns) and width_of([*first, *columns[start : stop + 1]]) <= width:
            stop += 1
        yield one_table([*first, *columns[start:stop]], styles)
        start = stop
