"""The cells of a CSV or TSV column, which are all text, get the type that all of them share."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from probekit.inputs.columns import exact_numbers

# Neither takes a leading zero: 007 and 01067 (a postcode) are names, not numbers. Nineteen digits can overflow int64,
# which is checked; more than that always do.
WHOLE = re.compile(r"[+-]?(?:0|[1-9][0-9]{0,18})")
DECIMAL = re.compile(
    r"[+-]?(?:(?:(?:0|[1-9][0-9]*)\.[0-9]*|\.[0-9]+)(?:e[+-]?[0-9]+)?|(?:0|[1-9][0-9]*)e[+-]?[0-9]+|inf(?:inity)?|nan)",
    re.IGNORECASE,
)

DECIMAL_COMMA = re.compile(r"[+-]?(?:[0-9]+|[0-9]{1,3}(?:\.[0-9]{3})+),[0-9]+")


def decimal_commas(cells: Iterable[Any]) -> bool:
    """Whether all text in a column is numbers, some of them with a comma where numbers have a point.

    >>> decimal_commas(["0,5", "", "-1.234,56", "3"]), decimal_commas(["1,2,3"]), decimal_commas(["5", "7"])
    (True, False, False)
    """
    found = False
    for cell in cells:
        if not isinstance(cell, str):
            return False
        trimmed = cell.strip()
        comma = bool(DECIMAL_COMMA.fullmatch(trimmed))
        if trimmed and not comma and not WHOLE.fullmatch(trimmed):
            return False
        found = found or comma
    return found


def join_spellings(cells: NDArray[np.object_]) -> tuple[NDArray[np.object_], list[str]]:
    """Cells that are one value but for blanks around it become that value, and a cell of blanks becomes empty.

    ``cells``: (n,) str. Returns them, and the values that had such a spelling. Blanks stay where no two values differ
    by them alone.

    >>> join_spellings(np.array(["pos", "pos ", " x"], dtype=object))
    (array(['pos', 'pos', ' x'], dtype=object), ['pos'])
    """
    distinct = set(cells.tolist())
    spellings: dict[str, set[str]] = {"": {""}}
    for cell in distinct:
        spellings.setdefault(cell.strip(), set()).add(cell)
    several = {value for value, found in spellings.items() if len(found) > 1}
    if not several:
        return cells, []
    joined = [cell.strip() if cell.strip() in several else cell for cell in cells.tolist()]
    return np.array(joined, dtype=np.object_), sorted(several)


def type_cells(cells: NDArray[np.object_]) -> NDArray[Any]:
    """Convert a column of text to what all its cells are.

    ``cells``: (n,) str as in the file. Returns (n,): int64 if every cell is a whole number; float64 if every cell is a
    number, inf, nan or empty (NaN); bool if every cell is true or false in any case, and with gaps among those text in
    one spelling; else ``cells`` unchanged. Blanks around a number don't count. Words that other readers take for a gap
    (NA, null, None) stay words, and so do columns with numbers that would lose leading zeros or digits.

    >>> type_cells(np.array(["1.5", "", "2"], dtype=object))
    array([1.5, nan, 2. ])
    >>> type_cells(np.array(["EU", "NA"], dtype=object)).tolist()
    ['EU', 'NA']
    """
    trimmed = [cell.strip() for cell in cells.tolist()]
    given = [cell for cell in trimmed if cell]
    if not given:
        return cells
    if (lower := {cell.lower() for cell in set(given)}) <= {"true", "false"}:
        if len(given) == len(trimmed):
            return np.array([cell.lower() == "true" for cell in trimmed], dtype=np.bool_)
        if len(set(given)) > len(lower):  # several spellings of one
            return np.array([cell.lower() for cell in trimmed], dtype=np.object_)
    if not all(WHOLE.fullmatch(cell) or DECIMAL.fullmatch(cell) for cell in given):
        return cells
    numbers = exact_numbers([_number(cell) for cell in trimmed])
    return cells if numbers is None else numbers


def _number(cell: str) -> int | float | None:
    if not cell:
        return None
    return int(cell) if WHOLE.fullmatch(cell) else float(cell)
