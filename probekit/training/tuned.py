"""Heads and backbone trained together: a batch of texts goes through the model once and gives every target its loss."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from probekit.evaluate.fit import Fit
from probekit.heads.loop import Group, Rows, plain_batches
from probekit.heads.modules import Head
from probekit.training.frozen import head_loss, part_score
from probekit.training.texts import Place, TextReader, answer_texts
from probekit.training.truth import Truth


@dataclass(frozen=True)
class TunedHead:
    """A head, its labels, what it reads, and how its loss counts."""

    head: Head
    truth: Truth
    fit: Fit
    place: Place
    penalty: float
    weight: float


class TunedProblem:
    """Several heads on one backbone. ``dropout``: modules of the backbone whose dropout is on in training.

    ``power``: targets are drawn by their number of labelled rows to it: 1 as they come, 0 equally often.
    """

    def __init__(
        self,
        heads: Sequence[TunedHead],
        reader: TextReader,
        groups: Sequence[Group],
        *,
        dropout: Sequence[nn.Module],
        power: float,
    ) -> None:
        self.heads, self.reader, self.groups, self.dropout, self.power = heads, reader, groups, dropout, power
        self.targets: Sequence[str] = [head.fit.target.name for head in heads]
        self._learnt = [_units_set(head) for head in heads]
        self.train_units = np.unique(np.concatenate([head.fit.train for head in heads]))

    def batches(self, rng: np.random.Generator, size: int) -> list[Rows]:
        """As many texts as there are to learn from."""
        if self.power == 1 or len(self.heads) == 1:
            return plain_batches(self.train_units, rng, size)
        counts = np.array([len(head.fit.train) for head in self.heads], dtype=np.float64)
        share = counts**self.power
        drawn = rng.choice(len(self.heads), size=len(self.train_units), p=share / share.sum())
        units = np.empty(len(drawn), dtype=np.int64)
        for t, head in enumerate(self.heads):
            n = int(np.count_nonzero(drawn == t))
            rounds = [rng.permutation(head.fit.train) for _ in range(-(-n // len(head.fit.train)))]
            units[drawn == t] = np.concatenate([*rounds, np.zeros(0, dtype=np.int64)])[:n]
        return [units[start : start + size] for start in range(0, len(units), size)]

    def loss(self, rows: Rows, of: Rows, active: Sequence[bool]) -> Tensor | None:
        """The weighted sum over targets of the mean over their labelled rows; a target without any adds nothing."""
        learnt = {h: self._labelled(h, rows) for h in range(len(self.heads)) if active[h]}
        there = [h for h, (_, labelled) in learnt.items() if len(labelled)]
        if not there:
            return None
        total: Tensor | None = None
        for h, read in zip(there, self.reader.read(rows, [self.heads[h].place for h in there]), strict=True):
            head, (position, labelled), n = self.heads[h], learnt[h], len(self._labelled(h, of)[1])
            logits = head.head(read)[torch.from_numpy(position).to(self.reader.backbone.device)]
            added = head.weight * head_loss(head.head, logits, head.truth, labelled, n, penalty=head.penalty)
            total = added if total is None else total + added
        return total

    def _labelled(self, h: int, units: Rows) -> tuple[Rows, Rows]:
        """Positions among the rows of ``units`` of those that head ``h`` learns from, and these rows."""
        head = self.heads[h]
        rows = head.fit.target.rows_of(units)
        learnt = np.repeat(self._learnt[h][units], _lengths(head, units))
        position = np.flatnonzero(learnt & head.truth.known[rows])
        return position, rows[position]

    def scores(self) -> list[float]:
        """Of the validation rows of each target."""
        logits = self.answers(np.unique(np.concatenate([head.fit.split.val for head in self.heads])))
        return [part_score(head.fit, head.truth, found, "val") for head, found in zip(self.heads, logits, strict=True)]

    def answers(self, units: Rows) -> list[np.ndarray[tuple[int, int], np.dtype[np.float32]]]:
        """For each head (n_rows, n_answers) logits of the texts ``units``, in the precision that predicts."""
        self.mode(training=False)
        return answer_texts(
            replace(self.reader, bf16=False),
            units,
            [(head.place, head.head) for head in self.heads],
            n_rows=[len(head.truth.known) for head in self.heads],
            rows_of=[head.fit.target.rows_of for head in self.heads],
        )

    def mode(self, *, training: bool) -> None:
        """Dropout of heads and of what is trained of the backbone; what is frozen has none."""
        self.reader.backbone.model.eval()
        for module in self.dropout:
            module.train(training)
        for head in self.heads:
            head.head.train(training)


def _units_set(head: TunedHead) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """(n_units,) which texts a head learns from."""
    found = np.zeros(len(head.fit.target), dtype=np.bool_)
    found[head.fit.train] = True
    return found


def _lengths(head: TunedHead, units: Rows) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    words = head.fit.target.words
    return np.ones(len(units), dtype=np.int64) if words is None else np.asarray(words.lengths[units])
