"""Anything saved, probe or trained head, opened in one form: texts in, log-odds or numbers out, with gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from probekit.errors import InputError, SpecError
from probekit.explanation.twins import ClassOdds, InDouble, has_twin, torch_twin
from probekit.explanation.words import Bound, bind
from probekit.extraction.reader import Reader, open_reader, prepare
from probekit.heads.losses import CLASSES, LABELS
from probekit.heads.modules import Read
from probekit.models.backbone import Backbone
from probekit.models.live import for_training
from probekit.models.relevance import Rules, find_rules
from probekit.models.source import ModelSource
from probekit.ragged import RaggedArray
from probekit.readspec import ReadSpec, RunOptions
from probekit.saved import SavedProbe, of_words
from probekit.spec import Json, Listener
from probekit.tasks import TASKS, Task
from probekit.tasks.labels import label_probability
from probekit.training.saved_heads import Heads
from probekit.training.texts import Place, TextReader, Tokenised
from probekit.training.truth import link_of

DTYPE = "float32"
"""That texts are read in, whatever the cache was: gradients and their sums need it."""

LEAST = 1e-6
"""Probability that log-odds are taken of at least, for probes that say 0 and 1."""

Score = Callable[[Read], Tensor]
"""float64 (n_rows, n_answers): log-odds of every class or label, or one number."""


@dataclass(frozen=True)
class Scorer:
    """What is explained. ``score``: from what it reads at ``place``. ``smooth``: a gradient can go through it.

    ``answers``: the classes or labels, in the order of the scores; empty for a number. ``name``: of the probe.
    """

    place: Place
    score: Score
    smooth: bool
    task: Task
    answers: tuple[Any, ...]
    name: str

    @property
    def of_classes(self) -> bool:
        """Whether exactly one of the answers is right."""
        return bool(self.answers) and not self.task.several


@dataclass(frozen=True)
class Opened:
    """A model in memory and what is read from it. ``prompt``: (K, d) soft prompt, or None."""

    reader: Reader
    prompt: Tensor | None
    scorer: Scorer

    @property
    def blank_id(self) -> int:
        """The token that stands for nothing: the mask, else the padding, the unknown, or the end of a text."""
        tokenizer = self.reader.tokenizer
        ids = (getattr(tokenizer, f"{name}_token_id", None) for name in ("mask", "pad", "unk", "eos"))
        return int(next((token for token in ids if token is not None), 0))

    def has(self, token: str) -> int | None:
        """The id of the tokenizer's "mask", "pad" or "unk"; None if it has none."""
        found = getattr(self.reader.tokenizer, f"{token}_token_id", None)
        return None if found is None else int(found)

    def bind(
        self,
        texts: Sequence[str],
        *,
        ids: Sequence[str],
        listener: Listener,
        spans: Sequence[Sequence[int]] | None = None,
        words: Sequence[Sequence[tuple[int, int]]] | None = None,
    ) -> tuple[Opened, list[Bound]]:
        """Tokenise ``texts``; ``words``: where the words are that a probe of tags answers for.

        With the texts it may turn out that the model reads no two together: so the opened is given back too.
        """
        prepared = prepare(self.reader, texts, ids=ids, called="text", listener=listener, spans=spans)
        for i, cuts in enumerate(prepared.encoded.cuts):
            if cuts:
                raise SpecError(f"text {ids[i]}", "must be read in one piece; with --stride it was read in several")
        over, unknown = prepared.forward.pool_over, self.has("unk")
        bound = bind(prepared.encoded, texts, over=over, ids=ids, words=words, unknown_id=unknown)
        for one in bound:
            if not (one.unit >= 0).any():
                raise InputError(f"text {one.id}", "must have a word to explain by", repr(one.text[:40]))
        return replace(self, reader=replace(self.reader, backbone=prepared.backbone)), bound

    @contextmanager
    def reading(self) -> Iterator[Reading]:
        """The model, padded and ready for gradients, for a while."""
        with for_training(self.reader.backbone) as backbone:
            backbone.model.eval().requires_grad_(False)
            yield Reading(self, backbone)


@dataclass(frozen=True)
class Reading:
    """An opened model while it reads."""

    opened: Opened
    backbone: Backbone

    @cached_property
    def rules(self) -> Rules:
        """Of relevance; found once, for they are the model's and not a text's. Raises as ``find_rules``."""
        return find_rules(self.backbone, np.arange(1, 9) % (self.backbone.vocabulary or 9))

    def scores(self, variants: Sequence[Bound], *, at: int = 0) -> NDArray[np.float64]:
        """(n_variants, n_answers) without gradients; ``at``: which word's, for tags."""
        return self.scores_of(variants, [self.opened.scorer], at=at)[0]

    def scores_of(
        self, variants: Sequence[Bound], scorers: Sequence[Scorer], *, at: int = 0
    ) -> list[NDArray[np.float64]]:
        """The same for several, whose layers are read in one pass."""
        reader = self._reader(variants)
        found: list[list[NDArray[np.float64]]] = [[] for _ in scorers]
        order = []
        with torch.no_grad():
            for some in reader.batches(np.arange(len(variants))):
                order.append(some)
                reads = reader.read(some, [scorer.place for scorer in scorers])
                for k, (scorer, read) in enumerate(zip(scorers, reads, strict=True)):
                    found[k].append(_rows(scorer, scorer.score(read), variants, some, at).cpu().numpy())
        back = np.argsort(np.concatenate(order))
        whole = [np.concatenate(parts)[back] for parts in found]
        if not all(np.isfinite(part).all() for part in whole):
            raise InputError(f"text {variants[0].id}", "must have finite states and answers", "NaN or infinity")
        return whole

    def score(self, variants: Sequence[Bound], *, at: int = 0) -> Tensor:
        """The same of the opened scorer as a tensor, with gradients, in one batch."""
        scorer, some = self.opened.scorer, np.arange(len(variants))
        (read,) = self._reader(variants).read(some, [scorer.place])
        return _rows(scorer, scorer.score(read), variants, some, at)

    def _reader(self, variants: Sequence[Bound]) -> TextReader:
        over = None if variants[0].over is None else np.array([one.over for one in variants])
        n_words = np.array([one.n_words for one in variants])
        texts = Tokenised([one.ids for one in variants], over, [one.word for one in variants], n_words)
        return TextReader(self.backbone, texts, prompt=self.opened.prompt)


