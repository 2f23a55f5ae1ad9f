"""The whole evaluation of tags: divide the sentences, fit every layer, choose on validation, report the test once."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from probekit.errors import SpecError
from probekit.evaluate.executor import Counter, run_tasks
from probekit.evaluate.fit import Fit, LayerOutcomes, Outcome
from probekit.evaluate.per_class import class_rows
from probekit.evaluate.question import Question, splits_for
from probekit.evaluate.run import finish
from probekit.evaluate.table import Curve, Origin
from probekit.evaluate.tagging.layer import TagFit, TagKeepTask, TagTask, fit_tag_layer, tag_score, tag_terms
from probekit.evaluate.tagging.words import Tagging, WordSource
from probekit.metrics import entity_table
from probekit.probes import PROBES
from probekit.spec import Evaluation, Json, Listener, Silent
from probekit.splits import Split, inner_folds
from probekit.tasks.lookup import control_codes, lookup_codes
from probekit.tasks.tags import Tags

DEFAULT_PROBE = "logistic"

MANY_WORDS = 10_000
"""From here on one inner fold is enough to choose a hyper-parameter by."""


def evaluate_tags(
    source: WordSource,
    targets: Sequence[Tags],
    question: Question,
    *,
    tagging: Tagging,
    origin: Origin,
    executor: Executor | None = None,
    listener: Listener | None = None,
) -> Evaluation:
    """Fit every probe of every layer on words and put the table together; rows and groups are sentences.

    Hyper-parameters are chosen by training sentences that are held out, the layer by the validation sentences. A word
    without a token counts as tagged wrong (as outside of an entity). Beside each score: always the commonest tag, the
    commonest tag of each word type, and the control task of Hewitt and Liang (2019) by the same probe.

    Raises SpecError for a probe that does not exist or can't do it, InputError for groups or splits that can't be used.
    """
    listener = listener or Silent()
    fits = [fit for tags in targets for fit in plan_tag_fits(source, tags, question, tagging)]
    listener.stage("probing", total=len(source.layers), unit="layers")
    tasks = [TagTask(layer, partial(source.read, layer), tuple(fits)) for layer in source.layers]
    layers: list[LayerOutcomes] = Counter(listener)(run_tasks(executor, fit_tag_layer, tasks))
    curves = _curves(source, layers, fits)
    of_tags = [tags.target for tags in targets]
    found = finish(curves, of_tags, question, origin=origin, executor=executor, listener=listener)
    return replace(found, warnings=(*found.warnings, *_warnings(fits)))


def plan_tag_fits(source: WordSource, tags: Tags, question: Question, tagging: Tagging) -> list[TagFit]:
    """All fits of one column of tags, by seed and probe. Raises SpecError for an unfit probe."""
    probes = question.probes or (DEFAULT_PROBE,)
    able = [name for name, probe in PROBES.items() if "classification" in probe.tasks]
    for probe in probes:
        if probe not in able:
            allowed = f"target {tags.target.name!r} is tags, for which there are {', '.join(able)}"
            raise SpecError(f"--probe {probe}", allowed)
    if tagging.viterbi and not tags.is_entities:
        raise SpecError("--viterbi", f"needs entity tags (B-, I-, O); target {tags.target.name!r} has others")
    types = _types(source)
    found = []
    for split in splits_for(tags.target, question):
        in_training = tags.words_of(split.train)
        learnt_from = _sentences(tags, split.train, tagging.max_words)
        fit = TagFit(
            fit=Fit(tags.target, split, probes[0], (), tags.codes),
            tags=tags,
            learnt_from=learnt_from,
            lost=source.lost,
            known=_known(types, in_training),
            control=control_codes(types, tags.codes, in_training, seed=split.seed),
            viterbi=tagging.viterbi,
            to_keep=_sentences(tags, _mixed(split), tagging.max_words),
        )
        folds = _folds(fit, question)
        found += [replace(fit, fit=replace(fit.fit, probe=probe, folds=folds)) for probe in probes]
    return found


def _types(source: WordSource) -> NDArray[np.object_]:
    """(n_words,) the words as written; objects, since one long word would make fixed-width text of all of them huge."""
    return np.array([word for sentence in source.words for word in sentence], dtype=np.object_)


def _known(types: NDArray[np.object_], in_training: NDArray[np.int64]) -> NDArray[np.bool_]:
    seen = set(types[in_training])
    return np.array([word in seen for word in types], dtype=np.bool_)


def _mixed(split: Split) -> NDArray[np.int64]:
    """Training and validation sentences in one random order (of theirs, so that their order in the file is nothing)."""
    return np.random.default_rng(split.seed).permutation(np.concatenate([split.train, split.val]))


def _sentences(tags: Tags, train: NDArray[np.int64], max_words: int) -> NDArray[np.int64]:
    """The first of ``train``, in their random order, that have at most ``max_words`` words together; at least two."""
    n = int(np.searchsorted(np.cumsum(tags.lengths[train]), max_words, side="right"))
    return train[: max(n, 2)]


def _folds(fit: TagFit, question: Question) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Inner folds of the training words, whole sentences (or groups of them) together."""
    # Sentences are named by their place in the random order, so that their order in the file changes nothing.
    n = len(fit.learnt_from)
    names = np.arange(n) if question.groups is None else question.groups.values[fit.learnt_from]
    there = ~fit.lost[fit.tags.words_of(fit.learnt_from)]
    groups = np.repeat(names, fit.tags.lengths[fit.learnt_from])[there]
    codes = fit.tags.codes[fit.train]
    if len(np.unique(groups)) < 2:
        raise SpecError("--max-words", "must take in words that can be read from two sentences (or groups) at least")
    folds = inner_folds(codes, stratify=False, groups=groups, seed=fit.fit.split.seed)
    return folds[:1] if len(codes) > MANY_WORDS else folds


