"""How much each token moved an answer: leaving words out, relevance, integrated gradients, plain gradients.

All are of what stands before a probability, log-odds or a number, whose gradient does not vanish where the answer is
clear.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from probekit.errors import InputError, SpecError
from probekit.explanation.opened import Reading
from probekit.explanation.results import GAP, Settings
from probekit.explanation.words import Bound
from probekit.models.live import model_type
from probekit.models.look_ups import look_ups
from probekit.models.relevance import relevance

STEPS = (24, 48, 96, 192)
"""Of integrated gradients, until the gap is small enough."""

TOKENS_AT_ONCE = 2048
"""With gradients."""


@dataclass(frozen=True)
class Moved:
    """What moved some answers of a text.

    ``words``: (n_answers, n_words), NaN for a word that was not read. ``tokens``: (n_answers, n_tokens), None where
    only words were measured. ``apart``: (n_answers,) what falls on special tokens and the prompt. ``gap``:
    (n_answers,) see ``GAP``, NaN where it is not defined; ``steps``: of integrated gradients.
    """

    words: NDArray[np.float64]
    tokens: NDArray[np.float64] | None
    apart: NDArray[np.float64]
    gap: NDArray[np.float64]
    steps: int = 0


@dataclass(frozen=True)
class Asked:
    """A text, the answers to be explained, and of tags the word ``at``."""

    bound: Bound
    answers: tuple[int, ...]
    at: int = 0


def removed(reading: Reading, bound: Bound, words: Sequence[int] | NDArray[np.int64], how: str, *, at: int) -> Bound:
    """The text without ``words``. A word that a tag is asked of is never deleted, only masked."""
    blank, dropped = reading.opened.blank_id, bound.tokens_of(words)
    if how == "mask":
        return bound.blanked(dropped, blank)
    if not reading.opened.scorer.place.of_words:
        return bound.without(dropped, blank)
    kept = bound.tokens_of([at]) & dropped
    return bound.blanked(kept, blank).without(dropped & ~kept, blank)


def occlusion(reading: Reading, asked: Asked, settings: Settings) -> Moved:
    """What the answer loses when one word is left out (Zeiler and Fergus 2014; Li et al. 2016): needs no gradient."""
    bound, read = asked.bound, asked.bound.read
    variants = [bound, *(removed(reading, bound, [w], settings.remove, at=asked.at) for w in read)]
    scores = reading.scores(variants, at=asked.at)[:, list(asked.answers)]
    words = np.full((len(asked.answers), len(bound.words)), np.nan)
    words[:, read] = (scores[0] - scores[1:]).T
    nothing = np.full(len(asked.answers), np.nan)
    return Moved(words, None, nothing, nothing)


def lrp(reading: Reading, asked: Asked, _settings: Settings) -> Moved:
    """Relevance by AttnLRP's rules (Achtibat et al. 2024): one pass forward, one backward."""
    return _gradient(reading, asked, _times_input, relevance(reading.backbone, reading.rules))


def gradient_x_input(reading: Reading, asked: Asked, _settings: Settings) -> Moved:
    """The gradient at a token's embedding times the embedding (Shrikumar et al. 2017)."""
    return _gradient(reading, asked, _times_input, nullcontext())


def gradient_norm(reading: Reading, asked: Asked, _settings: Settings) -> Moved:
    """The length of the gradient at a token's embedding (Simonyan et al. 2014); it has no sign."""
    return _gradient(reading, asked, lambda slope, _embedded: slope.norm(dim=-1), nullcontext())


