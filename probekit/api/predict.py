"""Saved probes on new texts: the model runs up to the probe's layer only."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.dummy import DummyClassifier

from probekit.arguments import texts_of
from probekit.errors import InputError, ProbekitError, SpecError
from probekit.extraction.request import same_model
from probekit.inputs.raw_words import split_words
from probekit.metrics.entities import entity_spans
from probekit.models.alignment import word_spans
from probekit.ragged import RaggedArray
from probekit.readspec import RunOptions
from probekit.saved import SUFFIX, SavedProbe, card_path, check_usable, load_probe, of_tokens, of_words, read_card
from probekit.spec import Json, Listener, Silent
from probekit.tasks import TASKS, States, Target, Task, Words
from probekit.tasks.labels import label_probability

HEADS_CARD = "card.json"
"""In a folder of trained heads."""

Spans = Sequence[tuple[int, int]]
"""First characters, and those after the last."""


@dataclass(frozen=True)
class Prediction:
    """Answers for n texts: ``labels`` (n,); ``probability`` (n, n_classes) in the order of ``classes``, or None.

    Where a text may have several labels, each of ``labels`` is a list of them. Of tags, each is a list with one for
    each of the text's ``words``: "" (O for entities) for a word that was not read. A blank text has no answer: its
    label is None (NaN of numbers, [] of tags), and NaN are its probabilities.
    """

    task: Task
    labels: NDArray[Any]
    classes: tuple[Any, ...]
    probability: NDArray[np.floating] | None = None
    words: tuple[Spans, ...] | None = None


def predict(
    probe: str | os.PathLike[str],
    texts: str | Sequence[str],
    *,
    target: str | None = None,
    spans: Spans | None = None,
    words: Sequence[Sequence[str]] | None = None,
    model: str | os.PathLike[str] | None = None,
    device: str = "auto",
    threads: int | None = None,
    trust_remote_code: bool = False,
    listener: Listener | None = None,
) -> Prediction:
    """Use a saved probe (``.skops``) on ``texts``, one or several; the model reads them up to the probe's layer only.

    ``probe``: a file, or a folder of them, of which the best on validation is used, or a folder of heads that
    ``train`` made; ``target`` says of what, where there are several. ``spans``: first character of each text's span and
    the one after its last, for a probe of spans.
    ``words``: for a probe of tags, those of each text, if it was joined from them with single blanks; else texts are
    split at blanks, with punctuation and clitics apart. ``model``: where the model is, if it is a local one that lies
    elsewhere than a hub id would say. It must be the very model that the probe was fitted on: its revision (or the hash
    of its weights) and tokenizer are compared.

    Raises SpecError for a probe that can't be trusted or read, ModelError for another model, InputError where there is
    no text to read.
    """
    listener = listener or Silent()
    options = RunOptions(device, threads, trust_remote_code=trust_remote_code)
    if is_heads(Path(probe)):
        return _by_heads(Path(probe), target, texts_of(texts), spans, words, model, options, listener)
    path = find_probe(Path(probe), target, listener)
    saved, given = open_probe(path), texts_of(texts)
    task = TASKS[saved.card["task"]]
    check_given(path, saved.card, len(given), spans=spans, words=words)
    filled = filled_rows(given, listener)
    source = same_model(saved.card["cache"], model)
    from probekit.extraction.reader import read_states, read_tokens, read_words  # here, because it loads torch

    some = [given[i] for i in filled]
    if task.of_words:
        places = [split_words(text) for text in some] if words is None else [spans_of(words[i]) for i in filled]
        split = [[text[a:b] for a, b in found] for text, found in zip(some, places, strict=True)]
        states, unread = read_words(split, card=saved.card, source=source, options=options, listener=listener)
        with _strangers_code(path):
            answer = _tagged(saved, states, places, unread)
    elif of_tokens(saved.card):
        tokens = read_tokens(some, card=saved.card, source=source, options=options, listener=listener)
        with _strangers_code(path):
            answer = _answered(saved, tokens)
    else:
        chosen = None if spans is None else [spans[i] for i in filled]
        read = read_states(some, card=saved.card, source=source, options=options, listener=listener, spans=chosen)
        with _strangers_code(path):
            answer = _answered(saved, read)
    return answer if len(filled) == len(given) else _with_blanks(answer, filled, len(given))


def is_heads(path: Path) -> bool:
    """Whether ``path`` is a folder of trained heads."""
    return (path / HEADS_CARD).is_file()


def _by_heads(
    path: Path,
    target: str | None,
    given: Sequence[str],
    spans: Spans | None,
    words: Sequence[Sequence[str]] | None,
    model: str | os.PathLike[str] | None,
    options: RunOptions,
    listener: Listener,
) -> Prediction:
    """``predict`` by one of the heads in a folder: its logits are what a probe's states are."""
    from probekit.training.saved_heads import load_heads  # here, because it loads torch
    from probekit.training.truth import Logits

    heads = load_heads(path)
    i = heads.index(target, f"heads {path}")
    card = {**heads.card["heads"][i], "cache": heads.card["cache"]}
    check_given(path, card, len(given), spans=spans, words=words)
    filled = filled_rows(given, listener)
    opened = heads.open(same_model(card["cache"], model), options, listener)
    saved, some = SavedProbe(heads.estimator(i), card), [given[k] for k in filled]
    if of_words(card):
        places = [split_words(text) for text in some] if words is None else [spans_of(words[k]) for k in filled]
        split = [[text[a:b] for a, b in found] for text, found in zip(some, places, strict=True)]
        joined = [" ".join(of_text) for of_text in split]
        logits, unread = opened.logits([i], joined, listener=listener, words=split)
        answer = _tagged(saved, Logits(logits[0]), places, unread)
    else:
        chosen = None if spans is None else [spans[k] for k in filled]
        logits, _ = opened.logits([i], some, listener=listener, spans=chosen)
        answer = _answered(saved, logits[0])
    return answer if len(filled) == len(given) else _with_blanks(answer, filled, len(given))


