"""From outcomes to rows: means over seeds, intervals, the layer chosen on validation, and what to warn of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from probekit.evaluate.fit import Fit, Kept, Outcome, Refit
from probekit.metrics.bootstrap import N_DRAWS, bootstrap_terms, differences_from, interval
from probekit.spec import CLASS_COLUMNS, TABLE_COLUMNS, ChosenProbe, Evaluation, Json
from probekit.splits import Column
from probekit.tasks import Task

if TYPE_CHECKING:
    pass

SINK_COSINE = 0.98
"""Mean pooling beyond it: what all texts share, an attention sink, hides what they don't."""

FEW_UNITS = 10  # test rows or groups; fewer say next to nothing
DRAWS_PER_COMPARISON = 200  # the smallest corrected p-value is 2 / this
TIE = 1e-12  # validation scores nearer than this are equal: the shallower layer is chosen


@dataclass(frozen=True)
class Origin:
    """Where the states come from; copied into every row of the table. ``cache``: its name, none like it in a table."""

    model: str
    revision: str
    dataset: str
    n_layers: int
    n_truncated: int
    cache: str = ""


@dataclass(frozen=True)
class Curve:
    """The outcomes of one target, pooling and probe. ``outcomes[layer][seed]``.

    ``control``, ``with_layer0``, ``random_model``: (n_layers, n_seeds) test scores of the same probe on labels that
    mean nothing, beside layer 0, and on a model with random weights; NaN where not asked for. ``terms[seed]``: (n_test,
    n_layers, n_terms) what each test unit adds to the sums that the score is made of. ``classes``: the rows of the
    table by class for the layer at a position. ``refit``: how to fit the first seed's probe of the layer at a position
    once more. ``fits``, ``baseline``, ``text_baseline``, ``length_baseline``: one per seed. ``max_abs``,
    ``pair_cosine``: one per layer.
    """

    pooling: str
    final_norm: frozenset[int]
    layers: tuple[int, ...]
    max_abs: tuple[float, ...]
    pair_cosine: tuple[float, ...]
    fits: tuple[Fit, ...]
    outcomes: tuple[tuple[Outcome, ...], ...]
    control: NDArray[np.float64]
    with_layer0: NDArray[np.float64]
    random_model: NDArray[np.float64]
    terms: tuple[NDArray[np.float64], ...]
    classes: Callable[[int], list[Json]]
    refit: Callable[[int], Refit]
    baseline: tuple[float, ...]
    text_baseline: tuple[float, ...]
    length_baseline: tuple[float, ...]

    @property
    def task(self) -> Task:
        """Of the target."""
        return self.fits[0].target.task

    @property
    def val_scores(self) -> list[list[float]]:
        """``[layer][seed]``."""
        return [[outcome.scores["val"] for outcome in seeds] for seeds in self.outcomes]

    @property
    def best(self) -> int:
        """The position of the layer that is best on validation."""
        return best_layer(self.val_scores)


def build_table(
    curves: Sequence[Curve],
    *,
    origin: Origin,
    group: Column | None,
    details: Json,
    kept: Sequence[Kept | None],
) -> Evaluation:
    """Rows of all curves, the warnings, and the details with the scores by seed added.

    ``kept``: for each curve its refitted probe, or None where the one that was scored is kept.
    """
    import pandas as pd

    rows: list[dict[str, Any]] = []
    warnings: list[str] = []
    choices, chosen, classes = [], [], []
    several = len({curve.fits[0].target.name for curve in curves}) > 1
    for curve, again in zip(curves, kept, strict=True):
        best = curve.best
        of_curve = _rows(curve, best, origin, group)
        rows += of_curve
        warnings += [*curve.fits[0].target.notes, *_warnings(curve, best, group, several=several)]
        if again is not None and not again.converged:
            warnings.append(f"{curve_name(curve)}: the fit on train and validation rows did not converge")
        choices.append(_choice(curve, best))
        chosen.append(_chosen_probe(curve, best, of_curve[best], again))
        of_best = {name: of_curve[best][name] for name in CLASS_COLUMNS if name in of_curve[best]}
        classes += [{**of_best, **of_class} for of_class in curve.classes(best)]
    table = pd.DataFrame(rows, columns=list(TABLE_COLUMNS))
    return Evaluation(
        table=table,
        warnings=tuple(dict.fromkeys(warnings)),
        details={**details, "selected": choices},
        chosen=tuple(chosen),
        classes=pd.DataFrame(classes, columns=list(CLASS_COLUMNS)),
    )


