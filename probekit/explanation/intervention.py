"""Does the model use what a probe reads: what is asked, what is fitted, and what is said of the outcome.

What the label can be read by is taken out of every token's state at one layer, and what the layers above still know is
held against the same number of random directions taken out. The passes themselves are in ``upper``; no torch is here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from probekit.arguments import whole
from probekit.errors import InputError, SpecError
from probekit.evaluate.config import ProbeConfig, StateSource, splits_for
from probekit.evaluate.fit import Fit
from probekit.evaluate.plan import ProbeOptions, prepare
from probekit.evaluate.run import plan_fits
from probekit.evaluate.states import as_floats
from probekit.evaluate.table import Origin
from probekit.explanation.erase import (
    ERASERS,
    Change,
    Floats,
    Shift,
    along,
    along_direction,
    class_distance,
    leace,
    mean_difference,
    moments,
    random_erasure,
    random_shift,
    variance_removed,
)
from probekit.readspec import different_model
from probekit.spec import ATTENTION, Json
from probekit.splits import Split
from probekit.store import Cache
from probekit.tasks import TASKS, Target

if TYPE_CHECKING:
    import pandas as pd

MAX_ROWS = 2000
"""Of the training part, and of the test part; more are left out."""

FEW_ROWS = 5
"""Training rows per dimension below which a fitted map knows its own rows too well."""

BINS = 512
"""Of scores, in which a resampled AUROC is counted: exact up to so many rows, beyond that to a thousandth."""

PROBE, LOSS, ANSWER = "probe", "next-token loss", "answer"
"""What a row of the table measures."""

INTERVENTION_COLUMNS: tuple[str, ...] = (
    *("model", "dataset", "target", "task", "pooling", "probe", "erased_at", "erase", "rank", "steer"),
    *("measure", "layer", "metric", "baseline", "score_before", "score_fixed", "score_refitted"),
    *("random_fixed", "random_refitted", "random_sd", "causal_drop", "causal_random", "beyond_random"),
    *("ci_low", "ci_high", "shift", "random_shift", "shift_low", "shift_high"),
    *("variance_removed", "random_variance", "n_train", "n_test", "n_random", "seed", "cache"),
)
"""The columns of the table of an intervention; one that does not apply to a row is empty.

