"""The whole evaluation: divide the rows, fit every layer, choose on validation, report the test rows once."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor
from functools import partial

import numpy as np
from numpy.typing import NDArray

from probekit.errors import SpecError
from probekit.evaluate.baselines import LengthTask, TextTask, length_score, text_score, trivial_score
from probekit.evaluate.controls import shuffled_labels, word_counts
from probekit.evaluate.executor import Counter, run_tasks
from probekit.evaluate.fit import METRIC, Fit, LayerOutcomes, LayerTask, Outcome, fit_layer
from probekit.evaluate.keep import KeepTask, keep_probes
from probekit.evaluate.per_class import class_rows
from probekit.evaluate.question import Question, StateSource, splits_for
from probekit.evaluate.table import Curve, Origin, build_table
from probekit.metrics import SCORES
from probekit.probes import PROBES
from probekit.spec import Evaluation, Json, Listener, Silent
from probekit.splits import inner_folds
from probekit.tasks import Target

DEFAULT_PROBE = {"classification": "logistic", "regression": "ridge", "multilabel": "logistic"}


def evaluate(
    sources: Sequence[StateSource],
    targets: Sequence[Target],
    question: Question,
    *,
    origin: Origin,
    executor: Executor | None = None,
    listener: Listener | None = None,
) -> Evaluation:
    """Fit every probe of every layer and put the table together.

    Hyper-parameters are chosen by folds of the training rows, the layer by the validation rows; the test rows give the
    score. ``executor``: where layers are fitted side by side; None for one after the other, here.

    Raises SpecError for a probe that does not exist or can't do the task, InputError for labels, groups or splits that
    can't be used.
    """
    listener = listener or Silent()
    plans = [plan_fits(target, question) for target in targets]
    fits = tuple(fit for plan in plans for fit in plan)
    tasks = [_layer_task(source, layer, fits) for source in sources for layer in source.layers]
    counts = None if question.texts is None else word_counts(question.texts)
    text_tasks = [] if counts is None else [TextTask(counts, fit) for fit in fits if _is_first(fit, fits)]
    length_tasks = {
        i: LengthTask(question.n_tokens, fit)
        for i, fit in enumerate(fits)
        if question.n_tokens is not None and "length" in fit.controls
    }
    listener.stage("probing", total=len(tasks) + len(text_tasks) + len(length_tasks), unit="fits")
    count = Counter(listener)
    layers: list[LayerOutcomes] = count(run_tasks(executor, fit_layer, tasks))
    text_scores: list[float] = count(run_tasks(executor, text_score, text_tasks))
    length_scores: list[float] = count(run_tasks(executor, length_score, list(length_tasks.values())))
    length_of = dict(zip(length_tasks, length_scores, strict=True))
    text_of = {(t.fit.target.name, t.fit.split.seed): s for t, s in zip(text_tasks, text_scores, strict=True)}
    curves = []
    for s, source in enumerate(sources):
        start = sum(len(earlier.layers) for earlier in sources[:s])
        of_source = layers[start : start + len(source.layers)]
        curves += _curves(source, of_source, fits, text_of=text_of, length_of=length_of)
    return finish(curves, targets, question, origin=origin, executor=executor, listener=listener)


def finish(
    curves: Sequence[Curve],
    targets: Sequence[Target],
    question: Question,
    *,
    origin: Origin,
    executor: Executor | None,
    listener: Listener,
) -> Evaluation:
    """The table of all curves, and the probes that are kept."""
    details = {"cache": origin.cache, **split_details(targets, question, [f for curve in curves for f in curve.fits])}
    tasks = [curve.keep(curve.best) for curve in curves]
    kept = keep_probes(tasks, executor=executor, listener=listener) if question.refit else [None] * len(curves)
    return build_table(curves, origin=origin, group=question.groups, details=details, kept=kept)


def _layer_task(source: StateSource, layer: int, fits: tuple[Fit, ...]) -> LayerTask:
    has_layer0 = layer != 0 and 0 in source.layers
    return LayerTask(
        layer,
        partial(source.read, layer),
        fits,
        read_layer0=partial(source.read, 0) if has_layer0 and any("conditional" in f.controls for f in fits) else None,
        read_random=None if source.read_random is None else partial(source.read_random, layer),
    )


def plan_fits(target: Target, question: Question) -> list[Fit]:
    """All fits of one target, by seed, (control after real) kind and probe. Raises SpecError for an unfit probe."""
    kind = target.task.kind
    probes = question.probes or (DEFAULT_PROBE[kind],)
    for probe in probes:
        if probe not in PROBES:
            raise SpecError(f"--probe {probe}", f"one of {', '.join(PROBES)}")
    ability = "regression" if kind == "regression" else "classification"
    able = [probe for probe in probes if ability in PROBES[probe].tasks]
    if not able:
        right = ", ".join(name for name, probe in PROBES.items() if ability in probe.tasks)
        raise SpecError(f"--probe {','.join(probes)}", f"target {target.name!r} is {kind}, for which there are {right}")
    splits = splits_for(target, question)
    fits = []
    for split in splits:
        groups = None if question.groups is None else question.groups.values[split.train]
        folds = inner_folds(target.truth[split.train], stratify=target.is_classes, groups=groups, seed=split.seed)
        parts = (split.train, split.val, split.test)
        fits += [Fit(target, split, probe, folds, target.y, controls=question.controls) for probe in able]
        if "shuffled" in question.controls:
            random = shuffled_labels(target.y, parts, seed=split.seed, texts=question.texts)
            fits += [Fit(target, split, probe, folds, random, is_control=True) for probe in able]
    return fits


def _is_first(fit: Fit, fits: Sequence[Fit]) -> bool:
    """Whether ``fit`` stands first of those with its target and split, which share one text baseline."""
    return fit is next(f for f in fits if f.target is fit.target and f.split is fit.split)


def _curves(
    source: StateSource,
    layers: Sequence[LayerOutcomes],
    fits: Sequence[Fit],
    *,
    text_of: dict[tuple[str, int], float],
    length_of: dict[int, float],
) -> list[Curve]:
    """One curve per target and probe, the seeds together."""
    curves = []
    for target, probe in dict.fromkeys((fit.target.name, fit.probe) for fit in fits):
        of_curve = [i for i, fit in enumerate(fits) if (fit.target.name, fit.probe) == (target, probe)]
        real = [i for i in of_curve if not fits[i].is_control]
        control = [i for i in of_curve if fits[i].is_control]
        curves.append(
            Curve(
                pooling=source.pooling,
                final_norm=source.final_norm,
                layers=source.layers,
                max_abs=tuple(layer.max_abs for layer in layers),
                pair_cosine=tuple(layer.pair_cosine for layer in layers),
                fits=tuple(fits[i] for i in real),
                outcomes=tuple(tuple(layer.outcomes[i] for i in real) for layer in layers),
                controls=tuple(tuple(layer.outcomes[i] for i in control) for layer in layers),
                terms=tuple(_terms(fits[i], [layer.outcomes[i] for layer in layers]) for i in real),
                classes=partial(_class_rows, [fits[i] for i in real], [[x.outcomes[i] for i in real] for x in layers]),
                keep=partial(_keep_task, source, fits[real[0]], [layer.outcomes[real[0]] for layer in layers]),
                baseline=tuple(trivial_score(fits[i]) for i in real),
                text_baseline=tuple(text_of.get((target, fits[i].split.seed), float("nan")) for i in real),
                length_baseline=tuple(length_of.get(i, float("nan")) for i in real),
            )
        )
    return curves


def _keep_task(source: StateSource, fit: Fit, by_layer: Sequence[Outcome], k: int) -> KeepTask:
    return KeepTask(partial(source.read, source.layers[k]), fit, by_layer[k].estimator)


def _terms(fit: Fit, by_layer: Sequence[Outcome]) -> NDArray[np.float64]:
    """(n_test, n_layers, n_terms) what each test row adds to the sums of the score."""
    truth, score = fit.target.truth[fit.split.test], SCORES[METRIC[fit.target.task.kind]]
    return np.stack([score.terms(truth, outcome.predicted) for outcome in by_layer], axis=1)


def _class_rows(fits: Sequence[Fit], outcomes: Sequence[Sequence[Outcome]], layer: int) -> list[Json]:
    """The test rows of all seeds together, by class; none for numbers."""
    target = fits[0].target
    if not len(target.classes):
        return []
    truth = np.concatenate([target.truth[fit.split.test] for fit in fits])
    return class_rows(truth, np.concatenate([outcome.predicted for outcome in outcomes[layer]]), target.classes)


def split_details(targets: Sequence[Target], question: Question, fits: Sequence[Fit]) -> Json:
    """JSON with what the targets are and how the rows were divided."""
    splits = {(fit.target.name, fit.split.seed): fit.split for fit in fits}
    return {
        "targets": {
            target.name: {
                "task": target.task.kind,
                "how": target.task.how,
                "otherwise": target.task.otherwise,
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
        "seeds": list(question.seeds),
    }
