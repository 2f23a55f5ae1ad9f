"""The whole evaluation: divide the rows, fit every layer, choose on validation, report the test rows once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from probekit.errors import SpecError
from probekit.evaluate.baselines import baseline_places, text_key
from probekit.evaluate.config import ProbeConfig, StateSource, splits_for
from probekit.evaluate.controls import shuffled_labels
from probekit.evaluate.executor import Counter, run_units
from probekit.evaluate.fit import (
    Fit,
    Kept,
    Key,
    LayerOutcomes,
    Outcome,
    Place,
    Refit,
    fit_layer,
    refit_probe,
)
from probekit.evaluate.states import BesideLayer0, LayerReader, Read
from probekit.evaluate.table import Curve, Origin, build_table
from probekit.probes import PROBES, Folds, Probe, as_probes
from probekit.spec import Evaluation, Json, Listener, Silent
from probekit.splits import Split, inner_folds
from probekit.tasks import Target, Task
from probekit.tasks.lookup import control_codes
from probekit.tasks.task import Units

MANY_WORDS = 10_000
"""From here on one inner fold is enough to choose a hyper-parameter by."""

Where = tuple[int, int]
"""A place and a layer."""


def evaluate(
    sources: Sequence[StateSource],
    targets: Sequence[Target],
    config: ProbeConfig,
    *,
    origin: Origin,
    executor: Executor | None = None,
    listener: Listener | None = None,
) -> Evaluation:
    """Fit every probe of every layer and put the table together.

    Hyper-parameters are chosen by folds of the training rows, the layer by the validation rows; the test rows give the
    score. Targets of words need sources of words; groups and parts are then of sentences, and a word without sub-tokens
    counts as tagged wrong (as outside of an entity). ``executor``: where layers are fitted side by side; None for one
    after the other, here.

    Raises SpecError for a probe that does not exist or can't do the task, InputError for labels, groups or splits that
    can't be used.
    """
    listener = listener or Silent()
    fits = [fit for target in targets for fit in plan_fits(target, config)]
    sources = [source for source in sources if any(fit.takes(source) for fit in fits)]
    places = [_place(source, fits, config) for source in sources]
    more = baseline_places(fits, config)
    units: list[Where] = [(len(places) + i, 0) for i in range(len(more))]  # first: a few of them can take longest
    units += [(s, layer) for s, source in enumerate(sources) for layer in source.layers]
    listener.stage("probing", total=len(units), unit="fits")
    results = run_units(executor, fit_layer, [*places, *more], units)
    import pandas  # noqa: F401  (while the workers fit: the table needs it, and its import takes long)

    done: list[LayerOutcomes] = Counter(listener)(results)
    at = dict(zip(units, done, strict=True))
    baselines: dict[Key, Outcome] = {}
    for i, place in enumerate(more):
        baselines |= at[len(places) + i, 0].by_key(place)
    curves = [curve for s in range(len(sources)) for curve in _curves(sources, places, s, at, baselines)]
    details = {"cache": origin.cache, **split_details(targets, config, fits)}
    kept: list[Kept | None] = [None] * len(curves)
    if config.refit:
        listener.stage("refitting", total=len(curves), unit="probes")
        again = [curve.refit(curve.best) for curve in curves]
        kept = Counter(listener)(run_units(executor, refit_probe, places, again))
    found = build_table(curves, origin=origin, group=config.groups, details=details, kept=kept)
    return replace(found, warnings=(*found.warnings, *_word_warnings(fits)))


def _place(source: StateSource, fits: Sequence[Fit], config: ProbeConfig) -> Place:
    """All that is fitted on the layers of ``source``, controls included."""
    found = [fit for fit in fits if fit.takes(source)]
    for fit in found.copy():
        of_score = replace(fit, parts=("test",), whole=False, control=None, mdl=False)
        if fit.role != "probe" or fit.target.task.of_words:
            continue
        if "conditional" in config.controls and 0 in source.layers and not source.of_tokens:
            found.append(replace(of_score, role="conditional", features="with layer 0"))
        if source.read_random is not None:
            found.append(replace(of_score, role="random", features="random"))
    reads: dict[str, Read] = {"states": LayerReader(source.read), "with layer 0": BesideLayer0(source.read)}
    if source.read_random is not None:
        reads["random"] = LayerReader(source.read_random, " of the random model")
    return Place(reads, tuple(found))


def plan_fits(target: Target, config: ProbeConfig) -> list[Fit]:
    """All fits of one target, by seed, (shuffled after real) labels and probe.

    Raises SpecError for a probe that does not exist or can't do it, and for an option that does not apply.
    """
    able = able_probes(target, config)
    if target.task.of_words and config.viterbi and not target.task.entities:
        raise SpecError("--viterbi", f"needs entity tags (B-, I-, O); target {target.name!r} has others")
    for probe in able if config.viterbi else ():
        if not probe.has_probability:
            raise SpecError("--viterbi", f"needs a probe with probabilities; {probe.name} has none")
    plan = _plan_words if target.task.of_words else _plan_texts
    return [fit for split in splits_for(target, config) for fit in plan(target, split, able, config)]


def able_probes(target: Target, config: ProbeConfig) -> list[Probe]:
    """The probes that are asked for and can do it. Raises SpecError for one that there is not, and if none is able."""
    task = target.task
    probes = as_probes(config.probes or (task.probe,))
    able = [probe for probe in probes if _can(probe, task)]
    if not able:
        right = ", ".join(name for name, kind in PROBES.items() if _can(kind, task))
        names = ",".join(probe.name for probe in probes)
        raise SpecError(f"--probe {names}", f"target {target.name!r} is {task.name}, for which there are {right}")
    return able


def _can(probe: Probe, task: Task) -> bool:
    """Whether ``probe`` is for such a task. A word is no text, whose tokens are to be weighed."""
    return task.ability in probe.tasks and not (probe.of_tokens and task.of_words)


def _plan_texts(target: Target, split: Split, probes: Sequence[Probe], config: ProbeConfig) -> list[Fit]:
    groups = None if config.groups is None else config.groups.values[split.train]
    stratify = target.task.stratified
    folds = inner_folds(target.truth[split.train], stratify=stratify, groups=groups, seed=split.seed)
    keep = np.concatenate([split.train, split.val])
    coded = "mdl" in config.controls and stratify
    fits = [Fit(target, split, p, folds, split.train, keep, mdl=coded and has_code(target, p.name)) for p in probes]
    if "shuffled" not in config.controls:
        return fits
    parts = (split.train, split.val, split.test)
    y = shuffled_labels(target.y, parts, seed=split.seed, texts=config.texts)
    codes = target.coded(y) if len(target.codes) else target.codes
    random = replace(target, y=y, codes=codes)
    return fits + [replace(fit, target=random, role="shuffled", mdl=False) for fit in fits]


def has_code(target: Target, probe: str) -> bool:
    """Whether the control "mdl" applies: it is of the logistic probe and of labels of which each row has one."""
    return probe == "logistic" and target.task.stratified


def _plan_words(target: Target, split: Split, probes: Sequence[Probe], config: ProbeConfig) -> list[Fit]:
    train = _first_sentences(target, split.train, config.max_words)
    # Training and validation sentences in one random order (of theirs, so that their order in the file is nothing).
    mixed = np.random.default_rng(split.seed).permutation(np.concatenate([split.train, split.val]))
    keep = _first_sentences(target, mixed, config.max_words)
    learnt_from = target.rows_of(split.train)
    control = control_codes(target.of_words.types, target.codes, learnt_from, seed=split.seed)
    folds = _word_folds(target, train, split.seed, config)
    return [Fit(target, split, p, folds, train, keep, control=control, viterbi=config.viterbi) for p in probes]


def _first_sentences(target: Target, sentences: Units, max_words: int) -> Units:
    """The first of ``sentences``, in their random order, that have at most ``max_words`` words; at least two."""
    n = int(np.searchsorted(np.cumsum(target.of_words.lengths[sentences]), max_words, side="right"))
    return sentences[: max(n, 2)]


def _word_folds(target: Target, train: Units, seed: int, config: ProbeConfig) -> Folds:
    """Inner folds of the readable training words, whole sentences (or groups of them) together."""
    # Sentences are named by their place in the random order, so that their order in the file changes nothing.
    names = np.arange(len(train)) if config.groups is None else config.groups.values[train]
    there = ~target.of_words.unread[target.rows_of(train)]
    groups = np.repeat(names, target.of_words.lengths[train])[there]
    if len(np.unique(groups)) < 2:
        raise SpecError("--max-words", "must take in words that can be read from two sentences (or groups) at least")
    codes = target.codes[target.readable(train)]
    folds = inner_folds(codes, stratify=False, groups=groups, seed=seed)
    return folds[:1] if len(codes) > MANY_WORDS else folds


def _curves(
    sources: Sequence[StateSource],
    places: Sequence[Place],
    s: int,
    at: Mapping[Where, LayerOutcomes],
    baselines: Mapping[Key, Outcome],
) -> list[Curve]:
    """One curve per target and probe of source ``s``, the seeds together."""
    source, place = sources[s], places[s]
    layers = [at[s, layer] for layer in source.layers]
    found = [layer.by_key(place) for layer in layers]
    curves = []
    for name, probe in dict.fromkeys((fit.target.name, fit.probe.name) for fit in place.fits):
        of_curve = {i: fit for i, fit in enumerate(place.fits) if fit.key[:2] == (name, probe) and fit.role == "probe"}
        fits = tuple(of_curve.values())
        task = fits[0].target.task
        outcomes = tuple(tuple(by_key[fit.key] for fit in fits) for by_key in found)
        by_role = partial(_test_scores, fits, found)
        by_words = [[outcome.control_score for outcome in seeds] for seeds in outcomes]
        curves.append(
            Curve(
                pooling=source.pooling,
                final_norm=source.final_norm,
                layers=source.layers,
                max_abs=tuple(layer.max_abs for layer in layers),
                pair_cosine=tuple(layer.pair_cosine for layer in layers),
                fits=fits,
                outcomes=outcomes,
                control=np.array(by_words) if task.of_words else by_role("shuffled"),
                with_layer0=by_role("conditional"),
                random_model=by_role("random"),
                terms=tuple(_terms(fit, [seeds[i] for seeds in outcomes]) for i, fit in enumerate(fits)),
                classes=partial(_class_rows, fits, outcomes),
                refit=partial(_refit, s, source.layers, min(of_curve), outcomes),
                baseline=tuple(_dummy_score(fit) for fit in fits),
                text_baseline=tuple(_test_score(baselines, text_key(fit)) for fit in fits),
                length_baseline=tuple(_test_score(baselines, fit.key._replace(role="length")) for fit in fits),
            )
        )
    return curves


def _test_scores(fits: Sequence[Fit], found: Sequence[Mapping[Key, Outcome]], role: str) -> NDArray[np.float64]:
    """(n_layers, n_seeds) of the fits that are as ``fits`` but for their role; NaN where there are none."""
    return np.array([[_test_score(by_key, fit.key._replace(role=role)) for fit in fits] for by_key in found])


def _test_score(found: Mapping[Key, Outcome], key: Key) -> float:
    return found[key].score if key in found else float("nan")


def _dummy_score(fit: Fit) -> float:
    """The test score of the answer that needs no text at all."""
    target, split = fit.target, fit.split
    return target.task.score(target, split.test, target.task.dummy(target, split.train, split.test))


def _refit(place: int, layers: Sequence[int], fit: int, outcomes: Sequence[Sequence[Outcome]], k: int) -> Refit:
    return Refit(place, layers[k], fit, outcomes[k][0].estimator)


def _terms(fit: Fit, by_layer: Sequence[Outcome]) -> NDArray[np.float64]:
    """(n_test, n_layers, n_terms) what each test unit adds to the sums of the score."""
    target, test = fit.target, fit.split.test
    return np.stack([target.task.terms(target, test, outcome.predicted) for outcome in by_layer], axis=1)


def _class_rows(fits: Sequence[Fit], outcomes: Sequence[Sequence[Outcome]], layer: int) -> list[Json]:
    """The test rows of all seeds together, by class."""
    target, predicted = fits[0].target, [outcome.predicted for outcome in outcomes[layer]]
    return target.task.class_rows(target, [fit.split.test for fit in fits], predicted)


def split_details(targets: Sequence[Target], config: ProbeConfig, fits: Sequence[Fit]) -> Json:
    """JSON with what the targets are and how the rows were divided."""
    splits = {(fit.target.name, fit.split.seed): fit.split for fit in fits}
    return {
        "targets": {
            target.name: {
                "task": target.task.name,
                "how": target.how,
                "otherwise": target.otherwise,
                "classes": [str(c) for c in target.classes],
                "n_rows": len(target),
                "n_missing": target.n_missing,
                "n_rare": target.n_rare,
            }
            for target in targets
        },
        "splits": [
            {
                "target": name,
                "seed": seed,
                "how": split.how,
                "n_train": len(split.train),
                "n_val": len(split.val),
                "n_test": len(split.test),
                "n_duplicate": split.n_duplicate,
                "n_crossing_groups": split.n_crossing,
            }
            for (name, seed), split in splits.items()
        ],
        "seeds": list(config.seeds),
    }


def _word_warnings(fits: Sequence[Fit]) -> list[str]:
    """What a careful reader must know of the words."""
    found = []
    for fit in {fit.target.name: fit for fit in fits if fit.target.task.of_words}.values():
        target, split = fit.target, fit.split
        test, in_training = target.rows_of(split.test), target.rows_of(split.train)
        n_test, n_training = (int(np.count_nonzero(target.of_words.unread[rows])) for rows in (test, in_training))
        if n_test:
            how = "as outside of every entity" if target.task.entities else "as wrong"
            found.append(f"{n_test:,} of {len(test):,} test words have no token (cut off, or unknown) and count {how}")
        if n_training:
            found.append(f"{n_training:,} of {len(in_training):,} training words have no token and are left out")
        if len(fit.train) < len(split.train):
            found.append(
                f"probes are fitted on {len(target.readable(fit.train)):,} of {len(in_training):,} training words "
                f"({len(fit.train):,} of {len(split.train):,} sentences, drawn at random); --max-words takes more"
            )
    return list(dict.fromkeys(found))