``score_fixed``: of the probe that was fitted on untouched states, for changed ones. ``score_refitted``: of one fitted
on changed states. ``causal_drop``: what the better of the two loses (for the loss, by how much it rises);
``causal_random``: the same for random directions, the mean of all draws; ``beyond_random``: the first minus the second,
with its 95% interval over test rows. ``random_sd``: over draws, of the better of the two. ``shift``: how much the mean
answer moves, of the fixed probe or of the model, which speaks behind its last layer; ``shift_low``, ``shift_high``: the
interval of what is beyond random in it.
"""


@dataclass(frozen=True)
class InterventionOptions:
    """What is asked, as people give it in Python. Raises SpecError for what no cache can make right.

    ``erase``: how what the label can be read by is found. ``steer``: add so many times what separates the classes
    instead. ``answer``: two words, in the order of the sorted classes. ``layers``: those above that are looked at; None
    for all in the cache. ``n_random``: draws of random directions. ``max_rows``: of each part. ``split``: as for
    ``probekit.probe``.
    """

    erase: str = "leace"
    steer: float | None = None
    answer: tuple[str, str] | None = None
    layers: Any = None
    n_random: int = 5
    seed: int = 0
    max_rows: int = MAX_ROWS
    split: str | float | None = None

    def __post_init__(self) -> None:
        if self.erase not in ERASERS:
            raise SpecError(f"--erase {self.erase}", f"one of {', '.join(ERASERS)}")
        for name, least, most in (("n_random", 1, 1000), ("seed", 0, 2**32 - 1), ("max_rows", 10, 2**31)):
            number = whole(getattr(self, name), name)
            if not least <= number <= most:
                option = f"--{RANDOM_OPTION if name == 'n_random' else name.replace('_', '-')} {number}"
                raise SpecError(option, f"{least} to {most:,}")
            object.__setattr__(self, name, number)
        if self.steer is not None and not (np.isfinite(self.steer) and self.steer):
            raise SpecError(f"--steer {self.steer:g}", "a number, of either sign, but not 0")

    def json(self) -> Json:
        """For the record of a table."""
        layers = self.layers if self.layers is None or isinstance(self.layers, str | int) else list(self.layers)
        return {**vars(self), "layers": layers, "answer": None if self.answer is None else list(self.answer)}


RANDOM_OPTION = "random"
"""What the command line calls ``n_random``."""


def answer_words(answer: str | Sequence[str] | None) -> tuple[str, str] | None:
    """The two words of ``--answer``, in a list or with a comma between. Their blanks are kept: they are in the tokens.

    >>> answer_words(" negative, positive")
    (' negative', ' positive')
    """
    if answer is None:
        return None
    words = answer.split(",") if isinstance(answer, str) else list(answer)
    if len(words) != 2 or not all(isinstance(word, str) and word.strip() for word in words):
        shown = ",".join(map(str, words))
        raise SpecError(f"--answer {shown!r}", "two words with a comma between, in the order of the sorted classes")
    return str(words[0]), str(words[1])


@dataclass(frozen=True)
class Asked:
    """The probe that is asked about: its card, by what kind it is fitted elsewhere, and the directions it reads by.

    ``called``: for messages. ``directions``: gives (d, k), or raises SpecError. ``sized``: whether the card says how
    many rows the probe was fitted and scored on.
    """

    called: str
    card: Json
    probe: Any
    directions: Callable[[], Floats]
    sized: bool = True


@dataclass(frozen=True)
class InterventionPlan:
    """All that is asked of a cache, every mistake found that can be found before the model is loaded.

    ``change``: of the states at ``layer``; ``randoms``: those that it is held against. ``fit``: the probe of a layer.
    ``layers``: those above.
    """

    cache: Cache
    options: InterventionOptions
    asked: Asked
    fit: Fit
    config: ProbeConfig
    source: StateSource
    origin: Origin
    layer: int
    layers: tuple[int, ...]
    change: Change
    randoms: tuple[Change, ...]
    variance: tuple[float, float]
    warnings: tuple[str, ...]

    @property
    def target(self) -> Target:
        """Whose labels are asked about."""
        return self.fit.target

    @property
    def split(self) -> Split:
        """The rows that are looked at."""
        return self.fit.split

    @property
    def pooling(self) -> str:
        """Of the probe."""
        return self.source.pooling

    @property
    def changes(self) -> tuple[Change, ...]:
        """That of the label, then the random ones."""
        return (self.change, *self.randoms)


@dataclass(frozen=True)
class InterventionResult:
    """What came of it. ``table``: a row for the probed layer, each one above, the loss and the answer.

    Its columns are ``INTERVENTION_COLUMNS``. ``verdict``: what it says and what not, one sentence each. ``warnings``:
    what a careful reader must know. ``record``: JSON with the options and where everything is from.
    """

    table: pd.DataFrame
    verdict: tuple[str, ...]
    warnings: tuple[str, ...] = ()
    record: Json = field(default_factory=dict)


# What is asked


def plan_intervention(cache: Cache, asked: Asked, options: InterventionOptions, *, name: str) -> InterventionPlan:
    """Read the target, divide the rows, fit what is erased on the training rows. ``name``: of the cache, in the table.

    Raises SpecError for a probe that is of other states, CacheError where the cache has no texts, InputError for labels
    that can't be used and states that are not finite.
    """
    card = asked.card
    layer = _check_cache(cache, asked)
    target_name = str(card.get("target"))
    probed = ProbeOptions(
        layers="all" if options.layers is None else options.layers,
        probe=asked.probe,
        pooling=[card["pooling"]],
        split=options.split,
        group=card.get("scores", {}).get("group"),
        task={target_name: card["task"]},
        refit=False,
    )
    plan = prepare(cache, [target_name], probed, name=name)
    source, target = plan.sources[0], plan.targets[0]
    labels = [str(label) for label in card["labels"]]
    if [str(label) for label in target.classes.tolist()] != labels:
        got = ", ".join(map(str, target.classes[:5])) or "numbers"
        raise SpecError(asked.called, f"must be of the classes in column {target.name!r} of {cache.path.name}", got)
    above = tuple(k for k in source.layers if k > layer)
    if options.layers is not None and above != source.layers:
        shown = ", ".join(str(k) for k in source.layers if k <= layer)
        raise SpecError(f"--layers {options.layers}", f"must be above layer {layer}, where the probe reads", shown)
    if not above:
        shown = ", ".join(map(str, cache.layers))
        raise SpecError(f"layer {layer}", "must have a layer above it in the cache, to see what becomes of it", shown)
    _check_use(target, options)
    split = splits_for(target, plan.config)[0]
    if asked.sized:
        _check_sizes(asked, split, cache)
    cut = replace(split, train=split.train[: options.max_rows], test=split.test[: options.max_rows])
    config = replace(plan.config, given=(cut,))
    fit = replace(plan_fits(target, config)[0], parts=("test",))
    change, randoms, variance = _fitted(cache, asked, fit, options, layer=layer)
    return InterventionPlan(
        cache=cache,
        options=options,
        asked=asked,
        fit=fit,
        config=config,
        source=source,
        origin=plan.origin,
        layer=layer,
        layers=above,
        change=change,
        randoms=randoms,
        variance=variance,
        warnings=tuple(dict.fromkeys([*target.notes, *split.warnings, *_warnings(cache, fit, split, options)])),
    )


def _check_cache(cache: Cache, asked: Asked) -> int:
    """The probe's layer. Raises SpecError where the probe is not of such states."""
    card, called = asked.card, asked.called
    if TASKS[card["task"]].of_words:
        raise SpecError(called, "must read whole texts; this one tags words")
    if card["pooling"] == ATTENTION:
        raise SpecError(called, "must read pooled states; this one weighs all tokens of a text")
    if differs := different_model(card["cache"], {**cache.spec, "n_layers": card["cache"].get("n_layers")}):
        what, mine, others = differs
        raise SpecError(called, f"must be of the states in {cache.path.name}, with {what} {others}", str(mine))
    for what in ("prompt", "chat_template", "pool_over"):
        if card["cache"].get(what) != cache.spec.get(what):
            allowed = f"must be of texts read as in {cache.path.name}, with {what.replace('_', ' ')} "
            raise SpecError(called, allowed + repr(cache.spec.get(what)), repr(card["cache"].get(what)))
    layer, depth = int(card["layer"]), int(cache.spec["n_layers"])
    if layer not in cache.layers:
        shown = ", ".join(map(str, cache.layers))
        raise SpecError(called, f"reads layer {layer}, of which {cache.path.name} has no states", f"layers {shown}")
    if layer >= depth:
        raise SpecError(called, f"must read a layer below the last, {depth}: nothing above it could use it", str(layer))
    if cache.spec.get("site", "block") != "block":
        raise SpecError("CACHE", "must have the states between blocks, --site block", str(cache.spec["site"]))
    if cache.spec.get("stride") is not None:
        raise SpecError("CACHE", "must have texts that were read whole, not in pieces with --stride")
    _ = cache.texts  # which raises CacheError where they were not stored
    return layer