def integrated_gradients(reading: Reading, asked: Asked, settings: Settings) -> Moved:
    """Gradients along the line from a baseline to the text (Sundararajan et al. 2017), by Gauss-Legendre.

    Steps are raised until the importances add up to the difference between text and baseline but for 1%. Special
    tokens and the prompt are the same in both.
    """
    text, base = _look(reading, asked, asked.bound), _baseline(reading, asked, settings.baseline)
    away = [a - b for a, b in zip(text.embedded, base.embedded, strict=True)]
    difference = (text.scores - base.scores)[list(asked.answers)]
    tokens, gap, steps = np.zeros(0), np.zeros(0), 0
    for steps in STEPS:
        nodes, weights = np.polynomial.legendre.leggauss(steps)
        slopes = _mean_slopes(reading, asked, base.embedded, away, ((nodes + 1) / 2, weights / 2))
        tokens = _by_token(asked.bound, [(a * d).sum(-1) for a, d in zip(slopes, away, strict=True)])
        with np.errstate(divide="ignore", invalid="ignore"):
            gap = np.abs(tokens.sum(1) - difference) / np.abs(difference)
        if (gap[np.isfinite(gap)] < GAP).all():
            break
    return _moved(asked.bound, tokens, gap, steps)


Method = Callable[[Reading, Asked, Settings], Moved]

METHOD_OF: Mapping[str, Method] = {
    "occlusion": occlusion,
    "lrp": lrp,
    "integrated-gradients": integrated_gradients,
    "gradient-x-input": gradient_x_input,
    "gradient-norm": gradient_norm,
}
"""By the names in ``results.METHODS``."""


def moved(reading: Reading, asked: Asked, method: str, settings: Settings) -> Moved:
    """What moved the answers, by a method of ``METHODS``.

    Raises SpecError for a method that the probe or the model has no way for, InputError for what is not finite.
    """
    found = METHOD_OF[method](reading, asked, settings)
    read = found.words[:, asked.bound.read]
    if not np.isfinite(read).all():
        raise InputError(f"text {asked.bound.id}", f"must have finite importances by {method}", "NaN or infinity")
    return found


def possible(reading: Reading, bound: Bound, method: str) -> bool:
    """Whether the probe and the model have a way for ``method``, found out on a text."""
    if method == "occlusion":
        return True
    if not reading.opened.scorer.smooth:
        return False
    try:
        if method == "lrp":
            relevance(reading.backbone, reading.rules)
        _pass(reading, Asked(bound, (0,)), bound, None, n_rows=1)
    except SpecError:
        return False
    return True


# Gradients


@dataclass(frozen=True)
class _Look:
    """A pass over one text. ``scores``: (n_answers,). ``embedded``: what each look-up found, (n, d)."""

    scores: NDArray[np.float64]
    embedded: list[Tensor]


def _gradient(
    reading: Reading,
    asked: Asked,
    per_token: Callable[[Tensor, Tensor], Tensor],
    rules: AbstractContextManager[None],
) -> Moved:
    """One pass forward and, for each answer, one backward; ``per_token(slope, embedded)``: both (..., n, d)."""
    with rules:
        scores, leaves = _pass(reading, asked, asked.bound, None, n_rows=1)
        slopes = _slopes(reading, asked, scores[0].__getitem__, leaves)
    embedded = [leaf.detach()[0] for leaf in leaves]
    found = [per_token(torch.stack([of_answer[k][0] for of_answer in slopes]), embedded[k]) for k in range(len(leaves))]
    return _moved(asked.bound, _by_token(asked.bound, found), np.full(len(asked.answers), np.nan), 0)


def _times_input(slope: Tensor, embedded: Tensor) -> Tensor:
    return (slope * embedded).sum(-1)


def _look(reading: Reading, asked: Asked, bound: Bound, given: Sequence[Tensor] | None = None) -> _Look:
    """``given``: what look-ups are to find, (n, d) each."""
    rows = None if given is None else [embedded[None] for embedded in given]
    scores, leaves = _pass(reading, asked, bound, rows, n_rows=1)
    return _Look(scores.detach().cpu().numpy()[0], [leaf.detach()[0] for leaf in leaves])


def _baseline(reading: Reading, asked: Asked, name: str) -> _Look:
    bound, words = asked.bound, asked.bound.unit >= 0
    if name != "zero":
        token = reading.opened.has(name)
        if token is None:
            raise SpecError(f"--baseline {name}", f"this model's tokenizer has no {name} token; zero needs none")
        return _look(reading, asked, bound.blanked(words, token))
    here = _look(reading, asked, bound).embedded
    zeros = [embedded.clone() for embedded in here]
    for embedded in zeros:
        embedded[torch.from_numpy(words[: len(embedded)])] = 0.0
    return _look(reading, asked, bound, zeros)