def _rows(scorer: Scorer, scores: Tensor, variants: Sequence[Bound], some: NDArray[np.int64], at: int) -> Tensor:
    """Of the scores of all words those of the word ``at`` of each text; of texts all."""
    if not scorer.place.of_words:
        return scores
    counts = np.array([variants[i].n_words for i in some])
    return scores[torch.from_numpy(np.cumsum(counts) - counts + at)]


def open_probe(saved: SavedProbe, source: ModelSource, options: RunOptions, listener: Listener) -> Opened:
    """A saved probe with its model.

    Raises ModelError for a model that can't be loaded, SpecError where card and model don't fit together.
    """
    card = saved.card
    layer = int(card["layer"])
    reader = open_reader(explained_spec(card["cache"], (layer,)), source, options, listener=listener)
    check_layer(reader.backbone, layer, "card of the probe, field 'layer'")
    scorer = probe_scorer(saved.estimator, card)
    if isinstance(scorer.score, nn.Module):
        scorer.score.to(reader.backbone.device)
    return Opened(reader, None, scorer)


def open_heads(heads: Heads, i: int, source: ModelSource, options: RunOptions, listener: Listener) -> Opened:
    """The ``i``-th of the heads in a folder, with its model. Raises as ``Heads.open``."""
    opened = heads.open(source, options, listener, dtype=DTYPE)
    card, task = heads.card["heads"][i], TASKS[heads.card["heads"][i]["task"]]
    link = link_of(task)
    answers = () if link not in (CLASSES, LABELS) else tuple(card["labels"])
    head = heads.modules[i].to(opened.reader.backbone.device).eval().requires_grad_(False)
    whole: nn.Module = InDouble(head, card["mean"], card["scale"])
    if link is CLASSES:
        whole = nn.Sequential(whole, ClassOdds())
    place = Place(tuple(card["layers"]), card["pooling"], task.of_words)
    scorer = Scorer(place, whole.to(opened.reader.backbone.device), True, task, answers, card["probe"])
    return Opened(opened.reader, opened.prompt, scorer)


def explained_spec(cache: Json, layers: tuple[int, ...]) -> ReadSpec:
    """How texts are read to be explained: as for the cache, in float32, and nothing kept."""
    spec = replace(ReadSpec.from_json(cache), layers=layers, poolings=(), tokens=None)
    return spec if spec.quantize else replace(spec, dtype=DTYPE)


def check_layer(backbone: Backbone, layer: int, source: str) -> None:
    """Raise SpecError for a layer that the model has not."""
    stack = backbone.stack
    if not stack.first <= layer <= stack.deepest:
        raise SpecError(source, f"the model's states are of layers {stack.first}..{stack.deepest}", str(layer))


def probe_scorer(estimator: Any, card: Json) -> Scorer:
    """A fitted probe as its log-odds or numbers; ``card``: see ``saved.CARD``."""
    task = TASKS[card["task"]]
    place = Place((int(card["layer"]),), card["pooling"], of_words(card))
    answers: tuple[Any, ...] = ()
    if task.several:
        answers = tuple(card["labels"])
    elif hasattr(estimator, "classes_"):
        answers = tuple(np.asarray(estimator.classes_).tolist())
    if has_twin(estimator):
        return Scorer(place, torch_twin(estimator, card["probe"]).eval(), True, task, answers, card["probe"])
    return Scorer(place, _Asked(estimator, several=task.several), False, task, answers, card["probe"])


@dataclass(frozen=True)
class _Asked:
    """An estimator that no gradient goes through, asked for its probabilities or its numbers."""

    estimator: Any
    several: bool

    def __call__(self, read: Read) -> Tensor:
        X: Any = read.cpu().numpy() if isinstance(read, Tensor) else None
        if not isinstance(read, Tensor):
            ends = np.concatenate([[0], np.cumsum(read.lengths.cpu().numpy())])
            X = RaggedArray(read.states.cpu().numpy(), ends)
        if not hasattr(self.estimator, "predict_proba"):
            found = np.asarray(self.estimator.predict(X))
            if found.dtype.kind not in "fiub":
                message = "must give probabilities or numbers to be explained"
                raise SpecError("probe", message, f"{type(self.estimator).__name__}, which has no predict_proba")
            return torch.from_numpy(found.astype(np.float64).reshape(len(found), -1))
        p = label_probability(self.estimator, X) if self.several else self.estimator.predict_proba(X)
        p = np.clip(np.asarray(p, dtype=np.float64), LEAST, 1 - LEAST)
        return torch.from_numpy(np.log(p) - np.log1p(-p))