def _check_use(target: Target, options: InterventionOptions) -> None:
    """Raise SpecError for an option that does not apply to the target."""
    two = target.task.stratified and len(target.classes) == 2
    kind = f"{len(target.classes)} classes" if target.task.stratified else target.task.name
    if options.answer is not None and not two:
        raise SpecError("--answer", "is for a target of two classes, whose AUROC is taken", f"{target.name}: {kind}")
    one_number = not len(target.classes)
    if options.steer is not None and not (two or one_number):
        raise SpecError("--steer", "is for a target of two classes or of numbers", f"{target.name}: {kind}")


def _check_sizes(asked: Asked, split: Split, cache: Cache) -> None:
    """Raise SpecError where the probe was fitted on other rows than those of ``split``, as far as numbers tell."""
    scores = asked.card.get("scores", {})
    said = [scores.get(f"n_{part}") for part in ("train", "val", "test")]
    if scores.get("seeds") != 1 or not all(isinstance(n, int) for n in said):
        return
    here = [len(split.train), len(split.val), len(split.test)]
    if said != here:
        mine, others = ("/".join(map(str, sizes)) for sizes in (said, here))
        allowed = f"was fitted with {mine} training, validation and test rows; those of {cache.path.name} are others"
        raise SpecError(asked.called, f"{allowed} (--split says how they are divided)", others)


