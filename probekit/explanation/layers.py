"""Words x layers: which words moved the answer of the probe of every layer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from probekit.evaluate.baselines import TEXT, WordCounts
from probekit.evaluate.fit import Fit, Outcome, Place, fit_layer
from probekit.evaluate.plan import ProbeOptions, ProbePlan, prepare
from probekit.evaluate.run import plan_fits
from probekit.evaluate.states import LayerReader
from probekit.explanation.methods import Asked, moved, removed
from probekit.explanation.opened import Reading, Scorer, probe_scorer
from probekit.explanation.results import LayerExplanation, Settings
from probekit.explanation.texts import answer_index
from probekit.explanation.trust import SHARE
from probekit.explanation.words import Bound
from probekit.probes import PROBES
from probekit.spec import Json, Listener
from probekit.store import Cache
from probekit.tasks import TASKS


@dataclass(frozen=True)
class LayerProbes:
    """A probe for each of ``layers``, fitted as the saved one was; ``fit``: as it was asked for.

    ``texts``: of the cache, None where it has none.
    """

    layers: tuple[int, ...]
    scorers: tuple[Scorer, ...]
    outcomes: tuple[Outcome, ...]
    fit: Fit
    texts: Sequence[str] | None


def fit_layers(cache: Cache, card: Json, listener: Listener, *, layers: Any = "all") -> LayerProbes:
    """Fit the probe of ``card`` (of heads: the task's own probe) at every layer of ``cache``, through the one fit.

    ``cache``: read as the card says. Raises as ``probekit.probe``.
    """
    task = TASKS[card["task"]]
    probe = card["probe"] if card["probe"] in PROBES else task.probe
    options = ProbeOptions(
        layers=layers,
        probe=probe,
        pooling=None if PROBES[probe].of_tokens or task.of_words else card["pooling"],
        task="auto" if task.of_words else {card["target"]: task.name},
        subword=card["pooling"] if task.of_words else "mean",
        refit=False,
    )
    plan: ProbePlan = prepare(cache, [card["target"]], options, name=cache.path.name)
    sources, targets = next(part for part in plan.parts if part[1])
    fit = plan_fits(targets[0], plan.config)[0]
    states = next(source for source in sources if fit.takes(source))
    place = Place({"states": LayerReader(states.read)}, (fit,))
    listener.stage("probing", total=len(states.layers), unit="layers")
    outcomes = []
    for layer in states.layers:
        outcomes.append(fit_layer([place], (0, layer)).outcomes[0])
        listener.advance(len(outcomes))
    labels = [value.item() if isinstance(value, np.generic) else value for value in targets[0].classes]
    cards = [{**card, "layer": layer, "probe": probe, "labels": labels} for layer in states.layers]
    scorers = [probe_scorer(outcome.estimator, of) for outcome, of in zip(outcomes, cards, strict=True)]
    return LayerProbes(states.layers, tuple(scorers), tuple(outcomes), fit, plan.config.texts)


def explain_layers(
    reading: Reading, bound: Bound, probes: LayerProbes, *, answer: Any, method: str, settings: Settings, at: int = 0
) -> LayerExplanation:
    """The words of ``bound`` by every layer's probe. ``answer``: the class or label; None for a number.

    By occlusion all layers are read in one pass for each word left out; by another method each layer has its own.
    """
    index = [answer_index(scorer, answer) or 0 for scorer in probes.scorers]
    importance = np.full((len(probes.layers), len(bound.words)), np.nan)
    if method == "occlusion":
        variants = [bound, *(removed(reading, bound, [w], settings.remove, at=at) for w in bound.read)]
        scores = reading.scores_of(variants, probes.scorers, at=at)
        values = np.array([of_layer[0, k] for of_layer, k in zip(scores, index, strict=True)])
        for row, of_layer, k in zip(importance, scores, index, strict=True):
            row[bound.read] = of_layer[0, k] - of_layer[1:, k]
    else:
        readings = [replace(reading, opened=replace(reading.opened, scorer=scorer)) for scorer in probes.scorers]
        values = np.array([one.scores([bound], at=at)[0, k] for one, k in zip(readings, index, strict=True)])
        for row, one, k in zip(importance, readings, index, strict=True):
            row[:] = moved(one, Asked(bound, (k,), at), method, settings).words[0]
    by_words = _by_words(probes, bound, answer)
    n_top = math.ceil(SHARE * len(bound.read))
    top = np.zeros(0, dtype=np.int64)
    if by_words is not None:
        top = np.sort(bound.read[np.argsort(-np.abs(by_words[bound.read]), kind="stable")[:n_top]])
    size = np.nan_to_num(np.abs(importance))
    with np.errstate(invalid="ignore"):
        share = size[:, top].sum(1) / size.sum(1) if by_words is not None else np.full(len(size), np.nan)
    target = probes.fit.target
    return LayerExplanation(
        text=bound.text,
        target=target.name,
        answer=answer,
        probe=probes.fit.probe.name,
        method=method,
        metric=target.task.metric,
        layers=probes.layers,
        words=bound.words,
        importance=importance,
        value=values,
        score=np.array([outcome.score for outcome in probes.outcomes]),
        baseline=by_words,
        baseline_words=tuple(top.tolist()),
        share=share,
        chance=n_top / len(bound.read),
    )


def _by_words(probes: LayerProbes, bound: Bound, answer: Any) -> NDArray[np.float64] | None:
    """(n_words,) what the text-only baseline's answer loses without each word, NaN for words that were not read.

    It is fitted on the training rows as for the layer table, then asked for the text without each word.
    """
    fit = probes.fit
    if probes.texts is None or fit.target.task.of_words or fit.target.task.several:
        return None
    whole = fit.target.task.ability == "regression"
    without = [bound.text[:a] + bound.text[b:] for a, b in (bound.words[w] for w in bound.read)]
    counts = WordCounts([*probes.texts, bound.text, *without])
    of_text = replace(fit, probe=TEXT, role="text", features="text", parts=("test",), control=None, mdl=False)
    n = len(probes.texts)
    outcome = fit_layer([Place({"text": counts}, (of_text,))], (0, 0)).outcomes[0]
    X = counts(0, {}).rows(np.arange(n, n + 1 + len(without)))
    estimator: Any = outcome.estimator
    if whole:
        scores = np.asarray(estimator.predict(X), dtype=np.float64)
    else:
        k = [str(known) for known in estimator.classes_].index(str(answer))
        p = np.clip(estimator.predict_proba(X)[:, k], 1e-12, 1 - 1e-12)
        scores = np.log(p) - np.log1p(-p)
    found = np.full(len(bound.words), np.nan)
    found[bound.read] = scores[0] - scores[1:]
    return found
