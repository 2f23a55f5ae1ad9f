"""What is asked of which states."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray
from sklearn.base import BaseEstimator

from probekit.splits import DEFAULT_FRACTION, Column, Split, labelled_part, make_splits
from probekit.tasks import Target

MAX_WORDS = 100_000


@dataclass(frozen=True)
class StateSource:
    """The states of one pooling: ``read(layer)`` gives (n_texts, d_model), or ``States`` whose rows are words.

    It must be picklable if there is an executor. ``read_random``: the same of a model with random weights, or None.
    ``of_tokens``: rows are all tokens of a text, for probes that read these; the others are not fitted on it.
    """

    pooling: str
    layers: tuple[int, ...]
    final_norm: frozenset[int]
    read: Callable[[int], Any]
    read_random: Callable[[int], Any] | None = None
    of_tokens: bool = False


@dataclass(frozen=True)
class ProbeConfig:
    """How states are probed, apart from the target.

    ``ids``: (n,) unique names of the units; ``texts``: n strings for the text baseline, or None. ``probes``: names, or
    scikit-learn estimators of the user's own; empty for the task's own default. ``groups``, ``split``: columns of the
    input. ``fraction``: of the units for the test part (and of the rest for validation) where the input has no split.
    ``controls``: names in ``CONTROLS``. ``n_tokens``: (n,), for the control "length". ``refit``: fit the probes of the
    selected layers once more, on train and validation. For tags of words: ``viterbi``, decode whole sentences, so that
    entity tags follow one another as IOB2 has it; ``max_words``, the most training words a probe is fitted on (whole
    sentences in random order, as far as they go). ``given``: divisions that all targets share, instead of ``split`` and
    ``seeds``.
    """

    ids: NDArray[Any]
    texts: Sequence[str] | None = None
    probes: tuple[str | BaseEstimator, ...] = ()
    groups: Column | None = None
    split: Column | None = None
    fraction: float = DEFAULT_FRACTION
    seeds: tuple[int, ...] = (0,)
    controls: tuple[str, ...] = ()
    n_tokens: NDArray[Any] | None = None
    refit: bool = True
    viterbi: bool = False
    max_words: int = MAX_WORDS
    given: tuple[Split, ...] = ()


def splits_for(target: Target, config: ProbeConfig) -> list[Split]:
    """How the units are divided for one target, once per seed."""
    if config.given:
        return [labelled_part(split, target) for split in config.given]
    return make_splits(
        target,
        ids=config.ids,
        texts=config.texts,
        groups=config.groups,
        split=config.split,
        fraction=config.fraction,
        seeds=config.seeds,
    )
