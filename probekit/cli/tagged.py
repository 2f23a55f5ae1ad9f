"""Tagged texts on a terminal, as CSV and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.text import Text

from probekit.cli.screen import on_terminal, plain, screen, show_csv, show_json
from probekit.spec import Json

if TYPE_CHECKING:
    from probekit.api.predict import TaggedText

COLOURS = ("cyan", "magenta", "green", "yellow", "blue", "red")


def print_tagged(ids: Sequence[str], found: Sequence[TaggedText], *, as_json: bool) -> None:
    """One JSON object per text; or a CSV line per entity (or tagged word), in colours where somebody looks on."""
    if as_json:
        for name, tagged in zip(ids, found, strict=True):
            show_json({"id": name, "text": tagged.text, **_parts(tagged)})
    elif on_terminal() and all(tagged.entities is not None for tagged in found):
        _print_coloured(found)
    else:
        rows: list[list[Any]] = [["id", "start", "end", "tag", "text"]]
        for name, tagged in zip(ids, found, strict=True):
            key, tag = ("words", "tag") if tagged.entities is None else ("entities", "type")
            rows += [[name, part["start"], part["end"], part[tag], part["text"]] for part in _parts(tagged)[key]]
        show_csv(rows)


def _parts(tagged: TaggedText) -> dict[str, list[Json]]:
    """The entities, if tags are of entities, and the words; characters from 0, ``end`` is the one after the last."""
    parts: dict[str, list[Json]] = {}
    if tagged.entities is not None:
        of_text = [(entity.start, entity.end, entity.type) for entity in tagged.entities]
        parts["entities"] = [{"text": tagged.text[a:b], "type": kind, "start": a, "end": b} for a, b, kind in of_text]
    words = zip(tagged.words, tagged.tags, strict=True)
    parts["words"] = [{"text": tagged.text[a:b], "tag": tag, "start": a, "end": b} for (a, b), tag in words]
    return parts


def _print_coloured(found: Sequence[TaggedText]) -> None:
    kinds = sorted({entity.type for tagged in found for entity in tagged.entities or ()})
    colour = {kind: COLOURS[i % len(COLOURS)] for i, kind in enumerate(kinds)}
    console = screen()
    for tagged in found:
        line, at = Text(), 0
        for entity in tagged.entities or ():
            line.append(plain(tagged.text[at : entity.start]))
            line.append(
                plain(f"[{tagged.text[entity.start : entity.end]} {entity.type}]"), style=f"bold {colour[entity.type]}"
            )
            at = entity.end
        console.print(line.append(plain(tagged.text[at:])))
