"""Why anything saved answers as it does: which words moved it, at its layer or at every layer."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from probekit.api.predict import (
    Spans,
    check_given,
    filled_rows,
    find_probe,
    is_heads,
    open_probe,
    spans_of,
)
from probekit.api.probe import opened_caches
from probekit.arguments import names, texts_of, whole
from probekit.errors import SpecError
from probekit.explanation.results import (
    ALONGSIDE,
    BASELINES,
    DEFAULT_METHOD,
    METHODS,
    REMOVALS,
    Explanation,
    LayerExplanation,
    Settings,
)
from probekit.extraction.request import same_model
from probekit.inputs.raw_words import split_words
from probekit.readspec import RunOptions, different_for_card
from probekit.saved import of_words
from probekit.spec import Json, Listener, Silent
from probekit.store import Cache

if TYPE_CHECKING:
    from probekit.explanation.opened import Opened, Reading
    from probekit.explanation.words import Bound

FEW = 20
"""Texts that are explained by more than one method where none is asked for."""


@dataclass(frozen=True)
class ExplainOptions:
    """How texts are explained; see ``explain``."""

    method: Any = None
    answer: Any = None
    word: int | None = None
    remove: str = "delete"
    baseline: str | None = None
    trust: bool = True
    every_answer: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "method", names(self.method, "method"))
        given: list[tuple[str, Any, tuple[str, ...]]]
        given = [("--method", method, tuple(METHODS)) for method in self.method]
        given += [("--remove", self.remove, REMOVALS)]
        given += [] if self.baseline is None else [("--baseline", self.baseline, BASELINES)]
        for option, value, known in given:
            if value not in known:
                raise SpecError(f"{option} {value}", f"one of {', '.join(known)}")
        for option, number in (("--seed", self.seed), ("--word", self.word)):
            if number is not None and whole(number, option) < 0:
                raise SpecError(f"{option} {number}", "at least 0")

    def check(self, card: Json) -> None:
        """Raise SpecError for what a probe with this card can't be asked."""
        if self.word is not None and not of_words(card):
            raise SpecError(f"--word {self.word}", "is for probes that tag words; this one answers for whole texts")
        labels = [str(label) for label in card["labels"]]
        if self.answer is not None and str(self.answer) not in labels:
            allowed = f"one of {', '.join(labels)}" if labels else "is of classes and labels; this probe says a number"
            raise SpecError(f"--class {self.answer}", allowed)


def explain(
    probe: str | os.PathLike[str],
    texts: str | Sequence[str],
    *,
    target: str | None = None,
    method: str | Sequence[str] | None = None,
    answer: Any = None,
    word: int | None = None,
    remove: str = "delete",
    baseline: str | None = None,
    trust: bool = True,
    every_answer: bool = False,
    seed: int = 0,
    spans: Spans | None = None,
    words: Sequence[Sequence[str]] | None = None,
    model: str | os.PathLike[str] | None = None,
    device: str = "auto",
    threads: int | None = None,
    trust_remote_code: bool = False,
    listener: Listener | None = None,
) -> list[Explanation]:
    """Which words of ``texts`` moved the answer of a saved probe, or of trained heads, and whether to trust that.

    ``probe``, ``target``, ``spans``, ``words``, ``model``, ``device``, ``threads``, ``trust_remote_code``: as for
    ``predict``. ``method``: names, of which the first is the main one: "occlusion" (the default, and for a few texts
    "lrp" and "integrated-gradients" beside it, where model and probe allow them), "gradient-x-input", "gradient-norm".
    ``answer``: the class or label to explain; by default the one that is predicted. ``word``: of tags, the number of
    the word (from 0) whose tag is explained; by default the first that is tagged as something. ``remove``: leave words
    out by "delete", or "mask" them. ``baseline``: that integrated gradients start at, "mask", "pad" or "zero"; by
    default the first of these that the tokenizer has. ``trust``: measure comprehensiveness and sufficiency, against
    random words drawn by ``seed``. ``every_answer``: importances for all classes or labels, too (``all_words``).

    What is explained is the log-odds of the answer, or a number in its units. The model reads in float32, one text
    after the other, so that several at once are what each is alone. A blank text has no explanation and is left out.

    Raises SpecError for a probe, class or method that can't be, ModelError for another model, InputError for a text
    without words and for states that are not finite.
    """
    options = ExplainOptions(method, answer, word, remove, baseline, trust, every_answer, seed)
    run = RunOptions(device, threads, trust_remote_code=trust_remote_code)
    listener = listener or Silent()
    with opened_texts(
        probe,
        texts,
        target=target,
        spans=spans,
        words=words,
        model=model,
        options=run,
        check=options.check,
        listener=listener,
    ) as (reading, bound, card):
        return list(explained(reading, bound, card, options, listener))


def explain_layers(
    probe: str | os.PathLike[str],
    text: str,
    cache: Cache | str | os.PathLike[str],
    *,
    target: str | None = None,
    method: str = DEFAULT_METHOD,
    answer: Any = None,
    word: int | None = None,
    remove: str = "delete",
    baseline: str | None = None,
    layers: str | int | Sequence[int] = "all",
    model: str | os.PathLike[str] | None = None,
    device: str = "auto",
    threads: int | None = None,
    trust_remote_code: bool = False,
    listener: Listener | None = None,
) -> LayerExplanation:
    """Words x layers: which words of ``text`` moved the answer of a probe at each of ``layers`` of ``cache``.

    The probes are fitted here, as ``probe`` was. Beside them stand the words that the answer of the text-only baseline
    hangs on, and the share of each layer's importance that falls on these. Options as for ``explain``; what is not
    given is chosen by ``probe``, the class too.

    Raises as ``explain``, and SpecError for a cache of another model.
    """
    options = ExplainOptions(method, answer, word, remove, baseline)
    run = RunOptions(device, threads, trust_remote_code=trust_remote_code)
    listener = listener or Silent()

    def check(card: Json) -> None:
        options.check(card)
        check_cache(cache, card)

    with opened_texts(probe, [text], target=target, model=model, options=run, check=check, listener=listener) as found:
        return explained_layers(*found, options, cache, layers=layers, listener=listener)


