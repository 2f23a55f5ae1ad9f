"""A column of tags, one per word: checked, and coded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from probekit.errors import InputError
from probekit.metrics import looks_like_entities, name_types, scheme_of, to_iob2
from probekit.tasks import Target, Task, spread

OUTSIDE = "O"

MOST_TAGS = 500
"""More are words or lemmas, for which a fit would take days."""


@dataclass(frozen=True)
class Tags:
    """The tags of all words.

    ``target``: for dividing the sentences; its ``classes`` are the tags, sorted. ``codes``: (n_words,) position of each
    word's tag in them; -1 in sentences without tags, which are in no part. ``lengths``: (n_sentences,) words.
    ``n_repaired``: tags that broke IOB2's rule.
    """

    target: Target
    codes: NDArray[np.int64]
    lengths: NDArray[np.int64]
    n_repaired: int = 0

    @property
    def is_entities(self) -> bool:
        """Whether tags are the beginnings and insides of entities."""
        return self.target.task.kind == "entities"

    @property
    def lost_code(self) -> int:
        """What a word without any token is taken to be: outside of every entity, or no tag at all (-1)."""
        return lost_code(self.target.classes, self.target.task.kind)

    def words_of(self, sentences: NDArray[np.int64]) -> NDArray[np.int64]:
        """Positions of the words of ``sentences``, one sentence after the other."""
        ends = np.cumsum(self.lengths)
        found = [np.arange(ends[i] - self.lengths[i], ends[i]) for i in sentences]
        return np.concatenate(found) if found else np.zeros(0, dtype=np.int64)

    def sequences(self, codes: NDArray[np.int64], sentences: NDArray[np.int64]) -> list[list[str]]:
        """Tag names of the words of ``sentences``, whose ``codes`` stand one sentence after the other."""
        names = self.target.labels(codes).tolist()
        ends = np.cumsum(self.lengths[sentences])
        starts = ends - self.lengths[sentences]
        return [names[start:end] for start, end in zip(starts, ends, strict=True)]


def lost_code(classes: NDArray[Any], task: str) -> int:
    """What a word without any token is taken to be: outside of every entity, or no tag at all (-1)."""
    return int(np.searchsorted(classes, OUTSIDE)) if task == "entities" else -1


def read_tags(
    lists: Sequence[Sequence[Any] | None],
    name: str,
    *,
    words: Sequence[Sequence[str]],
    ids: Sequence[Any] | NDArray[Any],
) -> Tags:
    """Code the tags of every sentence, ``lists[i]`` being those of ``words[i]``, None those of a sentence without tags.

    Entity tags may be IOB1, IOB2, BIOES or BILOU and become IOB2; bare ones get the type "entity".

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
    task, n_repaired = Task("tags", "a tag per word"), 0
    if looks_like_entities(set(flat)):
        sequences = [name_types(tags) for tags in sequences]
        flat = [tag for tags in sequences for tag in tags]
        scheme = scheme_of(sequences)
        converted = [tag for tags in sequences for tag in to_iob2(tags, scheme)]
        n_repaired = sum(a != b for a, b in zip(flat, converted, strict=True)) if scheme == "IOB2" else 0
        task, flat = Task("entities", f"a tag per word, {scheme}"), converted
    classes, codes = np.unique(np.array(flat, dtype=np.str_), return_inverse=True)
    if len(classes) < 2:
        raise InputError(f"column {name!r}", "at least two tags to tell apart", f"only {str(classes[0])!r}")
    if len(classes) > MOST_TAGS:
        raise InputError(f"column {name!r}", f"at most {MOST_TAGS} different tags", f"{len(classes):,}")
    rows = np.array([row for row, _ in tagged])
    target = Target(name, task, np.zeros(len(rows), dtype=np.int64), classes, np.empty(0, dtype=np.int64))
    of_words = np.full(int(lengths.sum()), -1)
    of_words[np.repeat(np.isin(np.arange(len(lists)), rows), lengths)] = codes
    return Tags(spread(target, rows, len(lists)), of_words, lengths, n_repaired)
