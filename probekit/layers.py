"""Layer numbers as people write them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from probekit.errors import SpecError


def parse_layers(text: str, n_layers: int) -> tuple[int, ...]:
    """Read ``all``, ``0,4,8``, ``0:12:2`` (stop excluded, as in Python) or ``-1`` into layer indices 0..n_layers.

    >>> parse_layers("0,4:7,-1", 12)
    (0, 4, 5, 6, 12)
    """
    every = range(n_layers + 1)
    if text.strip() == "all":
        return tuple(every)
    chosen: set[int] = set()
    for part in text.split(","):
        try:
            numbers = [int(number) if number.strip() else None for number in part.split(":")]
            if len(numbers) == 1 and numbers[0] is not None:
                chosen.add(every[numbers[0]])
            elif len(numbers) in (2, 3):
                chosen.update(every[slice(*numbers)])
            else:
                raise ValueError(part)
        except ValueError as error:
            raise SpecError("--layers", "all, or numbers and ranges like 0,4,8 or 0:12:2 or -1", repr(text)) from error
        except IndexError as error:
            raise SpecError(f"--layers {text}", f"there are layers 0..{n_layers}") from error
    if not chosen:
        raise SpecError(f"--layers {text}", f"there are layers 0..{n_layers}", "no layer at all")
    return tuple(sorted(chosen))


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
