"""Texts explained one after the other, so that several at once are what each would be alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from probekit.errors import SpecError
from probekit.explanation.methods import Asked, Moved, moved
from probekit.explanation.opened import Reading, Scorer
from probekit.explanation.results import Explanation, Importance, Settings, Trust
from probekit.explanation.trust import agreement, answer_of, trusts
from probekit.explanation.words import Bound
from probekit.tasks.words import OUTSIDE


@dataclass(frozen=True)
class Question:
    """What is asked of every text. ``answer``: a class or label; None for the one that is predicted.

    ``at``: of tags, which word's; None for the first that is tagged as something. ``trust``: measure it.
    ``every_answer``: importances for all answers, too. ``seed``: of random words.
    """

    methods: tuple[str, ...]
    settings: Settings
    answer: Any = None
    at: int | None = None
    trust: bool = True
    every_answer: bool = False
    seed: int = 0


def answer_index(scorer: Scorer, answer: Any, source: str = "--class") -> int | None:
    """Which of the scores is of ``answer``, compared as text; None for None.

    Raises SpecError for a class that the probe does not know, and for one of a number.
    """
    if answer is None:
        return None
    if not scorer.answers:
        raise SpecError(f"{source} {answer}", "goes with classes and labels; this probe predicts a number")
    shown = [str(known) for known in scorer.answers]
    if str(answer) not in shown:
        raise SpecError(f"{source} {answer}", f"one of {', '.join(shown)}")
    return shown.index(str(answer))


def explain_texts(
    reading: Reading, bound: Sequence[Bound], question: Question, *, target: str
) -> Iterator[Explanation]:
    """One for each text. Raises as ``methods.moved``."""
    tokens_of = reading.opened.reader.tokenizer.convert_ids_to_tokens
    for one in bound:
        yield _explained(reading, one, question, target, tuple(map(str, tokens_of(one.ids.tolist()))))


def _explained(reading: Reading, bound: Bound, question: Question, target: str, tokens: tuple[str, ...]) -> Explanation:
    scorer = reading.opened.scorer
    at = _word_asked(reading, bound, question.at) if scorer.place.of_words else None
    scores = reading.scores([bound], at=at or 0)[0]
    predicted = int(np.argmax(scores))
    chosen = answer_index(scorer, question.answer)
    first = predicted if chosen is None else chosen
    every = tuple(range(len(scores))) if question.every_answer else ()
    asked = Asked(bound, (first, *(k for k in every if k != first)), at or 0)
    found = {method: moved(reading, asked, method, question.settings) for method in dict.fromkeys(question.methods)}
    words = {method: one.words[0] for method, one in found.items()}
    trust: list[Trust | None] = [None] * len(found)
    if question.trust:
        trust = trusts(reading, asked, list(words.values()), question.settings, seed=question.seed)
    main = next(iter(words))
    return Explanation(
        id=bound.id,
        text=bound.text,
        target=target,
        task=scorer.task.name,
        answer=scorer.answers[first] if scorer.answers else None,
        predicted=_predicted(scorer, scores),
        value=float(scores[first]),
        probability=float(answer_of(reading, scores)[first]) if scorer.answers else None,
        words=bound.words,
        tokens=tokens,
        token_word=bound.unit,
        importances=tuple(
            _importance(method, one, question.settings, of_trust)
            for (method, one), of_trust in zip(found.items(), trust, strict=True)
        ),
        remove=question.settings.remove,
        of_word=at,
        agreement={method: agreement(words[main], words[method]) for method in words if method != main},
        answers=scorer.answers if every else (),
        all_words=found[main].words[np.argsort(asked.answers)] if every else None,
    )


def _importance(method: str, one: Moved, settings: Settings, trust: Any) -> Importance:
    return Importance(
        method=method,
        words=one.words[0],
        tokens=None if one.tokens is None else one.tokens[0],
        apart=float(one.apart[0]),
        gap=float(one.gap[0]),
        steps=one.steps,
        baseline=settings.baseline if one.steps else "",
        trust=trust,
    )


def _predicted(scorer: Scorer, scores: Any) -> Any:
    """A class, a list of labels, or a number."""
    if not scorer.answers:
        return float(scores[0])
    if scorer.task.several:
        return [name for name, score in zip(scorer.answers, scores.tolist(), strict=True) if score > 0]
    return scorer.answers[int(np.argmax(scores))]


def asked_answer(reading: Reading, bound: Bound, answer: Any, at: int | None) -> tuple[Any, int]:
    """The class or label to explain (None for a number), and of tags the word; what is not given is chosen."""
    scorer = reading.opened.scorer
    word = _word_asked(reading, bound, at) if scorer.place.of_words else 0
    k = answer_index(scorer, answer)
    if k is None:
        k = int(np.argmax(reading.scores([bound], at=word)[0]))
    return (scorer.answers[k] if scorer.answers else None), word


def _word_asked(reading: Reading, bound: Bound, at: int | None) -> int:
    """Which word's tag is explained: the one asked for, else the first that is no outside, else the first."""
    scorer = reading.opened.scorer
    if at is not None:
        if at not in bound.read:
            raise SpecError(f"--word {at}", f"a word of the text that was read, from 0 to {len(bound.words) - 1}")
        return at
    tags = [scorer.answers[int(np.argmax(reading.scores([bound], at=int(w))[0]))] for w in bound.read]
    found = [int(w) for w, tag in zip(bound.read, tags, strict=True) if tag != OUTSIDE]
    return found[0] if found else int(bound.read[0])