def _fitted(
    cache: Cache, asked: Asked, fit: Fit, options: InterventionOptions, *, layer: int
) -> tuple[Change, tuple[Change, ...], tuple[float, float]]:
    """What is done to the states, the random ones beside it, and the share of variance that each takes out.

    Fitted on the pooled states of training rows. The shares are of the pooled states of the test rows.
    """
    states = as_floats(np.asarray(cache.layer(layer, asked.card["pooling"], mapped=False)))
    found = moments(states[fit.train], _as_numbers(fit.target, fit.train), f"layer {layer} of {cache.path.name}")
    d, rng = states.shape[1], np.random.default_rng(options.seed)
    change: Change
    randoms: tuple[Change, ...]
    if options.steer is not None:
        by = class_distance(found)
        if options.erase == "direction":
            by = along_direction(by, _checked(asked.directions(), d, asked.called)[:, -1])
        change = Shift(options.steer * by)
        norm = float(np.linalg.norm(change.by))
        randoms = tuple(random_shift(norm, d, rng) for _ in range(options.n_random))
    else:
        if options.erase == "direction":
            change = along(_checked(asked.directions(), d, asked.called), found.mean)
        else:
            change = {"leace": leace, "mean-difference": mean_difference}[options.erase](found)
        if change.rank == 0:
            raise InputError(f"column {fit.target.name!r}", "must go with the states at all, to be erased from them")
        randoms = tuple(random_erasure(change.rank, found.mean, rng) for _ in range(options.n_random))
    tested = states[fit.split.test]
    if not np.isfinite(tested).all():
        raise InputError(f"layer {layer} of {cache.path.name}", "must have finite hidden states", "NaN or infinity")
    shares = [variance_removed(one, tested) for one in (change, *randoms)]
    return change, randoms, (shares[0], float(np.mean(shares[1:])))


def _checked(directions: Floats, d: int, called: str) -> Floats:
    """Of states of d dimensions, finite, and at least one that is not zero."""
    if len(directions) != d or not np.isfinite(directions).all() or not np.any(directions):
        raise SpecError(called, f"must read by directions in {d} dimensions", f"{len(directions)}, or none")
    return directions


def _as_numbers(target: Target, units: NDArray[np.int64]) -> Floats:
    """(n, k): one-hot classes, 0 and 1 by label, or numbers."""
    if target.task.stratified:
        return np.eye(len(target.classes))[target.codes[units]]
    return np.asarray(target.y[units], dtype=np.float64).reshape(len(units), -1)


def _warnings(cache: Cache, fit: Fit, split: Split, options: InterventionOptions) -> list[str]:
    found = []
    for part in ("train", "test"):
        whole_part, here = getattr(split, part), getattr(fit.split, part)
        if len(here) < len(whole_part):
            found.append(f"{len(here):,} of {len(whole_part):,} {part} rows are looked at; --max-rows takes more")
    n, d = len(fit.train), cache.d_model
    if options.erase == "leace" and options.steer is None and n < FEW_ROWS * d:
        found.append(
            f"LEACE was fitted on {n:,} rows of {d:,} dimensions: with fewer than {FEW_ROWS * d:,} rows it takes too "
            "much from those rows and too little from others, so what refitted probes lose is overstated"
        )
    if options.answer is not None and cache.spec.get("prompt") is None and not cache.spec.get("chat_template"):
        found.append("--answer compares words at the end of bare texts: the cache was made without --prompt")
    return found


def as_record(plan: InterventionPlan, found: Mapping[str, Any]) -> Json:
    """JSON with all that the numbers depend on, and ``found`` beside."""
    cache, card = plan.cache, plan.asked.card
    return {
        "options": plan.options.json(),
        "probe": {name: card.get(name) for name in ("target", "task", "probe", "pooling", "layer", "sha256")},
        "cache": {"file": cache.path.name, "fingerprint": cache.fingerprint, "spec": cache.spec},
        "split": {"how": plan.split.how, "n_train": len(plan.split.train), "n_test": len(plan.split.test)},
        "layers": list(plan.layers),
        **found,
    }
