"""How tags of words mark entities: which scheme a data set is in, and all of them as IOB2."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Literal

from probekit.errors import InputError

TagScheme = Literal["IOB1", "IOB2", "BIOES", "BILOU"]

_PREFIXES: dict[TagScheme, str] = {"IOB1": "BI", "IOB2": "BI", "BIOES": "BIESM", "BILOU": "BILU"}
_ENDING = "ELSU"
"""Prefixes of an entity's last word (S and U: its only one)."""

_ENTITY_TAG = re.compile(r"[BIESLUM]-[^-](.*[^-])?")
# (seqeval cuts hyphens off a type's ends, in its strict mode only: two types could become one.)


_LETTERS = frozenset("BIESLUM")

UNNAMED = "entity"
"""The type of entities whose tags are bare letters."""


def looks_like_entities(tags: Iterable[str]) -> bool:
    """Whether all tags are ``O`` or ``<B|I|E|S|L|U|M>-<type>``, and not all of them ``O``; or bare letters.

    Bare letters are entities of one kind if ``O`` is among the tags, and ``B`` or ``I`` (others alone, such as S and O,
    may be subjects and objects).

    >>> looks_like_entities(["O", "B-person", "I-person"]), looks_like_entities(["NOUN", "VERB"])
    (True, False)
    >>> looks_like_entities(["B", "I", "O"])
    True
    """
    distinct = set(tags)
    others = distinct - {"O"}
    if others <= _LETTERS:
        return "O" in distinct and not others.isdisjoint("BI")
    return all(_ENTITY_TAG.fullmatch(tag) for tag in others)


def name_types(tags: Iterable[str]) -> list[str]:
    """Bare letters with the type that they lack, other tags as they are; for what ``looks_like_entities``.

    >>> name_types(["B", "I", "O"]), name_types(["B-person"])
    (['B-entity', 'I-entity', 'O'], ['B-person'])
    """
    return [f"{tag}-{UNNAMED}" if tag in _LETTERS else tag for tag in tags]


def scheme_of(sequences: Sequence[Sequence[str]]) -> TagScheme:
    """The scheme that the tags of all sentences are written in; to be asked of all parts of a data set together.

    E-, S- or M- (BMES) is BIOES, L- or U- is BILOU. Without those it is IOB2 if every entity begins with B- (Tjong Kim
    Sang and Veenstra 1999), else IOB1 if B- stands only between two entities of one type that touch (Ramshaw and
    Marcus 1995; CoNLL-2003 as published). Neither is IOB2 with mistakes: some I- without its B-, which ``to_iob2``
    repairs and which can be counted by comparing what it returns with what it got.

    >>> scheme_of([["I-LOC", "O"]]), scheme_of([["B-LOC", "O"]]), scheme_of([["B-LOC", "O", "I-LOC"]])
    ('IOB1', 'IOB2', 'IOB2')
    """
    pairs = {pair for tags in sequences for pair in zip(["O", *tags], tags, strict=False)}
    prefixes = {tag[:1] for _, tag in pairs}
    if prefixes & set("ESM"):
        return "BIOES"
    if prefixes & set("LU"):
        return "BILOU"
    b_only_between = all(before[1:] == tag[1:] for before, tag in pairs if tag[:1] == "B")
    return "IOB1" if "I" in prefixes and b_only_between else "IOB2"


def to_iob2(tags: Sequence[str], scheme: TagScheme) -> list[str]:
    """The same entities in IOB2: B- on the first word of each, I- on its others.

    ``tags``: (n_words,) of one sentence, in ``scheme``. Ill-formed tags are read as the CoNLL shared tasks' conlleval
    reads them: any tag opens an entity where none of its type is open. Well-formed IOB2 comes back unchanged.

    >>> to_iob2(["I-PER", "I-PER", "B-PER", "I-LOC"], "IOB1")
    ['B-PER', 'I-PER', 'B-PER', 'B-LOC']
    >>> to_iob2(["S-PER", "O", "B-LOC", "E-LOC"], "BIOES")
    ['B-PER', 'O', 'B-LOC', 'I-LOC']
    """
    converted = []
    opened = ""  # the type of the entity that the word before left open
    for tag in tags:
        if tag == "O":
            converted.append(tag)
            opened = ""
            continue
        prefix, kind = tag[:1], tag[2:]
        if not _ENTITY_TAG.fullmatch(tag) or prefix not in _PREFIXES[scheme]:
            allowed = ", ".join(f"{letter}-<type>" for letter in _PREFIXES[scheme])
            raise InputError("tags", f"a tag in {scheme} is one of O, {allowed}", repr(str(tag)))
        begins = prefix in "BSU" or kind != opened
        converted.append(f"{'B' if begins else 'I'}-{kind}")
        opened = "" if prefix in _ENDING else kind
    return converted


def check_iob2(tags: Iterable[str]) -> None:
    """InputError unless every tag is ``O``, ``B-<type>`` or ``I-<type>``; their order is not looked at."""
    for tag in sorted(set(tags)):
        to_iob2([tag], "IOB2")
