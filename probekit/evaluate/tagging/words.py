"""The words whose tags are asked for, and where their states come from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from probekit.tasks.decoding import WordStates


@dataclass(frozen=True)
class WordSource:
    """Words and their states.

    ``pooling``: how a word's tokens became one vector. ``words[i]``: of sentence i. ``lost``: (n_words,) whether a word
    has no token, being cut off or unknown to the tokenizer. ``read(layer)`` must be picklable if there is an executor.
    """

    pooling: str
    layers: tuple[int, ...]
    final_norm: frozenset[int]
    words: Sequence[Sequence[str]]
    lost: NDArray[np.bool_]
    read: Callable[[int], WordStates]


@dataclass(frozen=True)
class Tagging:
    """How words are tagged. ``viterbi``: decode whole sentences, so that entity tags follow one another as IOB2 has it.

    ``max_words``: the most training words a probe is fitted on: whole sentences in random order, as far as they go.
    """

    viterbi: bool = False
    max_words: int = 100_000
