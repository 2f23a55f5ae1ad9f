"""Entities found, not tags: counts per sentence and the precision, recall and F1 of their sums.

Entities are read from the tags by seqeval (Nakayama 2018), which follows the CoNLL shared tasks' conlleval script.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from itertools import chain

import numpy as np
from numpy.typing import NDArray
from seqeval.metrics.sequence_labeling import get_entities
from seqeval.scheme import IOB2, Entities

from probekit.errors import InputError
from probekit.metrics.tag_scheme import check_iob2
from probekit.spec import Json

_Spans = frozenset[tuple[str, int, int]]
_CACHED_SENTENCES = 2**15


def entity_counts(
    truth: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]], *, strict: bool
) -> NDArray[np.float64]:
    """Entities (right, predicted, true) of each sentence, (n_sentences, 3); any sum of rows gives the scores below.

    ``truth``, ``predicted``: IOB2 tags of the same sentences; InputError for other tags or other lengths. An entity is
    right if its type and both ends are. ``strict``: only B- begins an entity, so that I- without it is none (seqeval's
    ``mode="strict", scheme=IOB2``); else it begins one (seqeval's default, which is conlleval's reading).
    """
    return np.array(
        [(len(true & found), len(found), len(true)) for true, found in _read_both(truth, predicted, strict)],
        dtype=np.float64,
    ).reshape(-1, 3)


def entity_spans(tags: Sequence[str]) -> list[tuple[str, int, int]]:
    """(type, first word, the one after the last) of the entities in a sentence's IOB2 ``tags``, read strictly.

    >>> entity_spans(["B-person", "I-person", "O", "I-location"])
    [('person', 0, 2)]
    """
    check_iob2(tags)
    return sorted(((kind, a, b + 1) for kind, a, b in _spans(tuple(tags), True)), key=lambda span: span[1])


def entity_precision(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """Right of the predicted, (..., 3) sums of ``entity_counts`` -> (...).

    Like recall and F1: 0 where nothing was predicted or nothing was to be found (seqeval's ``zero_division=0``), but
    NaN where both, as that says nothing about the predictions.
    """
    return _share(sums, sums[..., 0], sums[..., 1])


def entity_recall(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """Right of the true, (..., 3) -> (...)."""
    return _share(sums, sums[..., 0], sums[..., 2])


def entity_f1(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """Harmonic mean of precision and recall (seqeval's ``average="micro"``), (..., 3) -> (...).

    >>> entity_f1(np.array([[1.0, 2.0, 2.0], [0.0, 0.0, 5.0], [0.0, 0.0, 0.0]]))
    array([0.5, 0. , nan])
    """
    return _share(sums, 2 * sums[..., 0], sums[..., 1] + sums[..., 2])


def entity_table(truth: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]], *, strict: bool) -> list[Json]:
    """The scores of every type that occurs on either side, by name; arguments as for ``entity_counts``.

    ``support``: how many the truth has.
    """
    right, found, true = Counter[str](), Counter[str](), Counter[str]()
    for true_spans, found_spans in _read_both(truth, predicted, strict):
        right.update(kind for kind, _, _ in true_spans & found_spans)
        found.update(kind for kind, _, _ in found_spans)
        true.update(kind for kind, _, _ in true_spans)
    table = []
    for kind in sorted(found | true):
        sums = np.array([right[kind], found[kind], true[kind]], dtype=np.float64)
        table.append(
            {
                "class": kind,
                "precision": float(entity_precision(sums)),
                "recall": float(entity_recall(sums)),
                "f1": float(entity_f1(sums)),
                "support": true[kind],
            }
        )
    return table


def _share(
    sums: NDArray[np.float64], numerator: NDArray[np.float64], denominator: NDArray[np.float64]
) -> NDArray[np.float64]:
    nothing = sums[..., 1] + sums[..., 2] == 0
    out = np.where(nothing, np.nan, 0.0)
    return np.asarray(np.divide(numerator, denominator, out=out, where=np.asarray(denominator) > 0))


def _read_both(
    truth: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]], strict: bool
) -> list[tuple[_Spans, _Spans]]:
    if len(truth) != len(predicted):
        raise InputError("predicted", f"as many sentences as the truth has, {len(truth)}", str(len(predicted)))
    for number, (true, found) in enumerate(zip(truth, predicted, strict=True), 1):
        if len(true) != len(found):
            raise InputError(f"predicted, sentence {number}", f"one tag for each of {len(true)} words", str(len(found)))
    # seqeval warns of tags it does not know in one mode and breaks off in the other.
    check_iob2(chain(*truth, *predicted))
    return [
        (_spans(tuple(true), strict), _spans(tuple(found), strict))
        for true, found in zip(truth, predicted, strict=True)
    ]


@lru_cache(_CACHED_SENTENCES)  # every layer has the same truth
def _spans(tags: tuple[str, ...], strict: bool) -> _Spans:
    """The entities of one sentence as (type, first word, last word)."""
    if tags.count("O") == len(tags):
        return frozenset()
    if strict:
        (entities,) = Entities([list(tags)], scheme=IOB2).entities
        return frozenset((entity.tag, entity.start, entity.end - 1) for entity in entities)
    return frozenset(get_entities(list(tags)))
