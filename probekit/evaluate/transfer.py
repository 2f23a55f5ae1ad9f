"""Does a probe hold on other texts? Fitted on one data set, tested on every other."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from probekit.errors import InputError
from probekit.evaluate.config import ProbeConfig, StateSource
from probekit.evaluate.executor import Counter, run_units
from probekit.evaluate.fit import Elsewhere, Fit, LayerOutcomes, Place, fit_layer
from probekit.evaluate.run import plan_fits
from probekit.evaluate.states import LayerReader
from probekit.evaluate.table import best_layer
from probekit.metrics.bootstrap import bootstrap_terms, interval
from probekit.spec import TRANSFER_COLUMNS, Listener, Silent
from probekit.tasks import Target
from probekit.tasks.task import Codes

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Domain:
    """One data set: its name, the states of one pooling, one target, and how to divide the rows."""

    name: str
    source: StateSource
    target: Target
    config: ProbeConfig


def transfer(
    domains: Sequence[Domain],
    *,
    model: str,
    executor: Executor | None = None,
    listener: Listener | None = None,
) -> pd.DataFrame:
    """Fit on each domain's training rows and test on every domain's test rows, at each layer.

    Returns one row per probe x pair x layer, columns ``TRANSFER_COLUMNS``. The domains share layers, pooling and target
    name. Where ``trained_on`` is ``tested_on``, the score is that of the layer table. ``selected``: the layer that is
    best on the validation rows of ``trained_on``; what is tested on decides nothing. Intervals as in the layer table,
    over rows or groups of ``tested_on``. ``n_duplicate``: test rows of ``tested_on`` whose exact text is in training or
    validation rows of ``trained_on``, the most of any seed. Raises as ``plan_transfer``.
    """
    fits = plan_transfer(domains)
    listener = listener or Silent()
    layers = domains[0].source.layers
    reads = {str(d): LayerReader(domain.source.read) for d, domain in enumerate(domains)}
    place = Place(reads, tuple(fit for of_domain in fits for fit in of_domain))
    listener.stage("transfer", total=len(layers), unit="layers")
    units = [(0, layer) for layer in layers]
    found: list[LayerOutcomes] = Counter(listener)(run_units(executor, fit_layer, [place], units))
    pairs = [(a, b) for a in range(len(domains)) for b in range(len(domains))]
    n_duplicate = {(a, b): _n_known(domains[a], fits[a], domains[b], fits[b]) for a, b in pairs}
    rows = []
    for probe in dict.fromkeys(fit.probe.name for fit in fits[0]):
        which = [i for i, fit in enumerate(fits[0]) if fit.probe.name == probe]
        for a in range(len(domains)):
            of_probe = [[layer.outcomes[a * len(fits[0]) + i] for i in which] for layer in found]
            best = best_layer([[outcome.scores["val"] for outcome in seeds] for seeds in of_probe])
            for k, outcomes in enumerate(of_probe):
                of_layer = {"model": model, "layer": layers[k], "probe": probe, "selected": k == best}
                for b in range(len(domains)):
                    of_pair = _pair(domains, fits, [o.elsewhere[b] for o in outcomes], a=a, b=b, which=which)
                    rows.append(of_layer | of_pair | {"n_duplicate": n_duplicate[a, b]})
    import pandas as pd

    return pd.DataFrame(rows, columns=list(TRANSFER_COLUMNS))


def plan_transfer(domains: Sequence[Domain]) -> tuple[tuple[Fit, ...], ...]:
    """The fits of every domain, in the same order.

    Raises InputError where the targets differ in kind or classes, SpecError for a probe that can't do it.
    """
    _check_targets(domains)
    plans = [
        [fit for fit in plan_fits(domain.target, replace(domain.config, controls=())) if fit.takes(domain.source)]
        for domain in domains
    ]
    return tuple(
        tuple(
            replace(
                fit,
                features=str(a),
                parts=("val",),
                whole=False,
                elsewhere=tuple(Elsewhere(str(b), o[i].target, o[i].split.test) for b, o in enumerate(plans)),
            )
            for i, fit in enumerate(plan)
        )
        for a, plan in enumerate(plans)
    )


def transfer_warnings(table: pd.DataFrame) -> tuple[str, ...]:
    """What a careful reader must know: test texts that the probe had seen in the other data set."""
    pairs = table[table["trained_on"] != table["tested_on"]].drop_duplicates(["target", "trained_on", "tested_on"])
    known = pairs[pairs["n_duplicate"].fillna(0) > 0]
    return tuple(
        f"{row['target']}: {row['n_duplicate']:.0f} of {row['n_test']:.0f} test texts of {row['tested_on']} are in the "
        f"training or validation rows of {row['trained_on']}: the score there is not one of new texts"
        for row in known.to_dict("records")
    )


def _pair(
    domains: Sequence[Domain],
    fits: Sequence[Sequence[Fit]],
    answers: Sequence[Codes],
    *,
    a: int,
    b: int,
    which: list[int],
) -> dict[str, Any]:
    """What the probes ``which`` (of all seeds), fitted on domain a, are worth on domain b."""
    trained, tested = domains[a], domains[b]
    task, groups = tested.target.task, tested.config.groups
    scores, draws = [], []
    for i, given in zip(which, answers, strict=True):
        split = fits[b][i].split
        of_row = None if groups is None else groups.values[split.test]
        terms = task.terms(tested.target, split.test, given)
        scores.append(float(task.value(terms.sum(axis=0))))
        draws.append(bootstrap_terms(task.value, terms[:, None], groups=of_row, seed=split.seed))
    low, high = interval(np.concatenate(draws))
    return {
        "target": trained.target.name,
        "pooling": trained.source.pooling,
        "metric": task.metric,
        "trained_on": trained.name,
        "tested_on": tested.name,
        "score": float(np.mean(scores)),
        "ci_low": low,
        "ci_high": high,
        "n_train": round(np.mean([len(fits[a][i].split.train) for i in which])),
        "n_test": round(np.mean([len(fits[b][i].split.test) for i in which])),
    }


def _n_known(trained: Domain, fits: Sequence[Fit], tested: Domain, others: Sequence[Fit]) -> float:
    """Test texts of one domain that are in training or validation rows of the other; NaN where texts are lacking."""
    known, texts = trained.config.texts, tested.config.texts
    if known is None or texts is None:
        return float("nan")
    most = 0
    for fit, other in zip(fits, others, strict=True):
        seen = {known[i] for i in (*fit.split.train, *fit.split.val)}
        most = max(most, sum(texts[i] in seen for i in other.split.test))
    return most


def _check_targets(domains: Sequence[Domain]) -> None:
    first = domains[0]
    for other in domains[1:]:
        if other.target.task.name != first.target.task.name:
            allowed = f"must be {first.target.task.name} as in {first.name}"
            raise InputError(f"target {other.target.name!r} of {other.name}", allowed, other.target.task.name)
        if not np.array_equal(other.target.classes, first.target.classes):
            mine, theirs = (", ".join(map(str, domain.target.classes[:6])) for domain in (first, other))
            allowed = f"must have the classes of {first.name}: {mine}"
            raise InputError(f"target {other.target.name!r} of {other.name}", allowed, theirs)
