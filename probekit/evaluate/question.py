"""What is asked, and of which states."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from probekit.splits import DEFAULT_FRACTION, Column, Split, make_splits
from probekit.tasks import Target


@dataclass(frozen=True)
class StateSource:
    """The states of one pooling: ``read(layer)`` gives (n, d_model). It must be picklable if there is an executor.

    ``read_random``: the same of a model with random weights, or None.
    """

    pooling: str
    layers: tuple[int, ...]
    final_norm: frozenset[int]
    read: Callable[[int], NDArray[Any]]
    read_random: Callable[[int], NDArray[Any]] | None = None


@dataclass(frozen=True)
class Question:
    """What is asked of the states, apart from the target.

    ``ids``: (n,) unique row names; ``texts``: n strings for the text baseline, or None. ``probes``: names, or empty for
    logistic or ridge by task. ``groups``, ``split``: columns of the input. ``fraction``: of the rows for the test part
    (and of the rest for validation) where the input has no split. ``controls``: names in ``CONTROLS``. ``n_tokens``:
    (n,), for the control "length". ``refit``: fit the probes of the selected layers once more, on train and validation.
    """

    ids: NDArray[Any]
    texts: Sequence[str] | None = None
    probes: tuple[str, ...] = ()
    groups: Column | None = None
    split: Column | None = None
    fraction: float = DEFAULT_FRACTION
    seeds: tuple[int, ...] = (0,)
    controls: tuple[str, ...] = ()
    n_tokens: NDArray[Any] | None = None
    refit: bool = True


def splits_for(target: Target, question: Question) -> list[Split]:
    """How the rows are divided for one target, once per seed."""
    return make_splits(
        target,
        ids=question.ids,
        texts=question.texts,
        groups=question.groups,
        split=question.split,
        fraction=question.fraction,
        seeds=question.seeds,
    )