def spans_of(words: Sequence[str]) -> list[tuple[int, int]]:
    """Where the words are in the text that they make, joined with single blanks."""
    return [(a, b) for a, b in word_spans(words).tolist()]


def check_given(path: Path, card: Json, n: int, *, spans: Spans | None, words: Sequence[Sequence[str]] | None) -> None:
    """Raise SpecError where spans or words are lacking, too many, or of no use."""
    if reads_spans(card) != (spans is not None):
        needed = "needs the span of each text" if spans is None else "reads whole texts, no spans"
        raise SpecError(f"probe {path}", needed)
    if words is not None and not of_words(card):
        raise SpecError(f"probe {path}", "reads whole texts, no words")
    for name, given in (("spans", spans), ("words", words)):
        if given is not None and len(given) != n:
            raise SpecError(name, f"one for each of {n} texts", str(len(given)))


def _answered(saved: SavedProbe, states: NDArray[np.float32] | RaggedArray) -> Prediction:
    """For whole texts, ``states``: (n, d_model), or their tokens."""
    task, estimator = TASKS[saved.card["task"]], saved.estimator
    labels = np.asarray(estimator.predict(states))
    if task.several:
        names = np.array(saved.card["labels"], dtype=np.object_)
        named = Target("", task, labels, names, np.empty(0, dtype=np.int64)).labels(labels)
        return Prediction(task, named, tuple(names), label_probability(estimator, states))
    if not hasattr(estimator, "predict_proba"):
        return Prediction(task, labels, ())
    probability = np.asarray(estimator.predict_proba(states), dtype=float)
    return Prediction(task, labels, tuple(estimator.classes_.tolist()), probability)


def _tagged(saved: SavedProbe, states: States, words: Sequence[Spans], unread: NDArray[np.bool_]) -> Prediction:
    """For words, whose ``states`` are one text's after the other's."""
    task, classes = TASKS[saved.card["task"]], np.array(saved.card["labels"])
    lengths = np.array([len(of_text) for of_text in words])
    types = np.empty(len(unread), dtype=np.object_)
    target = Target("", task, types, classes, np.zeros(len(unread), np.int64), words=Words(lengths, types, unread))
    texts = np.arange(len(words))
    codes = task.predict(target, states, saved.estimator, texts, bool(saved.card["viterbi"]))
    labels = np.empty(len(words), dtype=np.object_)
    labels[:] = target.sequences(codes, texts)
    return Prediction(task, labels, tuple(classes.tolist()), words=tuple(tuple(of_text) for of_text in words))


