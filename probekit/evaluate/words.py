"""The words of a cache, their tags, and where their states are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.sparse import csr_matrix

from probekit.errors import SpecError
from probekit.evaluate.config import StateSource
from probekit.store import Cache, WordStates, word_matrix
from probekit.tasks import Target
from probekit.tasks.label_sets import parse_lists
from probekit.tasks.read import is_missing
from probekit.tasks.tags import read_tags


@dataclass(frozen=True)
class WordReader:
    """Reads one layer by word; picklable, so that a worker reads it and nothing is sent."""

    cache: Cache
    matrix: csr_matrix

    def __call__(self, layer: int) -> WordStates:
        """The states of ``layer``."""
        return WordStates(self.cache.token_rows(layer), self.matrix)


def has_tags(cache: Cache, column: str, task: str) -> bool:
    """Whether a column holds a tag for each word: lists, where the data came as words (and no other task is asked)."""
    return cache.words is not None and task == "auto" and _tag_lists(cache, column) is not None


def word_target_and_source(
    cache: Cache, columns: list[str], layers: tuple[int, ...], subword: str
) -> tuple[list[Target], StateSource]:
    """The tags in ``columns``, for which ``has_tags`` holds, and the states of words.

    ``subword``: how the states of a word's tokens become one vector. Raises SpecError if the cache has no token states.
    """
    words = cache.words or []
    if cache.spec.get("tokens") is None:
        message = "tags of words need the states of every token: extract with --tokens"
        raise SpecError(f"cache {cache.path.name}", message, "pooled states only")
    matrix = word_matrix(cache.tokens(layers[0]), [len(sentence) for sentence in words], subword)
    unread = np.diff(matrix.indptr) == 0
    targets = [
        read_tags(_tag_lists(cache, column) or [], column, words=words, ids=cache.ids, unread=unread)
        for column in columns
    ]
    return targets, StateSource(subword, layers, cache.final_norm, WordReader(cache, matrix))


def _tag_lists(cache: Cache, column: str) -> list[list[Any] | None] | None:
    """The lists in a column, None for a sentence without one; None if there are none, or other things than lists."""
    cells = cache.column(column)
    there = ~is_missing(cells)
    given = parse_lists(cells[there])
    if given is None:
        return None
    of_rows = iter(given)
    return [next(of_rows) if has else None for has in there.tolist()]
