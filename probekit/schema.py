"""What every field of a cache's spec and of a probe's card may be: files of others are data, not friends.

A field that is not in a table is let through, so that a later probekit can add one.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from probekit.errors import ProbekitError
from probekit.spec import OF_WORDS, PLACE, POOL_OVER, POOLING_NAMES, SIDES, SITES, Json

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


def _is_whole(value: Any, low: int, high: int) -> bool:
    return type(value) is int and low <= value <= high  # (a bool is an int by isinstance)


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value) <= MOST_CHARACTERS


def _whole(low: int, high: int) -> Field:
    return Field(f"a whole number from {low} to {high}", lambda value: _is_whole(value, low, high))


def _one_of(*names: str) -> Field:
    return Field(f"one of {', '.join(names)}", lambda value: isinstance(value, str) and value in names)


def _nullable(field: Field) -> Field:
    return Field(f"{field.allowed}, or null", lambda value: value is None or field.fits(value))


def _list(what: str, fits: Callable[[Any], bool]) -> Field:
    return Field(f"a list of {what}", lambda value: isinstance(value, list) and all(map(fits, value)))


def _is_ascending(value: Any) -> bool:
    whole = isinstance(value, list) and bool(value) and all(_is_whole(layer, 0, MOST_LAYERS) for layer in value)
    return whole and all(a < b for a, b in itertools.pairwise(value))


def _is_label(value: Any) -> bool:
    return isinstance(value, str | bool | int) or (isinstance(value, float) and math.isfinite(value))


TEXT = Field("text", _is_text)
TRUTH = Field("true or false", lambda value: isinstance(value, bool))
OBJECT = Field("an object", lambda value: isinstance(value, dict))
DIGEST = Field("64 hexadecimal digits", lambda value: isinstance(value, str) and _is_hex(value))
DTYPE = _one_of("float32", "float16", "bfloat16")


def _is_hex(text: str) -> bool:
    return len(text) == 64 and set(text) <= set("0123456789abcdef")


SPEC: Mapping[str, Field] = {
    "format_version": _whole(1, 1_000),
    "model": TEXT,
    "revision": TEXT,
    "tokenizer": TEXT,
    "texts": DIGEST,
    "columns": DIGEST,
    "store_dtype": DTYPE,
    "store_text": TRUTH,
    "tokens": _nullable(DTYPE),
    "prompt": _nullable(Field(f"text with {PLACE} in it exactly once", lambda v: _is_text(v) and v.count(PLACE) == 1)),
    "chat_template": TRUTH,
    "pool_over": _one_of(*POOL_OVER),
    "side": _one_of(*SIDES),
    "site": _one_of(*SITES),
    "random_seed": _nullable(_whole(-(2**63), 2**64 - 1)),
    "quantize": _nullable(_one_of("8bit", "4bit")),
    "dtype": DTYPE,
    "n_layers": _whole(0, MOST_LAYERS),
    "layers": Field("a list of whole numbers, ascending", _is_ascending),
    "poolings": _list(f"{', '.join(POOLING_NAMES)}", lambda name: name in POOLING_NAMES),
    "max_length": _nullable(_whole(1, 2**31)),
    "device": TEXT,
    "batching": _one_of("packed", "padded", "single"),
    "batch_tokens": _whole(1, 2**31),
    "stride": _nullable(_whole(0, 2**31)),
    "words": _nullable(Field("the name of a column", lambda value: isinstance(value, str))),
    "rendered": Field(
        "a list of two texts",
        lambda value: isinstance(value, list) and len(value) == 2 and all(isinstance(part, str) for part in value),
    ),
    "rendered_trim": _one_of("both", "left", "right"),
    "last_layer": _one_of("raw", "both", "normed"),
}
"""The spec of a cache."""

READ = (
    *("model", "revision", "tokenizer", "max_length", "dtype", "batch_tokens", "store_dtype"),
    *("prompt", "chat_template", "pool_over", "side", "site", "random_seed", "quantize", "tokens"),
)
"""What of a cache's spec reading another text in the same way needs."""

READ_IF_ASKED = ("stride", "rendered", "rendered_trim", "last_layer")
"""The same, of fields that are only there where they were asked for."""

MADE = (*READ, "store_text", "n_layers", "layers", "poolings", "device")
"""What every cache that ``extract`` made says."""

CARD: Mapping[str, Field] = {
    "format_version": _whole(1, 1),
    "target": TEXT,
    "task": _one_of("classification", "regression", "multilabel", *OF_WORDS),
    "probe": TEXT,
    "pooling": _one_of(*POOLING_NAMES),
    "layer": _whole(0, MOST_LAYERS),
    "labels": _list("texts, numbers and truth values", _is_label),
    "viterbi": TRUTH,
    "fitted_on": _one_of("train", "train + validation"),
    "n_fitted": _whole(1, 2**63),
    "cache": OBJECT,
    "scores": OBJECT,
    "sha256": DIGEST,
}
"""The card of a saved probe; its ``cache`` holds fields of ``SPEC``."""

CARD_NEEDS = ("task", "pooling", "layer", "labels", "viterbi", "cache")
"""What a prediction takes from it."""


def check_spec(spec: Json, source: str, *, error: type[ProbekitError]) -> None:
    """Raise ``error`` for the first field that no spec of a cache can have."""
    _check_fields(spec, SPEC, source, error)
    deepest = spec.get("layers", [0])[-1]
    last = spec.get("n_layers", deepest) + (spec.get("last_layer") == "both")
    if deepest > last:
        raise error(f"{source}, field 'layers'", f"must be of {last} layers", str(deepest))


def check_made(spec: Json, source: str, *, error: type[ProbekitError]) -> None:
    """Raise ``error`` where ``spec`` lacks something that every extraction says."""
    missing = [name for name in MADE if name not in spec]
    if missing:
        raise error(source, "must say what it was made from", f"no {', '.join(missing)}")


def check_card(card: Json, source: str, *, error: type[ProbekitError]) -> None:
    """Raise ``error`` for the first field that no card of a probe can have."""
    _check_fields(card, CARD, source, error)
    check_spec(card.get("cache", {}), f"{source}, cache", error=error)


def check_usable(card: Json, source: str, *, error: type[ProbekitError]) -> None:
    """Raise ``error`` where a card that was checked lacks something that a prediction needs."""
    cache = card.get("cache", {})
    missing = [name for name in CARD_NEEDS if name not in card] + [name for name in READ if name not in cache]
    needed = ["max_length"] + (["tokens"] if card.get("task") in OF_WORDS else [])
    missing += [name for name in needed if cache.get(name, "") is None]
    if missing:
        raise error(source, "must say what the probe was fitted on", f"no {', '.join(missing)}")


def _check_fields(found: Json, fields: Mapping[str, Field], source: str, error: type[ProbekitError]) -> None:
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
