"""Few-shot curves: how good a probe is after k rows of each class, over many draws of those rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import Normalizer, StandardScaler

from probekit.errors import InputError, SpecError
from probekit.evaluate.config import ProbeConfig, StateSource, splits_for
from probekit.evaluate.executor import Counter, run_units
from probekit.evaluate.fit import Fit, LayerOutcomes, Place, fit_layer
from probekit.evaluate.run import able_probes
from probekit.evaluate.states import LayerReader
from probekit.evaluate.table import Origin
from probekit.probes import PROBES, FittedProbe, Probe
from probekit.probes.grid_search import fit_once
from probekit.spec import SHOT_COLUMNS, Json, Listener, Silent
from probekit.splits import Split, own_parts
from probekit.tasks import Target

if TYPE_CHECKING:
    import pandas as pd

MTEB_SEED = 42


@dataclass(frozen=True)
class Shots:
    """How many rows to learn from: each of ``shots``, ``draws`` times.

    Of every class; in all, for numbers; with each label, where rows have several. ``protocol``: "probekit" or "mteb", a
    key of ``PROTOCOLS``.
    """

    shots: tuple[int, ...]
    draws: int = 10
    protocol: str = "probekit"


MTEB = Shots((8,), 10, "mteb")
"""The classification protocol of MTEB (Muennighoff et al. 2023), as its code has it."""


def few_shots(
    sources: Sequence[StateSource],
    targets: Sequence[Target],
    config: ProbeConfig,
    *,
    shots: Shots,
    origin: Origin,
    executor: Executor | None = None,
    listener: Listener | None = None,
) -> pd.DataFrame:
    """Mean, standard deviation and 2.5 to 97.5% of the test score over draws, columns ``SHOT_COLUMNS``.

    One row per target x pooling x layer x number of shots. Draws are nested: those of 4 shots are among those of 8. The
    draws of all splits stand together. Raises as ``plan_shots``.
    """
    listener = listener or Silent()
    fits = plan_shots(targets, config, shots)
    places = [Place({"states": LayerReader(source.read)}, fits) for source in sources]
    units = [(s, layer) for s, source in enumerate(sources) for layer in source.layers]
    listener.stage("few shots", total=len(units), unit="layers")
    found: list[LayerOutcomes] = Counter(listener)(run_units(executor, fit_layer, places, units))
    rows = []
    for target in targets:
        of_target = [i for i, fit in enumerate(fits) if fit.target.name == target.name]
        for (s, layer), outcomes in zip(units, found, strict=True):
            curve = {
                "model": origin.model,
                "dataset": origin.dataset,
                "target": target.name,
                "pooling": sources[s].pooling,
                "layer": layer,
                "protocol": shots.protocol,
                "probe": fits[of_target[0]].probe.name,
                "metric": target.task.metric,
                "cache": origin.cache,
            }
            for k in shots.shots:
                of_shots = [i for i in of_target if fits[i].role == str(k)]
                rows.append(curve | _summary(k, [outcomes.outcomes[i].score for i in of_shots]))
    import pandas as pd

    return pd.DataFrame(rows, columns=list(SHOT_COLUMNS))


def plan_shots(targets: Sequence[Target], config: ProbeConfig, shots: Shots) -> tuple[Fit, ...]:
    """All that is to be drawn, by target, split, number of shots and draw.

    Raises SpecError for impossible shots, or mteb's protocol on other things than classes; InputError for a class or
    label with too few rows.
    """
    if not shots.shots or min(shots.shots) < 1 or shots.draws < 1:
        raise SpecError("--shots, --draws", "numbers from 1")
    return tuple(fit for target in targets for fit in PROTOCOLS[shots.protocol](target, config, shots))


def _draw(target: Target, split: Split, probe: Probe, k: int, rows: NDArray[np.int64]) -> Fit:
    """A fit on the drawn ``rows``; its role is the number of shots."""
    return Fit(target, split, probe, (), rows, rows, role=str(k), parts=("test",), whole=False)


def _fixed(unfitted: Callable[[int], BaseEstimator], X: NDArray[Any], y: NDArray[Any], **_folds: Any) -> FittedProbe:
    """As every kind of probe is fitted, but that there is nothing to choose."""
    return fit_once(unfitted(X.shape[1]), X, y)


def _logistic(_d: int) -> BaseEstimator:
    return make_pipeline(StandardScaler(), LogisticRegression(C=1.0, max_iter=1000))


def _ridge(d: int) -> BaseEstimator:
    return make_pipeline(StandardScaler(), Ridge(alpha=d))


def _mteb(_d: int) -> BaseEstimator:
    return make_pipeline(Normalizer(), LogisticRegression(C=1.0, max_iter=100, random_state=MTEB_SEED))


FIXED = {
    "logistic": Probe("logistic", ("classification",), partial(_fixed, _logistic)),
    "ridge": Probe("ridge", ("regression",), partial(_fixed, _ridge)),
}
"""The default probes. So few rows can't choose a hyper-parameter: it is fixed."""

