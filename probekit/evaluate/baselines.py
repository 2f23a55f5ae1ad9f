"""What each score is held against beside the dummy answer: the words of the text alone, or its length."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from probekit.evaluate.config import ProbeConfig
from probekit.evaluate.controls import length_features, word_counts
from probekit.evaluate.fit import Fit, Key, Place
from probekit.evaluate.states import FixedRows, LayerStates, Read
from probekit.probes import PROBES, FittedProbe, Folds, Probe
from probekit.probes.grid_search import fit_once
from probekit.probes.text import fit_text
from probekit.tasks.lookup import LookUp


def text_key(fit: Fit) -> Key:
    """The outcome of the text baseline that ``fit`` is held against: that of its target and split."""
    return fit.key._replace(probe="text", role="text")


def baseline_places(fits: Sequence[Fit], config: ProbeConfig) -> list[Place]:
    """The baselines of ``fits`` as places of their own, with the same rows and folds: one fit each.

    Of texts the TF-IDF of their words, of words their commonest tag; where asked for, the number of tokens.
    """
    real = [fit for fit in fits if fit.role == "probe"]
    found, first = [], {text_key(fit): fit for fit in reversed(real)}
    of_texts = [fit for fit in first.values() if not fit.target.task.of_words]
    if of_texts and config.texts is not None:
        # Counted once for all; for one fit, where it is fitted.
        counts = FixedRows(word_counts(config.texts)) if len(of_texts) > 1 else WordCounts(config.texts)
        found += [_place(counts, _of_score(fit, TEXT, "text")) for fit in reversed(of_texts)]
    for fit in first.values():
        if fit.target.words is not None:
            words = replace(fit.target.words, unread=np.zeros_like(fit.target.words.unread))
            whole = replace(fit, target=replace(fit.target, words=words), train=fit.split.train)
            found.append(_place(FixedRows(words.types), _of_score(whole, LOOK_UP, "text")))
    if config.n_tokens is not None and "length" in config.controls:
        lengths = FixedRows(length_features(config.n_tokens))
        of_texts = [fit for fit in real if not fit.target.task.of_words]
        found += [_place(lengths, _of_score(fit, _of_lengths(fit), "length")) for fit in of_texts]
    return found


def _of_lengths(fit: Fit) -> Probe:
    """The same kind of probe; for one that is made for other features, as the user's own are, the task's default."""
    name = fit.probe.name
    same = name in PROBES and not fit.probe.of_tokens
    return fit.probe if same else replace(PROBES[fit.target.task.probe], name=name)


@dataclass(frozen=True)
class WordCounts:
    """Counts the words of texts when they are needed."""

    texts: Sequence[str]

    def __call__(self, _layer: int, _opened: Mapping[str, LayerStates | None]) -> FixedRows:
        """(n, n_words) by row."""
        return FixedRows(word_counts(self.texts))


def _place(features: Read, fit: Fit) -> Place:
    return Place({fit.features: features}, (fit,))


def _of_score(fit: Fit, probe: Probe, role: str) -> Fit:
    return replace(fit, probe=probe, role=role, parts=("test",), whole=False, control=None, viterbi=False, mdl=False)


def _look_up(X: NDArray[np.object_], y: NDArray[Any], *, folds: Folds, seed: int) -> FittedProbe:  # noqa: ARG001
    return fit_once(LookUp(), X, y)


TEXT = Probe("text", ("classification", "regression"), fit_text)
LOOK_UP = Probe("text", ("classification",), _look_up)