def check_cache(cache: Cache | str | os.PathLike[str], card: Json) -> None:
    """Raise SpecError for a cache whose layers the probe of ``card`` can't be fitted on."""
    with opened_caches([cache]) as (opened,):
        if differs := different_for_card(card["cache"], opened.spec):
            name, mine, others = differs
            message = f"must have the {name} that the probe was fitted on: {mine}"
            raise SpecError(f"--by-layer {opened.path.name}", message, str(others))


@contextmanager
def opened_texts(
    probe: str | os.PathLike[str],
    texts: str | Sequence[str],
    *,
    target: str | None,
    spans: Spans | None = None,
    words: Sequence[Sequence[str]] | None = None,
    ids: Sequence[str] | None = None,
    model: str | os.PathLike[str] | None,
    options: RunOptions,
    check: Callable[[Json], None],
    listener: Listener,
) -> Iterator[tuple[Reading, list[Bound], Json]]:
    """The model reading, the tokenised texts, and the card of the probe (or of the head, with its ``cache``).

    ``check``: of the card, before the model is loaded.
    """
    given = texts_of(texts)
    called = [str(i + 1) for i in range(len(given))] if ids is None else list(ids)
    card, opens = _saved(Path(probe), target, model, options, listener)
    check(card)
    check_given(Path(probe), card, len(given), spans=spans, words=words)
    filled = filled_rows(given, listener)
    opened = opens()
    some = [given[i] for i in filled]
    places: list[list[tuple[int, int]]] | None = None
    if of_words(card):
        found = [split_words(text) for text in some] if words is None else [spans_of(words[i]) for i in filled]
        split = [[text[a:b] for a, b in of_text] for text, of_text in zip(some, found, strict=True)]
        some, places = [" ".join(of_text) for of_text in split], [spans_of(of_text) for of_text in split]
    chosen = None if spans is None else [spans[i] for i in filled]
    opened, bound = opened.bind(some, ids=[called[i] for i in filled], listener=listener, spans=chosen, words=places)
    with opened.reading() as reading:
        yield reading, bound, card


def _saved(
    path: Path, target: str | None, model: str | os.PathLike[str] | None, options: RunOptions, listener: Listener
) -> tuple[Json, Any]:
    """The card of what is saved at ``path``, and what opens it with its model."""
    from probekit.explanation import opened as opening  # here, because it loads torch

    if not is_heads(path):
        saved = open_probe(find_probe(path, target, listener))
        source = same_model(saved.card["cache"], model)
        return saved.card, lambda: opening.open_probe(saved, source, options, listener)
    from probekit.training.saved_heads import load_heads

    heads = load_heads(path)
    i = heads.index(target, f"heads {path}")
    card = {**heads.card["heads"][i], "cache": heads.card["cache"]}
    source = same_model(card["cache"], model)
    return card, lambda: opening.open_heads(heads, i, source, options, listener)


def explained(
    reading: Reading, bound: Sequence[Bound], card: Json, options: ExplainOptions, listener: Listener
) -> Iterator[Explanation]:
    """One explanation after the other."""
    from probekit.explanation.methods import possible
    from probekit.explanation.texts import Question, explain_texts

    more = ALONGSIDE if len(bound) <= FEW else ()
    methods = options.method or (DEFAULT_METHOD, *(method for method in more if possible(reading, bound[0], method)))
    question = Question(
        methods,
        _settings(reading.opened, options),
        options.answer,
        options.word,
        trust=options.trust,
        every_answer=options.every_answer,
        seed=options.seed,
    )
    listener.stage("explaining", total=len(bound), unit="texts")
    for i, one in enumerate(explain_texts(reading, bound, question, target=str(card.get("target", "")))):
        listener.advance(i + 1)
        yield one


def explained_layers(
    reading: Reading,
    bound: Sequence[Bound],
    card: Json,
    options: ExplainOptions,
    cache: Cache | str | os.PathLike[str],
    *,
    layers: Any = "all",
    listener: Listener,
) -> LayerExplanation:
    """Words x layers of the one text in ``bound``; the class that the opened probe predicts, if none is asked for."""
    from probekit.explanation.layers import explain_layers as by_layer
    from probekit.explanation.layers import fit_layers
    from probekit.explanation.texts import asked_answer

    if len(bound) != 1:
        raise SpecError("--by-layer", "explains one text at a time", f"{len(bound)} texts")
    method, settings = next(iter(options.method), DEFAULT_METHOD), _settings(reading.opened, options)
    answer, at = asked_answer(reading, bound[0], options.answer, options.word)
    with opened_caches([cache]) as (opened,):
        probes = fit_layers(opened, card, listener, layers=layers)
        listener.stage("explaining", total=0, unit="")
        return by_layer(reading, bound[0], probes, answer=answer, method=method, settings=settings, at=at)


def _settings(opened: Opened, options: ExplainOptions) -> Settings:
    baseline = options.baseline
    if baseline is None:
        # (From zero the way begins at a jump, where a model divides states by their length: RMSNorm.)
        baseline = next((name for name in ("mask", "pad") if opened.has(name) is not None), "zero")
    return Settings(options.remove, baseline)
