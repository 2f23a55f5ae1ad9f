"""Which part of a data set a file, a folder or a split is: train, validation or test."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import PurePath

from probekit.errors import SpecError
from probekit.inputs.table import Table

PART_NAMES: dict[str, str] = {
    "train": "train",
    "training": "train",
    "dev": "dev",
    "development": "dev",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
    "testing": "test",
}
"""What data sets call their parts, lower case, and how a column "split" has it."""

KNOWN = PART_NAMES | {"unsupervised": "unsupervised", "unlabeled": "unsupervised", "unlabelled": "unsupervised"}
"""And parts that are none of the three; their rows have no label."""

_CAMEL = re.compile(r"(?<=[^\W\d_A-Z])(?=[A-Z])")
_WORD = re.compile(r"[^\W\d_]+")


def part_named(name: str, *, known: Mapping[str, str] = PART_NAMES) -> str | None:
    """The part that one word of ``name`` is, where no other word is another part; else None.

    >>> [part_named(name) for name in ("train-00000-of-00002", "validation_matched", "testset", "train_test", "latest")]
    ['train', 'validation', 'test', None, None]
    """
    words = [word.lower() for word in _WORD.findall(_CAMEL.sub("_", name))]
    stems = [word.removesuffix("set") if word.removesuffix("set") in known else word for word in words]
    found = {known[word] for word in stems if word in known}
    return found.pop() if len(found) == 1 else None


def table_parts(tables: Sequence[Table]) -> list[str]:
    """What a column "split" says of each table's rows.

    If the names of all files or splits say a part, and one says train, it is that; a name that is one already stays as
    it is (``dev``, ``val``). Where they don't, or all files have one name, it is what all their folders say, if these
    lie on one level and differ. Else it is the name of the file without its ending, or of the split.
    """
    own = [table.part for table in tables]
    stems, folders = map(_part, own), [_part(PurePath(table.path).parent.name) for table in tables]
    one_level = len({len(PurePath(table.path).parts) for table in tables}) == 1
    by_folder = one_level and len(set(folders)) > 1
    for found, counts in ((folders, by_folder and len(set(own)) == 1), (list(stems), True), (folders, by_folder)):
        parts = [part for part in found if part is not None]
        if counts and len(parts) == len(tables) and any(part_named(part) == "train" for part in parts):
            return parts
    return own


def _part(name: str) -> str | None:
    return name if name.strip().lower() in KNOWN else part_named(name, known=KNOWN)


def parse_mapping(split: str | Mapping[str, str]) -> dict[str, str] | None:
    """``a=train,b=test`` as a mapping of names to parts; None for names alone.

    Raises ``SpecError`` for a name without a part or twice, and for a part that is none.
    """
    if isinstance(split, str):
        if "=" not in split:
            return None
        pairs = [tuple(piece.strip() for piece in item.rpartition("=")[::2]) for item in split.split(",")]
    else:
        pairs = [(str(name), str(part)) for name, part in split.items()]
    mapping: dict[str, str] = {}
    for name, part in pairs:
        if not name or name in mapping:
            raise SpecError(f"--split {split}", "every file is named once, as in a=train,b=test", repr(name))
        if part.lower() not in KNOWN:
            allowed = ", ".join([*PART_NAMES, "unsupervised"])
            raise SpecError(f"--split {split}", f"a part is one of {allowed}", repr(part))
        mapping[name] = part
    return mapping


def map_parts(tables: Sequence[Table], mapping: Mapping[str, str]) -> tuple[list[Table], list[str]]:
    """The tables that ``mapping`` names and the part of each.

    The keys are files (with or without ending or folder) or splits; splits that none of them names are left out.

    Raises ``SpecError`` for a file that no key names or several do, and for a key that names nothing.
    """
    shown = ",".join(f"{name}={part}" for name, part in mapping.items())
    keys = [[key for key in mapping if key in _names(table)] for table in tables]
    unknown = [key for key in mapping if not any(key in found for found in keys)]
    if unknown:
        known = ", ".join(table.part for table in tables)
        raise SpecError(f"--split {shown}", f"the names here are {known}", ", ".join(unknown))
    for table, found in zip(tables, keys, strict=True):
        if len(found) > 1 or (not found and table.kind != "split"):
            message = f"names the part of each {table.kind} once, as in {table.part}=train"
            raise SpecError(f"--split {shown}", message, f"{' and '.join(found) or 'nothing'} for {table.name}")
    named = [(table, mapping[found[0]]) for table, found in zip(tables, keys, strict=True) if found]
    return [table for table, _ in named], [part for _, part in named]


def _names(table: Table) -> set[str]:
    path = PurePath(table.path)
    return {table.part} | ({path.name, str(path), str(path.with_suffix(""))} if table.path else set())


def short_path(table: Table) -> str:
    """A file with its folder and without its ending; a split's name."""
    return "/".join(PurePath(table.path).with_suffix("").parts[-2:]) if table.path else table.part


def unique_names(tables: Sequence[Table], parts: Sequence[str]) -> list[str]:
    """A name of its own for each table: its part, else its file's name, else that with its folder, else a number."""
    for names in (list(parts), [table.part for table in tables], list(map(short_path, tables))):
        if len(set(names)) == len(names):
            return names
    return [f"{number}:{table.part}" for number, table in enumerate(tables, 1)]
