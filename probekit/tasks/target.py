"""The labels of a column as probes, splits and metrics need them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from probekit.errors import SpecError
from probekit.tasks.label_sets import label_lists
from probekit.tasks.spelling import alike
from probekit.tasks.task import Codes, Task, Units

MOST_SHOWN = 5
"""Classes that a message names."""


@dataclass(frozen=True)
class Words:
    """The words of all sentences, one after the other: the rows of a target of tags.

    ``lengths``: (n_sentences,) words. ``types``: (n_words,) as written; objects, since one long word would make
    fixed-width text of all of them huge. ``unread``: (n_words,) whether a word has no sub-tokens, being cut off or
    unknown to the tokenizer.
    """

    lengths: NDArray[np.int64]
    types: NDArray[np.object_]
    unread: NDArray[np.bool_]


@dataclass(frozen=True)
class Target:
    """The labels of n units (texts, or sentences whose words have tags), of which some may have none.

    ``y``: what probes are fitted on, by row: numbers (float64), class labels as they came (str, int64 or bool), or, for
    several labels per row, (n_rows, n_classes) 0 or 1. ``classes``: (n_classes,) sorted labels; empty for numbers.
    ``codes``: (n_rows,) int64 position of each label in ``classes``, where there is one per row, else empty.
    ``how``: how the column was read, one phrase. ``otherwise``: the task that whole numbers might have been meant for
    instead; "" where nothing was guessed from whole numbers. ``labelled``: ascending positions of the units that have a
    label, or None where all have; what ``y`` and ``codes`` hold of others means nothing, and no split has them.
    ``n_missing``: units without a label; ``n_rare``: those whose class was left out as too rare. ``notes``: what a
    careful reader must know of the labels, one sentence each. ``words``: where rows are words; None where they are the
    units.
    """

    name: str
    task: Task
    y: NDArray[Any]
    classes: NDArray[Any]
    codes: NDArray[np.int64]
    how: str = ""
    otherwise: str = ""
    labelled: NDArray[np.int64] | None = None
    n_missing: int = 0
    n_rare: int = 0
    notes: tuple[str, ...] = ()
    words: Words | None = None

    def __len__(self) -> int:
        return len(self.y if self.words is None else self.words.lengths)

    @property
    def units(self) -> Units:
        """(n_labelled,) ascending positions of the units that have a label."""
        return np.arange(len(self)) if self.labelled is None else self.labelled

    @property
    def of_words(self) -> Words:
        """``words`` of a target that has them."""
        if self.words is None:
            raise TypeError(f"{self.name} is of whole texts")
        return self.words

    @property
    def strata(self) -> NDArray[np.int64]:
        """(n,) class codes of the units; zeros where parts are not stratified."""
        return self.codes if self.task.stratified else np.zeros(len(self), dtype=np.int64)

    @property
    def truth(self) -> Codes:
        """(n_rows, ...) what metrics compare with: class codes, numbers, or 0 and 1 by class."""
        return self.codes if len(self.codes) else self.y

    @property
    def unread_code(self) -> int:
        """What a word without sub-tokens is taken to be."""
        return 0 if self.task.unread_code is None else self.task.unread_code(self.classes)

    def rows_of(self, units: Units) -> NDArray[np.int64]:
        """Positions of the rows of ``units``, one unit after the other: themselves, or the words of sentences."""
        if self.words is None:
            return units
        ends = np.cumsum(self.words.lengths)
        found = [np.arange(ends[i] - self.words.lengths[i], ends[i]) for i in units]
        return np.concatenate(found) if found else np.zeros(0, dtype=np.int64)

    def readable(self, units: Units) -> NDArray[np.int64]:
        """The rows of ``units`` that have a state: all but words without sub-tokens."""
        rows = self.rows_of(units)
        return rows if self.words is None else rows[~self.words.unread[rows]]

    def coded(self, labels: NDArray[Any]) -> Codes:
        """Class labels as positions in ``classes``; numbers, and 0 and 1, as they are."""
        return np.searchsorted(self.classes, labels).astype(np.int64) if len(self.codes) else labels

    def labels(self, codes: Codes) -> NDArray[Any]:
        """Answers as labels, (n,): names of class codes (-1: ""), lists of names of 0 and 1, or numbers."""
        if self.task.several:
            return label_lists(codes, self.classes)
        if not len(self.classes):
            return codes
        labels, unknown = self.classes[codes], codes < 0
        # (Of tags alone, which are text; labels that are numbers or true/false stay so.)
        return np.where(unknown, "", labels) if unknown.any() else labels

    def sequences(self, codes: NDArray[np.int64], units: Units) -> list[list[str]]:
        """Tag names of the words of the sentences ``units``, whose ``codes`` stand one sentence after the other."""
        names, lengths = self.labels(codes).tolist(), self.of_words.lengths[units]
        ends = np.cumsum(lengths)
        return [names[start:end] for start, end in zip(ends - lengths, ends, strict=True)]

    def members(self, units: Units) -> list[NDArray[np.bool_]]:
        """Who of ``units`` has each class or label, (n_units,) for each of them; all of them, for numbers."""
        if not len(self.classes):
            return [np.ones(len(units), dtype=np.bool_)]
        if self.task.several:
            return [column == 1 for column in self.y[units].T]
        return [self.codes[units] == code for code in range(len(self.classes))]


def spread(
    target: Target, units: Units, n: int, *, rows: NDArray[np.int64] | None = None, n_rows: int | None = None
) -> Target:
    """``target``, whose labels are those of ``units`` of n, as a target of all n, with what is to be said of it.

    ``rows``: positions of its rows among ``n_rows``, where they are words.
    """
    n_missing = n - len(units) - target.n_rare
    missing = f"{target.name}: {n_missing:,} of {n:,} rows have no label and are left out"
    notes = ((missing,) if n_missing else ()) + target.notes + _spellings(target)
    if len(units) == n:
        return replace(target, labelled=None, notes=notes)
    places, total = (units, n) if rows is None or n_rows is None else (rows, n_rows)
    y = np.full((total, *target.y.shape[1:]), np.nan if target.y.dtype.kind == "f" else 0, dtype=target.y.dtype)
    y[places] = target.y  # (the dtype is as wide as the longest label)
    codes = np.full(total, -1) if len(target.codes) else target.codes
    if len(target.codes):
        codes[places] = target.codes
    return replace(target, y=y, codes=codes, labelled=units, n_missing=n_missing, notes=notes)


def _spellings(target: Target) -> tuple[str, ...]:
    """Classes that are text and nearly one another."""
    pairs = alike([str(c) for c in target.classes]) if target.classes.dtype.kind in "OU" else []
    shown = "; ".join(f"{a!r} and {b!r}" for a, b in pairs[:MOST_SHOWN]) + ("; …" if len(pairs) > MOST_SHOWN else "")
    what = f"{target.name}: classes that differ only in blanks, upper and lower case or Unicode form"
    return (f"{what} are kept apart: {shown}",) if pairs else ()


def without_rare(target: Target, fewest: int) -> Target:
    """Without the classes that have fewer rows than ``fewest``; ``labelled``: the rows that are left of its own."""
    if not len(target.classes) or fewest <= 1:
        return target
    counts = target.y.sum(axis=0) if target.task.several else np.bincount(target.codes, minlength=len(target.classes))
    rare = np.flatnonzero(counts < fewest)
    if len(rare) == 0:
        return target
    kept = np.setdiff1d(np.arange(len(target.classes)), rare)
    if len(kept) < 2:
        allowed = f"must leave at least two classes of column {target.name!r}"
        raise SpecError(f"--drop-rare {fewest}", allowed, f"{len(kept)} with so many rows")
    shown = _shown_counts(target, rare, counts)
    what = f"{target.name}: {len(rare):,} classes with fewer than {fewest:,} rows are left out"
    if target.task.several:
        return replace(target, y=target.y[:, kept], classes=target.classes[kept], notes=(f"{what}: {shown}",))
    rows = np.flatnonzero(~np.isin(target.codes, rare))
    n_rare = len(target) - len(rows)
    return replace(
        target,
        y=target.y[rows],
        classes=target.classes[kept],
        codes=np.searchsorted(kept, target.codes[rows]).astype(np.int64),
        labelled=rows,
        n_rare=n_rare,
        notes=(f"{what}, {n_rare:,} rows in all: {shown}",),
    )


def _shown_counts(target: Target, which: NDArray[np.int64], counts: NDArray[np.int64]) -> str:
    names = [f"{target.classes[c]!s} ({counts[c]})" for c in which[:MOST_SHOWN]]
    return ", ".join(names) + (", …" if len(which) > MOST_SHOWN else "")
