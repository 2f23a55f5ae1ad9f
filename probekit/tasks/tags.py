"""A column of tags, one per word: checked, and coded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from probekit.errors import InputError
from probekit.metrics.tag_scheme import looks_like_entities, name_types, scheme_of, to_iob2
from probekit.tasks.target import Target, Words, spread
from probekit.tasks.words import ENTITIES, OUTSIDE, TAGS

MOST_TAGS = 500
"""More are words or lemmas, for which a fit would take days."""


def read_tags(
    lists: Sequence[Sequence[Any] | None],
    name: str,
    *,
    words: Sequence[Sequence[str]],
    ids: Sequence[Any] | NDArray[Any],
    unread: NDArray[np.bool_] | None = None,
) -> Target:
    """Code the tags of every sentence, ``lists[i]`` being those of ``words[i]``, None those of a sentence without tags.

    Entity tags may be IOB1, IOB2, BIOES or BILOU and become IOB2; bare ones get the type "entity". ``unread``: as in
    ``Words``; none if not given.

    Raises InputError for a sentence with more or fewer tags than words, an empty tag, and too few or many tags.
    """
    lengths = np.array([len(sentence) for sentence in words])
    tagged = [(row, tags) for row, tags in enumerate(lists) if tags is not None]
    for row, tags in tagged:
        sentence = words[row]
        where = f"example {ids[row]!s}, column {name!r}"
        if len(tags) != len(sentence):
            raise InputError(where, f"a tag for each of its {len(sentence)} words", str(len(tags)))
        if any(tag is None or tag == "" for tag in tags):
            raise InputError(where, "no tag may be empty", str(tags)[:60])
    sequences = [[str(tag) for tag in tags] for _, tags in tagged]
    flat = [tag for tags in sequences for tag in tags]
    task, how, notes = TAGS, "a tag per word", tuple[str, ...]()
    if looks_like_entities(set(flat)):
        sequences = [name_types(tags) for tags in sequences]
        flat = [tag for tags in sequences for tag in tags]
        scheme = scheme_of(sequences)
        converted = [tag for tags in sequences for tag in to_iob2(tags, scheme)]
        n_repaired = sum(a != b for a, b in zip(flat, converted, strict=True)) if scheme == "IOB2" else 0
        if n_repaired:
            notes = (f"{name}: {n_repaired:,} tags began an entity with I- and were read as B-",)
        task, how, flat = ENTITIES, f"a tag per word, {scheme}", converted
    classes, codes = np.unique(np.array(flat, dtype=np.str_), return_inverse=True)
    if len(classes) < 2:
        raise InputError(f"column {name!r}", "at least two tags to tell apart", f"only {str(classes[0])!r}")
    if len(classes) > MOST_TAGS:
        raise InputError(f"column {name!r}", f"at most {MOST_TAGS} different tags", f"{len(classes):,}")
    if task.entities and OUTSIDE not in classes:  # which a word that is not read will be
        classes = np.append(classes, OUTSIDE)  # (O sorts after B- and I-)
    types = np.array([word for sentence in words for word in sentence], dtype=np.object_)
    unread = np.zeros(len(types), dtype=np.bool_) if unread is None else unread
    words_of = Words(lengths, types, unread)
    found = Target(name, task, classes[codes], classes, codes, how, notes=notes, words=words_of)
    sentences = np.array([row for row, _ in tagged])
    return spread(found, sentences, len(lists), rows=found.rows_of(sentences), n_rows=len(types))
