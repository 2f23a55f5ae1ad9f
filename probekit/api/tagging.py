"""A saved probe of word tags on new texts."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from probekit.api.predict import filled_rows, find_probe, open_probe, strangers_code
from probekit.arguments import texts_of
from probekit.errors import SpecError
from probekit.extraction.request import same_model
from probekit.inputs.raw_words import split_words
from probekit.metrics import entity_spans
from probekit.models.alignment import word_spans
from probekit.readspec import RunOptions
from probekit.spec import OF_WORDS, Json, Listener, Silent
from probekit.tasks.decoding import decode_words
from probekit.tasks.tags import lost_code


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


def tag_texts(
    probe: str | os.PathLike[str],
    texts: str | Sequence[str],
    *,
    target: str | None = None,
    words: Sequence[Sequence[str]] | None = None,
    model: str | os.PathLike[str] | None = None,
    device: str = "auto",
    threads: int | None = None,
    trust_remote_code: bool = False,
    listener: Listener | None = None,
) -> list[TaggedText]:
    """Tag the words of ``texts`` with a saved probe (``.skops``); the model reads them up to the probe's layer only.

    ``words``: those of each text, if it was joined from them with single blanks; else texts are split at blanks, with
    punctuation and clitics apart. The model reads the words with single blanks between, as it did for the probe.
    ``target``, ``model``: as for ``predict``. A blank text has no words.

    Raises SpecError for a probe of whole texts or one that can't be trusted or read, ModelError for another model,
    InputError where there is no text to read.
    """
    listener = listener or Silent()
    path = find_probe(Path(probe), target, listener)
    saved, given = open_probe(path), texts_of(texts)
    if not is_of_words(saved.card):
        raise SpecError(f"probe {path}", "must be one of word tags", str(saved.card["task"]))
    filled = filled_rows(given, listener)
    texts = [given[i] for i in filled]
    spans = (
        [split_words(text) for text in texts]
        if words is None
        else [[(a, b) for a, b in word_spans(words[i]).tolist()] for i in filled]
    )
    split = [[text[a:b] for a, b in found] for text, found in zip(texts, spans, strict=True)]
    source = same_model(saved.card["cache"], model)
    from probekit.extraction.reader import read_words  # here, because it loads torch

    options = RunOptions(device, threads, trust_remote_code=trust_remote_code)
    states, lost = read_words(split, card=saved.card, source=source, options=options, listener=listener)
    classes = np.array(saved.card["labels"])
    lengths = np.array([len(sentence) for sentence in split])
    with strangers_code(path):
        codes = decode_words(
            states,
            saved.estimator,
            np.arange(len(lost)),
            lost=lost,
            classes=classes,
            lost_code=lost_code(classes, saved.card["task"]),
            lengths=lengths if saved.card["viterbi"] else None,
        )
        tags = np.where(codes < 0, "", classes[codes]).tolist()
    ends = np.cumsum(lengths)
    of_texts = [tags[end - length : end] for end, length in zip(ends, lengths, strict=True)]
    tagged = [TaggedText(text, (), (), _entities([], [], saved.card)) for text in given]
    for i, found, mine in zip(filled, spans, of_texts, strict=True):
        tagged[i] = TaggedText(given[i], tuple(found), tuple(mine), _entities(mine, found, saved.card))
    return tagged


def is_of_words(card: Json) -> bool:
    """Whether a probe's card says that it tags words."""
    return card.get("task") in OF_WORDS


def _entities(tags: list[str], words: list[tuple[int, int]], card: Json) -> tuple[Entity, ...] | None:
    if card["task"] != "entities":
        return None
    return tuple(Entity(kind, words[a][0], words[b - 1][1]) for kind, a, b in entity_spans(tags))