def _with_blanks(answer: Prediction, filled: Sequence[int], n: int) -> Prediction:
    """The answers in the places of their texts, and none in between."""
    numbers = answer.labels.dtype.kind == "f"
    labels = np.full(n, np.nan if numbers else None, dtype=answer.labels.dtype if numbers else np.object_)
    for i in range(n) if answer.words is not None else ():
        labels[i] = []
    for i, label in zip(filled, answer.labels.tolist(), strict=True):
        labels[i] = label
    probability, words = None, None
    if answer.probability is not None:
        probability = np.full((n, answer.probability.shape[1]), np.nan)
        probability[list(filled)] = answer.probability
    if answer.words is not None:
        of_text = dict(zip(filled, answer.words, strict=True))
        words = tuple(of_text.get(i, ()) for i in range(n))
    return replace(answer, labels=labels, probability=probability, words=words)


@dataclass(frozen=True)
class Entity:
    """An entity in a text: ``text[start:end]``."""

    type: str
    start: int
    end: int


@dataclass(frozen=True)
class TaggedText:
    """``words``: (first character, the one after the last) of each word of ``text``; ``tags``: one for each.

    (The tag is "", or O for entities, if a word was not read.)

    ``entities``: what the tags say, if they are of entities, read strictly as the score is (only B- begins one); else
    None.
    """

    text: str
    words: tuple[tuple[int, int], ...]
    tags: tuple[str, ...]
    entities: tuple[Entity, ...] | None


def tag_texts(probe: str | os.PathLike[str], texts: str | Sequence[str], **options: Any) -> list[TaggedText]:
    """``predict`` by a probe of word tags, with the same options, as words and entities with their places.

    Raises as ``predict``; SpecError for a probe of whole texts.
    """
    path, card = found_card(Path(probe), options.get("target"), options.get("listener") or Silent())
    if not of_words(card):
        raise SpecError(f"probe {path}", "must be one of word tags", str(card.get("task")))
    given = texts_of(texts)
    return tagged_texts(given, predict(path, given, **{**options, "target": card.get("target")}))


def tagged_texts(texts: Sequence[str], found: Prediction) -> list[TaggedText]:
    """What a probe of word tags answered, in the form of ``tag_texts``."""
    rows = zip(texts, found.words or (), found.labels, strict=True)
    return [
        TaggedText(text, tuple(words), tuple(tags), _entities(tags, words) if found.task.entities else None)
        for text, words, tags in rows
    ]


def _entities(tags: Sequence[str], words: Spans) -> tuple[Entity, ...]:
    return tuple(Entity(kind, words[a][0], words[b - 1][1]) for kind, a, b in entity_spans(tags))


def reads_spans(card: Json) -> bool:
    """Whether a probe's card says that it reads a span of each text."""
    return bool(card.get("cache", {}).get("pool_over") == "span")


def found_card(probe: Path, target: str | None, listener: Listener) -> tuple[Path, Json]:
    """Where the probe (or the heads) for ``target`` is, and its card. Raises as ``find_probe``."""
    if not is_heads(probe):
        path = find_probe(probe, target, listener)
        return path, read_card(path)
    from probekit.training.saved_heads import head_of, read_heads_card

    whole = read_heads_card(probe)
    return probe, {**whole["heads"][head_of(whole, target, f"heads {probe}")], "cache": whole["cache"]}


