"""Layer numbers as people write them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Any, Literal

from probekit.arguments import whole
from probekit.errors import SpecError

MOST_NAMED = 6
"""Layers that are named one by one."""

LayerChoice = Literal["all"] | tuple[int | slice, ...]
"""Layers of a model whose depth is not known yet; negative numbers count from its end, as in Python."""


def parse_layers(text: str) -> LayerChoice:
    """Read ``all``, ``0,4,8``, ``0:12:2`` (stop excluded, as in Python) or ``-1``.

    >>> parse_layers("0,4:7,-1")
    (0, slice(4, 7, None), -1)
    """
    if text.strip() == "all":
        return "all"
    parts: list[int | slice] = []
    for part in text.split(","):
        try:
            numbers = [int(number) if number.strip() else None for number in part.split(":")]
        except ValueError:
            numbers = []
        if len(numbers) == 1 and numbers[0] is not None:
            parts.append(numbers[0])
        elif len(numbers) in (2, 3) and numbers[2:] != [0]:
            parts.append(slice(*numbers))
        else:
            raise SpecError("--layers", "all, or numbers and ranges like 0,4,8 or 0:12:2 or -1", repr(text))
    return tuple(parts)


def layer_choice(value: Any) -> LayerChoice:
    """What Python gives: a text as on the command line, a number, or numbers, slices and ranges in a list."""
    if isinstance(value, str):
        return parse_layers(str(value))
    found = list(value) if isinstance(value, Iterable) else [value]
    if not found:
        raise SpecError("layers", "at least one", "none")
    return tuple(part if isinstance(part, slice) else whole(part, "layers") for part in found)


def choose_layers(choice: LayerChoice, n_layers: int) -> tuple[int, ...]:
    """The layers 0..n_layers that are meant, ascending. Raises SpecError for one that is not there, and for none.

    >>> choose_layers((0, slice(4, 7), -1), 12)
    (0, 4, 5, 6, 12)
    """
    every = range(n_layers + 1)
    if choice == "all":
        return tuple(every)
    chosen: set[int] = set()
    for part in choice:
        if isinstance(part, slice):
            chosen.update(every[part])
        elif -len(every) <= part < len(every):
            chosen.add(every[part])
        else:
            raise SpecError(f"--layers {layers_text(choice)}", f"there are layers 0..{n_layers}")
    if not chosen:
        raise SpecError(f"--layers {layers_text(choice)}", f"there are layers 0..{n_layers}", "no layer at all")
    return tuple(sorted(chosen))


def named_layers(layers: Sequence[int]) -> str:
    """In a sentence: one by one, or where there are many as ranges.

    >>> named_layers((1, 4, 5))
    '1, 4 and 5'
    """
    if len(layers) > MOST_NAMED:
        return layer_range(tuple(layers))
    return " and ".join(part for part in (", ".join(map(str, layers[:-1])), str(layers[-1])) if part)


def layers_text(choice: LayerChoice) -> str:
    """A choice as the command line takes it.

    >>> layers_text((0, slice(4, None), slice(0, 12, 2)))
    '0,4:,0:12:2'
    """
    if choice == "all":
        return choice
    return ",".join(str(part) if isinstance(part, int) else _slice_text(part) for part in choice)


def _slice_text(part: slice) -> str:
    ends = [part.start, part.stop, *([] if part.step is None else [part.step])]
    return ":".join("" if end is None else str(end) for end in ends)


def layer_range(layers: Sequence[int]) -> str:
    """Ascending layers for people, three or more in a row shortened.

    >>> layer_range((0, 1, 2)), layer_range((0, 4, 5)), layer_range((1, 3, 4, 5, 6))
    ('0..2', '0, 4, 5', '1, 3..6')
    """
    parts: list[str] = []
    for _, run in groupby(enumerate(layers), key=lambda place: place[1] - place[0]):
        members = [layer for _, layer in run]
        parts += [f"{members[0]}..{members[-1]}"] if len(members) > 2 else map(str, members)
    return ", ".join(parts)
