"""What a trained head gave, in the form of a probe's outcome, and the table of all heads beside their probes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from probekit.evaluate.fit import ALL_PARTS, Fit, Outcome, metrics_of_test
from probekit.evaluate.table import Curve, build_table
from probekit.probes import Probe
from probekit.spec import HEAD_COLUMNS, Evaluation, Json
from probekit.training.options import TrainOptions
from probekit.training.plan import Chosen, TrainPlan
from probekit.training.truth import Logits, Truth, answers

if TYPE_CHECKING:
    import pandas as pd

HEAD_NAMES = {"mlp": "mlp-torch"}
"""In tables, where another probe has the head's name."""


@dataclass(frozen=True)
class Trained:
    """A head of one seed. ``logits``: (n_rows, n_answers) of the rows of all parts, NaN elsewhere.

    ``epoch``: whose weights were kept; ``n_trained``: parameters; ``centre_of_gravity``: of a mix, else NaN.
    """

    truth: Truth
    logits: NDArray[np.float32]
    epoch: int
    n_trained: int
    seconds_per_step: float
    centre_of_gravity: float = float("nan")


def head_name(chosen: Chosen, options: TrainOptions) -> str:
    """In the column ``probe``."""
    return HEAD_NAMES.get(chosen.options.head, chosen.options.head) + options.suffix


def outcome_of(fit: Fit, trained: Trained) -> Outcome:
    """Answers and scores of all parts, by the task's own rules."""
    target, task, truth = fit.target, fit.target.task, trained.truth
    states = Logits(trained.logits)
    estimator = answers(truth.link, target.classes, truth.mean, truth.scale)
    given = {part: task.predict(target, states, estimator, fit.units(part), fit.viterbi) for part in ALL_PARTS}
    scores = {part: task.score(target, fit.units(part), found) for part, found in given.items()}
    metrics = metrics_of_test(fit, states, estimator, given["test"])
    return Outcome(scores=scores, score=metrics[task.metric], predicted=given["test"], metrics=metrics)


def heads_table(
    plan: TrainPlan, chosen: Sequence[Chosen], trained: Sequence[Sequence[Trained]]
) -> tuple[pd.DataFrame, Evaluation]:
    """A row for each target's probe and one for its head; and the evaluation of the heads.

    ``trained[head][seed]``.
    """
    import pandas as pd  # noqa: PLC0415  (not needed before)

    curves = [_curve(one, plan.options, seeds) for one, seeds in zip(chosen, trained, strict=True)]
    details: Json = {"cache": plan.origin.cache}
    nothing = [None] * len(curves)
    found = build_table(curves, origin=plan.origin, group=plan.config.groups, details=details, kept=nothing)
    rows: list[Mapping[str, Any]] = []
    for k, (one, seeds) in enumerate(zip(chosen, trained, strict=True)):
        d = int(plan.cache.d_model)
        rows.append({**one.row, "backbone": "frozen", "init": "", "n_trained": seeds[0].truth.n_answers * (d + 1)})
        rows.append(
            {
                **table_row(found.table, k),
                "backbone": plan.options.backbone,
                "init": "probe" if plan.options.at_probe(one.options) else "random",
                "epoch": float(np.mean([seed.epoch for seed in seeds])),
                "n_trained": seeds[0].n_trained,
                "centre_of_gravity": float(np.mean([seed.centre_of_gravity for seed in seeds])),
                "seconds_per_step": float(np.mean([seed.seconds_per_step for seed in seeds])),
            }
        )
    return pd.DataFrame(rows, columns=list(HEAD_COLUMNS)), found


def table_row(table: pd.DataFrame, k: int) -> Json:
    """A row as JSON knows it, but for NaN."""
    return {str(name): value for name, value in table.iloc[k].to_dict().items()}


def _curve(chosen: Chosen, options: TrainOptions, seeds: Sequence[Trained]) -> Curve:
    """A curve of one layer."""
    name = Probe(head_name(chosen, options), (), _never)
    fits = tuple(replace(fit, probe=name) for fit in chosen.fits)
    outcomes = tuple(outcome_of(fit, one) for fit, one in zip(fits, seeds, strict=True))
    task, nothing = chosen.target.task, np.full((1, len(fits)), np.nan)

    def same(column: str) -> tuple[float, ...]:
        value = chosen.row[column]
        return (float("nan") if value is None else float(value),) * len(fits)

    return Curve(
        pooling=chosen.source.pooling if chosen.options.head != "attention" else "attention",
        final_norm=chosen.source.final_norm,
        layers=(chosen.layer,),
        max_abs=(same("max_abs")[0],),
        pair_cosine=(float("nan"),),
        fits=fits,
        outcomes=(outcomes,),
        control=nothing,
        with_layer0=nothing,
        random_model=nothing,
        terms=tuple(
            task.terms(fit.target, fit.split.test, found.predicted)[:, None]
            for fit, found in zip(fits, outcomes, strict=True)
        ),
        classes=partial(_class_rows, fits, outcomes),
        refit=_never,
        baseline=same("baseline"),
        text_baseline=same("text_baseline"),
        length_baseline=same("length_baseline"),
    )


def _class_rows(fits: Sequence[Fit], outcomes: Sequence[Outcome], _layer: int) -> list[Json]:
    target = fits[0].target
    return target.task.class_rows(target, [fit.split.test for fit in fits], [found.predicted for found in outcomes])


def _never(*_arguments: Any, **_options: Any) -> Any:
    """Heads are not fitted once more."""
    raise NotImplementedError