def find_probe(probe: Path, target: str | None, listener: Listener) -> Path:
    """``probe``, or if that is a folder the probe in it that is best on validation. Raises SpecError if there is none.

    ``target``: of which target; None where the folder is of one only.
    """
    if not probe.is_dir():
        return probe
    cards = {path: read_card(path) for path in sorted(probe.glob(f"*{SUFFIX}"))}
    if not cards:
        raise SpecError(f"probe {probe}", f"must be a {SUFFIX} file, or a folder of them", "a folder with none")
    targets = sorted({str(card.get("target")) for card in cards.values()})
    if len(targets) > 1 and target is None:
        raise SpecError(f"probe {probe}", "has probes of several targets: name one with --target", ", ".join(targets))
    if target is not None and target not in targets:
        raise SpecError(f"--target {target}", f"{probe} has probes of {', '.join(targets)}")
    fitting = {path: card for path, card in cards.items() if target in (None, card.get("target"))}
    metrics = sorted({str(card.get("scores", {}).get("metric")) for card in fitting.values()})
    if len(metrics) > 1:
        message = "has probes with different scores, of which none is the best: name one file"
        raise SpecError(f"probe {probe}", message, ", ".join(metrics))
    best = max(fitting, key=lambda path: _val_score(fitting[path]))
    score = f"{_val_score(fitting[best]):.3f} on validation{_test_score(fitting[best])}"
    of_several = f", the best of {len(fitting)}" if len(fitting) > 1 else ""
    listener.note(f"using {best.name}: layer {fitting[best].get('layer')}, {score}{of_several}")
    return best


def _test_score(card: Json) -> str:
    score = card.get("scores", {}).get("score")
    return f", {score:.3f} on test" if isinstance(score, int | float) else ""


def _val_score(card: Json) -> float:
    """None was kept: worse than any."""
    score = card.get("scores", {}).get("val_score")
    return float(score) if isinstance(score, int | float) else -np.inf


def open_probe(probe: Path) -> SavedProbe:
    """A saved probe whose card has what a prediction needs."""
    saved = load_probe(probe)
    check_usable(saved.card, f"card {card_path(probe)}")
    with _strangers_code(probe):
        _check_labels(saved, probe)
        _check_pooling(saved, probe)
    return saved


@contextmanager
def _strangers_code(probe: Path) -> Iterator[None]:
    """What is in somebody's file may raise whatever it likes when it is asked; it becomes a SpecError."""
    try:
        yield
    except (ProbekitError, MemoryError):
        raise
    except Exception as error:
        message = "must hold a fitted probe that answers for states of its model"
        raise SpecError(f"probe {probe}", message, f"{type(error).__name__}: {error}"[:160]) from error


def filled_rows(texts: Sequence[str], listener: Listener) -> list[int]:
    """Which of ``texts`` are not blank; how many are is said. Raises InputError if there is nothing to read."""
    filled = [i for i, text in enumerate(texts) if text.strip()]
    if len(texts) == 1 and not filled:
        raise InputError("text 1", "must not be empty", repr(texts[0][:80]))
    if not filled:
        raise InputError("texts", "at least one that is not blank", f"{len(texts)} blank ones" if texts else "none")
    blank = [i + 1 for i, text in enumerate(texts) if not text.strip()]
    if blank:
        shown = ", ".join(map(str, blank[:10])) + (", …" if len(blank) > 10 else "")
        listener.note(f"{len(blank)} of {len(texts)} texts are blank and have no answer (counted from 1: {shown})")
    return filled


def _check_pooling(saved: SavedProbe, probe: Path) -> None:
    """Raise SpecError where the card says tokens and the probe reads pooled states, or the reverse."""
    parts = saved.estimator.estimators_ if TASKS[saved.card["task"]].several else [saved.estimator]
    reading = {bool(getattr(part, "of_tokens", False)) for part in parts if not isinstance(part, DummyClassifier)}
    if reading - {of_tokens(saved.card)}:
        allowed = f"must be that of its probe, {'a pooling' if of_tokens(saved.card) else 'attention'}"
        raise SpecError(f"card {card_path(probe)}, field 'pooling'", allowed, saved.card["pooling"])


def _check_labels(saved: SavedProbe, probe: Path) -> None:
    """Answers are decoded by the card's labels where the estimator does not know them all; they must fit."""
    labels, task, estimator = saved.card["labels"], TASKS[saved.card["task"]], saved.estimator
    fits = not task.several or len(labels) == len(estimator.estimators_)
    if task.of_words:
        fits = labels == sorted(labels) and len(estimator.classes_) > 0 and set(estimator.classes_) <= set(labels)
    if not fits:
        raise SpecError(
            f"card {card_path(probe)}", "must have the labels of its probe, sorted", f"{len(labels)} others"
        )
