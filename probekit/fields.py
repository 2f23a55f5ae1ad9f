"""What a field of JSON may be: files of others are data, not friends.

A field that nothing is known of is let through, so that a later probekit can add one.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from probekit.errors import ProbekitError

MOST_LAYERS = 100_000
MOST_CHARACTERS = 100_000
"""Of a name or a prompt; none is nearly so long."""

_SHOWN = 60
"""Characters of a wrong value that a message shows."""


@dataclass(frozen=True)
class Field:
    """``allowed``: in words, for messages. ``fits``: whether a value (as JSON has it) is that."""

    allowed: str
    fits: Callable[[Any], bool]


def is_text(value: Any) -> bool:
    """Text that is neither empty nor endless."""
    return isinstance(value, str) and 0 < len(value) <= MOST_CHARACTERS


def is_whole(value: Any, low: int, high: int) -> bool:
    """A whole number from ``low`` to ``high``."""
    return type(value) is int and low <= value <= high  # (a bool is an int by isinstance)


def whole(low: int, high: int) -> Field:
    """A whole number."""
    return Field(f"a whole number from {low} to {high}", lambda value: is_whole(value, low, high))


def one_of(*names: str) -> Field:
    """One of some words."""
    return Field(f"one of {', '.join(names)}", lambda value: isinstance(value, str) and value in names)


def nullable(field: Field) -> Field:
    """The same, or null."""
    return Field(f"{field.allowed}, or null", lambda value: value is None or field.fits(value))


def list_of(what: str, fits: Callable[[Any], bool]) -> Field:
    """A list of anything that fits."""
    return Field(f"a list of {what}", lambda value: isinstance(value, list) and all(map(fits, value)))


def _is_ascending(value: Any) -> bool:
    numbers = isinstance(value, list) and bool(value) and all(is_whole(layer, 0, MOST_LAYERS) for layer in value)
    return numbers and all(a < b for a, b in itertools.pairwise(value))


def _is_label(value: Any) -> bool:
    return isinstance(value, str | bool | int) or (isinstance(value, float) and math.isfinite(value))


def _is_hex(text: str) -> bool:
    return len(text) == 64 and set(text) <= set("0123456789abcdef")


TEXT = Field("text", is_text)
TRUTH = Field("true or false", lambda value: isinstance(value, bool))
OBJECT = Field("an object", lambda value: isinstance(value, dict))
DIGEST = Field("64 hexadecimal digits", lambda value: isinstance(value, str) and _is_hex(value))
DTYPE = one_of("float32", "float16", "bfloat16")
LAYERS = Field("a list of whole numbers, ascending", _is_ascending)
LABELS = list_of("texts, numbers and truth values", _is_label)


def check_fields(
    found: Mapping[str, Any], fields: Mapping[str, Field], source: str, error: type[ProbekitError]
) -> None:
    """Raise ``error`` for the first of ``fields`` that is there and can't be so."""
    for name, field in fields.items():
        if name in found and not field.fits(found[name]):
            raise error(f"{source}, field {name!r}", f"must be {field.allowed}", shown(found[name]))


def shown(value: Any) -> str:
    """A value for a message: as JSON has it, and short."""
    text = "null" if value is None else str(value).lower() if isinstance(value, bool) else _repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def _repr(value: Any) -> str:
    """``repr``, but not of all of something huge."""
    if isinstance(value, int) and value.bit_length() > 1_000:
        return f"a number of {value.bit_length()} bits"
    if isinstance(value, list | dict):
        kind = "list" if isinstance(value, list) else "object"
        return f"a {kind} of {len(value)}" if len(value) > 10 else _flat(value, kind)
    return repr(value[: _SHOWN + 1] if isinstance(value, str) else value)


def _flat(value: list[Any] | dict[str, Any], kind: str) -> str:
    parts = value if isinstance(value, list) else [*value, *value.values()]
    return f"a {kind}" if any(isinstance(part, list | dict) for part in parts) else repr(value)