def _curves(source: WordSource, layers: Sequence[LayerOutcomes], fits: Sequence[TagFit]) -> list[Curve]:
    """One curve per column of tags and probe, the seeds together."""
    curves = []
    for name, probe in dict.fromkeys((fit.fit.target.name, fit.fit.probe) for fit in fits):
        at = [i for i, fit in enumerate(fits) if (fit.fit.target.name, fit.fit.probe) == (name, probe)]
        of_curve = [fits[i] for i in at]
        outcomes = tuple(tuple(layer.outcomes[i] for i in at) for layer in layers)
        curves.append(
            Curve(
                pooling=source.pooling,
                final_norm=source.final_norm,
                layers=source.layers,
                max_abs=tuple(layer.max_abs for layer in layers),
                pair_cosine=tuple(layer.pair_cosine for layer in layers),
                fits=tuple(fit.fit for fit in of_curve),
                outcomes=outcomes,
                controls=tuple(tuple(_control(outcome) for outcome in seeds) for seeds in outcomes),
                terms=tuple(_terms(fit, [seeds[s] for seeds in outcomes]) for s, fit in enumerate(of_curve)),
                classes=partial(_class_rows, of_curve, outcomes),
                keep=partial(_keep_task, source, of_curve[0], outcomes),
                baseline=tuple(_trivial_score(fit) for fit in of_curve),
                text_baseline=tuple(_lookup_score(source, fit) for fit in of_curve),
                length_baseline=(),
            )
        )
    return curves


def _keep_task(source: WordSource, fit: TagFit, outcomes: Sequence[Sequence[Outcome]], k: int) -> TagKeepTask:
    return TagKeepTask(partial(source.read, source.layers[k]), source.layers[k], fit, outcomes[k][0].estimator)


def _control(outcome: Outcome) -> Outcome:
    return replace(outcome, metrics={"accuracy": outcome.metrics["control_accuracy"]})


def _terms(fit: TagFit, by_layer: Sequence[Outcome]) -> NDArray[np.float64]:
    return np.stack([tag_terms(fit.tags, fit.fit.split.test, outcome.predicted) for outcome in by_layer], axis=1)


def _trivial_score(fit: TagFit) -> float:
    tags, split = fit.tags, fit.fit.split
    commonest = int(np.argmax(np.bincount(tags.codes[tags.words_of(split.train)])))
    return tag_score(tags, split.test, np.full(len(tags.words_of(split.test)), commonest))


def _lookup_score(source: WordSource, fit: TagFit) -> float:
    tags, split = fit.tags, fit.fit.split
    types = _types(source)
    train, test = tags.words_of(split.train), tags.words_of(split.test)
    return tag_score(tags, split.test, lookup_codes(types, tags.codes, train=train, test=test))


def _class_rows(fits: Sequence[TagFit], outcomes: Sequence[Sequence[Outcome]], layer: int) -> list[Json]:
    """By type of entity (strict), or by tag: the test words of all seeds together."""
    tags = fits[0].tags
    tests = [fit.fit.split.test for fit in fits]
    truth = [tags.codes[tags.words_of(test)] for test in tests]
    predicted = [outcome.predicted for outcome in outcomes[layer]]
    if not tags.is_entities:
        return class_rows(np.concatenate(truth), np.concatenate(predicted), tags.target.classes)
    true = [tagged for codes, test in zip(truth, tests, strict=True) for tagged in tags.sequences(codes, test)]
    answered = [tagged for codes, test in zip(predicted, tests, strict=True) for tagged in tags.sequences(codes, test)]
    rows = [dict(row) for row in entity_table(true, answered, strict=True)]
    return [{"class": row.pop("type"), **row} for row in rows]


def _warnings(fits: Sequence[TagFit]) -> list[str]:
    """What a careful reader must know of the words."""
    found = []
    for fit in {fit.tags.target.name: fit for fit in fits}.values():
        tags, split = fit.tags, fit.fit.split
        n_test = len(test := tags.words_of(split.test))
        n_lost = int(np.count_nonzero(fit.lost[test]))
        if n_lost:
            how = "as outside of every entity" if tags.is_entities else "as wrong"
            found.append(f"{n_lost:,} of {n_test:,} test words have no token (cut off, or unknown) and count {how}")
        in_training = tags.words_of(split.train)
        n_lost_training = int(np.count_nonzero(fit.lost[in_training]))
        if n_lost_training:
            found.append(f"{n_lost_training:,} of {len(in_training):,} training words have no token and are left out")
        if tags.n_repaired:
            found.append(f"{tags.target.name}: {tags.n_repaired:,} tags began an entity with I- and were read as B-")
        if len(fit.learnt_from) < len(split.train):
            found.append(
                f"probes are fitted on {len(fit.train):,} of {len(tags.words_of(split.train)):,} training words "
                f"({len(fit.learnt_from):,} of {len(split.train):,} sentences, drawn at random); --max-words takes more"
            )
    return list(dict.fromkeys(found))