def curve_name(curve: Curve) -> str:
    """Which curve it is, for a warning."""
    fit = curve.fits[0]
    pooled = "" if fit.probe.name.partition("+")[0] == curve.pooling else f"{curve.pooling}, "  # attention pools itself
    return f"{fit.target.name}, {pooled}{fit.probe.name}"


def best_layer(val_scores: Sequence[Sequence[float]] | NDArray[np.float64]) -> int:
    """Position of the layer with the best mean of ``val_scores[layer][seed]``; of equal ones the shallowest."""
    means = np.array([np.mean(seeds) for seeds in val_scores])
    return int(np.flatnonzero(means >= np.nanmax(means) - TIE)[0])


def curve_draws(curve: Curve, group: Column | None) -> NDArray[np.float64]:
    """Bootstrap draws of the test score, (n_seeds, n_draws, n_layers).

    Intervals need ``N_DRAWS`` (1,000) of them; p-values that Holm corrects for many layers need more to come anywhere
    near zero.
    """
    n_draws = max(N_DRAWS, DRAWS_PER_COMPARISON * (len(curve.layers) - 1))
    draws = []
    for fit, terms in zip(curve.fits, curve.terms, strict=True):
        groups = None if group is None else group.values[fit.split.test]
        value, seed = curve.task.value, fit.split.seed
        draws.append(bootstrap_terms(value, terms, groups=groups, seed=seed, n_draws=n_draws))
    return np.stack(draws)


def _rows(curve: Curve, best: int, origin: Origin, group: Column | None) -> list[dict[str, Any]]:
    target = curve.fits[0].target
    splits = [fit.split for fit in curve.fits]
    draws = curve_draws(curve, group)
    compared = differences_from(draws.reshape(-1, len(curve.layers)), best)
    scores = [float(np.mean([outcome.score for outcome in seeds])) for seeds in curve.outcomes]
    compared_by = target.task.control_metric or target.task.metric
    layer0 = scores[curve.layers.index(0)] if 0 in curve.layers else np.nan
    rows = []
    for k, (layer, seeds) in enumerate(zip(curve.layers, curve.outcomes, strict=True)):
        low, high = interval(draws[:, :N_DRAWS, k])  # of all seeds: the spread of test rows and of splits
        control = _mean(curve.control[k])
        row = {
            "model": origin.model,
            "revision": origin.revision,
            "dataset": origin.dataset,
            "target": target.name,
            "task": target.task.name,
            "pooling": curve.pooling,
            "layer": layer,
            "n_layers": origin.n_layers,
            "final_norm": layer in curve.final_norm,
            "probe": curve.fits[0].probe.name,
            "metric": target.task.metric,
            "score": scores[k],
            "ci_low": low,
            "ci_high": high,
            "val_score": _mean([outcome.scores["val"] for outcome in seeds]),
            "selected": k == best,
            "train_score": _mean([outcome.scores["train"] for outcome in seeds]),
            "delta_layer0": scores[k] - layer0,
            "baseline": _mean(curve.baseline),
            "text_baseline": _mean(curve.text_baseline),
            "control": control,
            "selectivity": _mean([outcome.metrics[compared_by] for outcome in seeds]) - control,
            "regularisation": float(np.exp(np.mean(np.log([outcome.regularisation for outcome in seeds])))),
            "grid_edge": any(outcome.grid_edge for outcome in seeds),
            "converged": all(outcome.converged for outcome in seeds),
            "n_train": round(np.mean([len(split.train) for split in splits])),
            "n_val": round(np.mean([len(split.val) for split in splits])),
            "n_test": round(np.mean([len(split.test) for split in splits])),
            "n_classes": len(target.classes) or None,
            "group": None if group is None else group.name,
            "n_groups_test": None if group is None else _mean_groups(group, curve.fits),
            "n_groups_crossing": None if group is None else max(split.n_crossing for split in splits),
            "n_duplicate": max(split.n_duplicate for split in splits),
            "n_truncated": origin.n_truncated,
            "seeds": len(curve.fits),
            "max_abs": curve.max_abs[k],
            "length_baseline": _mean(curve.length_baseline),
            "conditional": _mean(curve.with_layer0[k]) - layer0,
            "mdl_bits": _mean([outcome.mdl_bits for outcome in seeds]),
            "compression": _compression(curve, k),
            "random_model": _mean(curve.random_model[k]),
            "p_vs_best": np.nan if k == best else compared[k].p_value,
            "cache": origin.cache,
        }
        row |= {name: _mean([outcome.metrics[name] for outcome in seeds]) for name in target.task.columns}
        rows.append(row)
    return rows


def _compression(curve: Curve, k: int) -> float:
    """Bits of the uniform code over bits of the online code."""
    pairs = zip(curve.fits, curve.outcomes[k], strict=True)
    return _mean(
        [len(fit.split.train) * np.log2(len(fit.target.classes)) / found.mdl_bits for fit, found in pairs]
        if curve.task.stratified
        else []
    )


