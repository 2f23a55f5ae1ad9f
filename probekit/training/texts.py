"""Texts on their way through the backbone: what each head reads of them, with gradients."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from probekit.heads.loop import Rows
from probekit.heads.modules import Ragged, Read
from probekit.models.backbone import Backbone
from probekit.models.live import Form, Start, live_states
from probekit.pooling import POOLINGS
from probekit.store import TokenStates

TOKENS_AT_ONCE = 4096
"""Of texts that are only answered."""


@dataclass(frozen=True)
class Tokenised:
    """Texts as the model reads them. ``ids[i]``: (n_tokens,). ``over``: (n, 2) first token to pool over, and the one
    after the last; None for all. ``word[i]``: (n_tokens,) which word of its text each token is from, -1 for none;
    ``n_words``: (n,). Both None where no words are tagged.
    """

    ids: Sequence[NDArray[np.int32]]
    over: NDArray[np.int64] | None = None
    word: Sequence[NDArray[np.int32]] | None = None
    n_words: NDArray[np.int64] | None = None


@dataclass(frozen=True)
class Place:
    """What a head reads: ``layers``, more than one for a mix; ``pooling``: a pooling of texts, "attention" for their
    tokens, or how tokens become words (with ``of_words``).
    """

    layers: tuple[int, ...]
    pooling: str
    of_words: bool = False


@dataclass(frozen=True)
class TextReader:
    """A backbone and the texts of a run. ``prompt``: (K, d) soft prompt. ``start``: where a pass begins, if not at the
    embeddings: a layer and its cached token states (``form``: see ``Start``). ``bf16``: in mixed precision.
    """

    backbone: Backbone
    texts: Tokenised
    prompt: Tensor | None = None
    start: tuple[int, TokenStates] | None = None
    form: Form | None = None
    bf16: bool = False

    def read(self, units: Rows, places: Sequence[Place]) -> list[Read]:
        """What each of ``places`` has of the texts ``units``."""
        layers = tuple(sorted({layer for place in places for layer in place.layers}))
        states = self._states(units, layers)
        lengths = torch.tensor([len(self.texts.ids[i]) for i in units], device=self.backbone.device)
        return [self._at(place, states, units, lengths) for place in places]

    def batches(self, units: Rows) -> list[Rows]:
        """``units`` by length, so many at a time as are answered together."""
        order = units[np.argsort([len(self.texts.ids[i]) for i in units], kind="stable")]
        found: list[Rows] = []
        first = 0
        for i in range(1, len(order) + 1):
            if i == len(order) or (i + 1 - first) * len(self.texts.ids[order[i]]) > TOKENS_AT_ONCE:
                found.append(order[first:i])
                first = i
        return found

    def _states(self, units: Rows, layers: tuple[int, ...]) -> Mapping[int, Tensor]:
        begin = None
        if self.start is not None:
            layer, tokens = self.start
            parts = [np.asarray(tokens[int(i)], dtype=np.float32) for i in units]
            begin = Start(layer, torch.from_numpy(np.concatenate(parts)), self.form)
        mixed: AbstractContextManager[object] = nullcontext()
        if self.bf16:
            mixed = torch.autocast(self.backbone.device.type, dtype=torch.bfloat16)
        with mixed:
            ids = [self.texts.ids[i] for i in units]
            return live_states(self.backbone, ids, layers=layers, prompt=self.prompt, start=begin)

    def _at(self, place: Place, states: Mapping[int, Tensor], units: Rows, lengths: Tensor) -> Read:
        if place.pooling == "attention":  # all tokens, as a cache keeps them
            return Ragged(states[place.layers[0]], lengths)
        if place.of_words:
            found = [self._words(states[layer], units, lengths, place.pooling) for layer in place.layers]
        else:
            picked, counts = self._picked(units, lengths)
            over = [states[layer] if picked is None else states[layer][picked] for layer in place.layers]
            found = [POOLINGS[place.pooling](part, counts) for part in over]
        return found[0] if len(found) == 1 else torch.stack(found, 1)

    def _picked(self, units: Rows, lengths: Tensor) -> tuple[Tensor | None, Tensor]:
        """Which tokens are pooled over (None: all), and how many of each text."""
        if self.texts.over is None:
            return None, lengths
        device = lengths.device
        first, last = torch.from_numpy(self.texts.over[units]).to(device).T
        starts = torch.cumsum(lengths, 0) - lengths
        position = torch.arange(int(lengths.sum()), device=device)
        text = torch.repeat_interleave(torch.arange(len(units), device=device), lengths)
        within = position - starts[text]
        return torch.nonzero((within >= first[text]) & (within < last[text])).squeeze(1), last - first

    def _words(self, states: Tensor, units: Rows, lengths: Tensor, how: str) -> Tensor:
        """(n_words of all ``units``, d_model); zeros for a word without tokens."""
        if self.texts.word is None or self.texts.n_words is None:
            raise TypeError("these texts have no words")
        counts = self.texts.n_words[units]
        starts = np.cumsum(counts) - counts
        numbered = [
            np.where(w >= 0, w + s, -1) for w, s in zip((self.texts.word[i] for i in units), starts, strict=True)
        ]
        word = np.concatenate(numbered)
        tokens = np.flatnonzero(word >= 0)
        if how != "mean":
            order = tokens if how == "first" else tokens[::-1]
            _, at = np.unique(word[order], return_index=True)
            tokens = order[at]
        of = torch.from_numpy(word[tokens]).to(lengths.device)
        sums = states.new_zeros(int(counts.sum()), states.shape[1])
        sums = sums.index_add(0, of, states[torch.from_numpy(np.ascontiguousarray(tokens)).to(lengths.device)])
        n = torch.bincount(of, minlength=len(sums)).clamp(min=1)
        return sums / n[:, None]


Answer = Callable[[Read], Tensor]


@torch.no_grad()
def answer_texts(
    reader: TextReader,
    units: Rows,
    heads: Sequence[tuple[Place, Answer]],
    *,
    n_rows: Sequence[int],
    rows_of: Sequence[Callable[[Rows], Rows]],
    on_progress: Callable[[int], None] = lambda _done: None,
) -> list[NDArray[np.float32]]:
    """(n_rows, n_answers) logits of each head for the texts ``units``, NaN for all other rows.

    ``rows_of[h](units)``: the rows of texts for a head: themselves, or their words.
    """
    found: list[NDArray[np.float32] | None] = [None] * len(heads)
    done = 0
    for some in reader.batches(units):
        for h, read in enumerate(reader.read(some, [place for place, _ in heads])):
            logits = heads[h][1](read).float().cpu().numpy()
            full = found[h]
            if full is None:
                full = found[h] = np.full((n_rows[h], logits.shape[1]), np.nan, dtype=np.float32)
            full[rows_of[h](some)] = logits
        done += len(some)
        on_progress(done)
    return [part for part in found if part is not None]