MTEB_PROBE = Probe("mteb", ("classification",), partial(_fixed, _mteb))


def _summary(k: int, scores: Sequence[float]) -> Json:
    low, high = np.quantile(scores, [0.025, 0.975])
    sd = float(np.std(scores, ddof=1)) if len(scores) > 1 else float("nan")
    mean = float(np.mean(scores))
    return {"shots": k, "draws": len(scores), "mean": mean, "sd": sd, "low": float(low), "high": float(high)}


def _nested_draws(target: Target, config: ProbeConfig, shots: Shots) -> list[Fit]:
    """The first k (of each class) of the shuffled training rows, for each split."""
    probe = _own(config, target) or FIXED[target.task.probe]
    fits = []
    for split in splits_for(target, config):
        _check_enough(target, split, max(shots.shots))
        orders = [np.random.default_rng([split.seed, draw]).permutation(split.train) for draw in range(shots.draws)]
        fits += [_draw(target, split, probe, k, _first(order, target, k)) for k in shots.shots for order in orders]
    return fits


def _own(config: ProbeConfig, target: Target) -> Probe | None:
    """The estimator of the user's own that is asked for and can do it, if any."""
    return next((probe for probe in able_probes(target, config) if probe.name not in PROBES), None)


def _check_enough(target: Target, split: Split, k: int) -> None:
    counts = np.array([np.count_nonzero(members) for members in target.members(split.train)])
    few = np.flatnonzero((counts < k) & (counts > 0))
    if len(few):
        what = f"column {target.name!r}"
        if len(target.classes):
            what = f"{'label' if target.task.several else 'class'} {target.classes[few[0]]!s}"
        raise InputError(f"--shots {k}", f"{what} has {counts[few[0]]} training rows")


def _mteb_draws(target: Target, config: ProbeConfig, shots: Shots) -> list[Fit]:
    """MTEB's: the same seed for every draw, but each shuffles the order that the one before it left.

    The rows to draw from are all that neither test nor are the input's own validation rows, in the order of the input.
    """
    if not target.task.stratified:
        holds = "several labels per text" if target.task.several else "numbers"
        raise SpecError("--protocol mteb", f"is for classes; column {target.name!r} holds {holds}")
    split = splits_for(target, config)[0]
    own_validation = len(own_parts(target, config.split)["val"]) > 0
    order = np.sort(split.train if own_validation else np.concatenate([split.train, split.val]))
    fits = []
    for _ in range(shots.draws):
        np.random.RandomState(MTEB_SEED).shuffle(order)
        fits += [_draw(target, split, MTEB_PROBE, k, _first(order, target, k)) for k in shots.shots]
    return fits


def _first(order: NDArray[np.int64], target: Target, k: int) -> NDArray[np.int64]:
    """The first k rows of each class (or the first k) in ``order``, keeping it.

    Where rows have several labels: the first k that have each label, so that some labels may occur more often.
    """
    drawn = np.zeros(len(order), dtype=np.bool_)
    for members in target.members(order):
        drawn[np.flatnonzero(members)[:k]] = True
    return order[drawn]


PROTOCOLS: dict[str, Callable[[Target, ProbeConfig, Shots], list[Fit]]] = {
    "probekit": _nested_draws,
    "mteb": _mteb_draws,
}