def _mean(values: Any) -> float:
    return float(np.mean(values)) if len(values) else float("nan")


def _mean_groups(group: Column, fits: tuple[Fit, ...]) -> int:
    return round(np.mean([len(np.unique(group.values[fit.split.test])) for fit in fits]))


def _choice(curve: Curve, best: int) -> Json:
    """Which layer each seed alone would have chosen, which are as good on validation, and all scores by seed.

    Scores are by layer (as text, for JSON) and then by seed; one that is not defined is None.
    """
    val = np.array(curve.val_scores)
    means = val.mean(axis=1)
    tied = [k for k in np.flatnonzero(means >= means[best] - TIE).tolist() if k != best]
    test = [[outcome.score for outcome in seeds] for seeds in curve.outcomes]
    return {
        "target": curve.fits[0].target.name,
        "pooling": curve.pooling,
        "probe": curve.fits[0].probe.name,
        "layer": curve.layers[best],
        "tied_layers": [curve.layers[k] for k in tied],
        "layer_by_seed": [curve.layers[best_layer(seed[:, None])] for seed in val.T],
        "test_scores_by_seed": _plain(test[best]),
        "val_scores": {str(layer): _plain(seeds) for layer, seeds in zip(curve.layers, val.tolist(), strict=True)},
        "test_scores": {str(layer): _plain(seeds) for layer, seeds in zip(curve.layers, test, strict=True)},
    }


def _plain(scores: Sequence[float]) -> list[float | None]:
    return [float(score) if np.isfinite(score) else None for score in scores]


def _chosen_probe(curve: Curve, best: int, row: Json, kept: Kept | None) -> ChosenProbe:
    fit, outcome = curve.fits[0], curve.outcomes[best][0]
    found = kept or Kept(outcome.estimator, outcome.predicted, len(fit.train), outcome.converged)
    return ChosenProbe(
        target=fit.target.name,
        task=fit.target.task.name,
        pooling=curve.pooling,
        layer=curve.layers[best],
        probe=fit.probe.name,
        estimator=found.estimator,
        row=row,
        test=fit.split.test,
        predicted=fit.target.labels(found.predicted),
        classes=tuple(fit.target.classes.tolist()),
        fitted_on="train" if kept is None else "train + validation",
        n_fitted=found.n_fitted,
    )


def _warnings(curve: Curve, best: int, group: Column | None, *, several: bool) -> list[str]:
    """``several``: whether other targets are in the table, so that it must be said of which one a sentence is."""
    worst = max(curve.fits, key=lambda f: (f.split.n_crossing, f.split.n_duplicate)).split
    n_seeds = len(curve.fits)
    found = [f"{text} (the worst of {n_seeds} splits)" if n_seeds > 1 else text for text in worst.warnings]
    if several:
        found = [f"{curve.fits[0].target.name}: {text}" for text in found]
    if len({tuple(np.sort(f.split.train)) for f in curve.fits}) < n_seeds:
        found.append(f"the {n_seeds} seeds divide the rows alike: the data's own split leaves nothing to chance")
    n_units = min(
        len(f.split.test) if group is None else len(np.unique(group.values[f.split.test])) for f in curve.fits
    )
    if n_units < FEW_UNITS:
        unit = "rows (sentences, for tags)" if group is None else f"groups of {group.name}"
        found.append(f"only {n_units} test {unit}: scores, intervals and p-values say little")
    what = curve_name(curve)
    stopped = [
        layer for layer, seeds in zip(curve.layers, curve.outcomes, strict=True) if not all(o.converged for o in seeds)
    ]
    if stopped:
        found.append(f"{what}: the fit did not converge at {len(stopped)} layers ({_shown(stopped)})")
    if any(outcome.grid_edge for outcome in curve.outcomes[best]):
        found.append(f"{what}: the regularisation chosen at layer {curve.layers[best]} lies at the edge of its grid")
    cosines = zip(curve.layers, curve.pair_cosine, strict=True)
    alike = [cosine for layer, cosine in cosines if layer > 0 and cosine > SINK_COSINE]
    if curve.pooling == "mean" and alike:
        found.append(
            f"mean pooling at {len(alike)} layer{'s' if len(alike) > 1 else ''}: unrelated texts have a cosine of "
            f"{max(alike):.3f}: an attention sink dominates the mean; use mean_skip_first or last"
        )
    return found


def _shown(layers: list[int]) -> str:
    return ", ".join(map(str, layers[:6])) + (", …" if len(layers) > 6 else "")
