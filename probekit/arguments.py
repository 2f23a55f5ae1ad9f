"""Python values as arguments: lists, NumPy's scalars and arrays. To check them nothing heavy is loaded."""

from __future__ import annotations

import numbers
from collections.abc import Iterable, Sequence
from typing import Any

from probekit.errors import InputError, SpecError


def names(value: Any, option: str) -> tuple[str, ...]:
    """Names in a list, or in a text with commas; none for None and for an empty text."""
    if value is None or (isinstance(value, str) and not value):
        return ()
    found = value.split(",") if isinstance(value, str) else list(value) if isinstance(value, Iterable) else [value]
    if not all(isinstance(name, str) for name in found):
        raise SpecError(option, "a name, several with commas, or a list of names", repr(value)[:80])
    return tuple(map(str, found))  # (NumPy's texts as Python's)


def whole(value: Any, option: str) -> int:
    """A whole number, NumPy's too."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise SpecError(option, "a whole number", repr(value)[:80])
    return int(value)


def texts_of(value: Any) -> list[str]:
    """The texts of a list, an array or a column; one text is a list of one.

    Raises InputError for what is no text, or holds a NUL character or half of one beyond U+FFFF.
    """
    found = [value] if isinstance(value, str) else list(value) if isinstance(value, Iterable) else None
    if found is None:
        raise InputError("texts", "a text or several", type(value).__name__)
    for i, text in enumerate(found):
        if not isinstance(text, str):
            raise InputError(f"text {i + 1}", "must be text", repr(text)[:80])
        if "\0" in text or any("\ud800" <= c <= "\udfff" for c in text):
            raise InputError(f"text {i + 1}", "must be UTF-8 text without NUL", ascii(text[:40]))
    return list(map(str, found))


def check_counts(targets: Sequence[str], seeds: int, jobs: int | None) -> None:
    """Raise SpecError for what no cache can make right."""
    for option, number in (("--seeds", seeds), ("--jobs", jobs)):
        if number is not None and number < 1:
            raise SpecError(f"{option} {number}", "at least 1")
    if not targets or len(set(targets)) < len(targets) or not all(targets):
        raise SpecError("--target", "column names, comma-separated, none twice", ",".join(targets))