def _mean_slopes(
    reading: Reading,
    asked: Asked,
    base: Sequence[Tensor],
    away: Sequence[Tensor],
    rule: tuple[NDArray[np.float64], NDArray[np.float64]],
) -> list[Tensor]:
    """For each look-up (n_answers, n, d): the mean gradient at ``base + share * away``, ``rule``: shares, weights."""
    at_once = 1 if reading.backbone.single else max(1, TOKENS_AT_ONCE // len(asked.bound.ids))
    found: list[Tensor] = []
    for start in range(0, len(rule[0]), at_once):
        shares, weights = (torch.from_numpy(part[start : start + at_once]).to(base[0]) for part in rule)
        given = [b + shares[:, None, None] * d for b, d in zip(base, away, strict=True)]
        scores, leaves = _pass(reading, asked, asked.bound, given, n_rows=len(shares))
        weighted = (scores * weights[:, None]).sum(0)
        part = _slopes(reading, asked, weighted.__getitem__, leaves)
        sums = [torch.stack([of_answer[k].sum(0) for of_answer in part]) for k in range(len(leaves))]
        found = sums if not found else [a + b for a, b in zip(found, sums, strict=True)]
    return found


def _pass(
    reading: Reading, asked: Asked, bound: Bound, given: Sequence[Tensor] | None, *, n_rows: int
) -> tuple[Tensor, list[Tensor]]:
    """Scores (n_rows, n_answers), and what each look-up gave the model, (n_rows, n, d), to take gradients by.

    ``given``: that instead of what is found.
    """
    opened = reading.opened
    if not opened.scorer.smooth:
        message = "needs a probe that a gradient can go through; method occlusion does not"
        raise SpecError("--method", message, f"probe {opened.scorer.name}")
    leaves: list[Tensor] = []

    def see(k: int, embedded: Tensor) -> Tensor:
        value = embedded if given is None else given[k]
        leaves.append(value.detach().clone().requires_grad_(True))
        return leaves[-1].clone()  # (a model may write over what it looked up)

    ids = torch.from_numpy(bound.ids.astype(np.int64))
    with torch.enable_grad(), look_ups(reading.backbone, ids, see):
        scores = reading.score([bound] * n_rows, at=asked.at)
    if not leaves:
        message = "needs a model that looks its tokens up in a table; method occlusion does not"
        raise SpecError("--method", message, f"a {model_type(reading.backbone)}")
    return scores, leaves


def _slopes(
    reading: Reading, asked: Asked, score: Callable[[int], Tensor], leaves: Sequence[Tensor]
) -> list[list[Tensor]]:
    """For each answer the gradient by each of ``leaves``; zeros where one has no part in it."""
    two_classes = reading.opened.scorer.of_classes and len(reading.opened.scorer.answers) == 2
    found: list[list[Tensor]] = []
    for answer in asked.answers:
        if two_classes and found:  # the log-odds of the one are minus those of the other
            found.append([-slope for slope in found[0]])
            continue
        last = two_classes or answer == asked.answers[-1]
        slopes = torch.autograd.grad(score(answer), leaves, retain_graph=not last, allow_unused=True)
        found.append([torch.zeros_like(a) if b is None else b for a, b in zip(leaves, slopes, strict=True)])
    return found


def _by_token(bound: Bound, found: Sequence[Tensor]) -> NDArray[np.float64]:
    """(n_answers, n_tokens), summed over look-ups: (n_answers, n), n being fewer where the last token is not read."""
    total = np.zeros((len(found[0]), len(bound.ids)))
    for part in found:
        total[:, : part.shape[1]] += part.double().cpu().numpy()
    return total


def _moved(bound: Bound, tokens: NDArray[np.float64], gap: NDArray[np.float64], steps: int) -> Moved:
    words = np.full((len(tokens), len(bound.words)), np.nan)
    for w in bound.read:
        words[:, w] = tokens[:, bound.unit == w].sum(1)
    return Moved(words, tokens, tokens[:, bound.unit < 0].sum(1), gap, steps)
