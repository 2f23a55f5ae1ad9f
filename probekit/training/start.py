"""Where a linear head begins: at the probe that was fitted on the same states (LP-FT, Kumar et al. 2022)."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.multioutput import MultiOutputClassifier
from sklearn.pipeline import Pipeline

from probekit.heads.losses import LABELS, NUMBERS
from probekit.heads.modules import Linear
from probekit.training.truth import Truth

NEVER = -30.0
"""The logit of a class that the probe never saw."""

Affine = tuple[NDArray[np.float64], NDArray[np.float64]]
"""(n_answers, d) weights of standardised states, and (n_answers,) intercepts."""


@torch.no_grad()
def start_at_probe(head: Linear, estimator: Any, truth: Truth) -> None:
    """Give ``head`` the scaler and the weights of a fitted logistic or ridge probe, so that it answers the same.

    Several labels have a probe each, all with the scaler of the same rows.
    """
    pipelines: list[Pipeline] = list(estimator.estimators_) if truth.link is LABELS else [estimator]
    weights, intercepts = _affine(pipelines, truth)
    scaler = pipelines[0][0]
    head.standardise.mean.copy_(torch.from_numpy(np.asarray(scaler.mean_)))
    head.standardise.scale.copy_(torch.from_numpy(np.asarray(scaler.scale_)))
    head.output.weight.copy_(torch.from_numpy(weights))
    head.output.bias.copy_(torch.from_numpy(intercepts))


def row_penalty(estimator: Any, truth: Truth, n_rows: int) -> float:
    """The penalty of the probe per row, for ``penalty x half x |w|²`` beside the mean loss of ``n_rows``.

    scikit-learn's C is the inverse of a penalty on the sum over rows, its alpha that penalty. Of several labels, whose
    loss is a mean, the middle one.
    """
    pipelines = list(estimator.estimators_) if isinstance(estimator, MultiOutputClassifier) else [estimator]
    if truth.link is NUMBERS:
        return float(pipelines[0][-1].alpha) / n_rows
    middle = float(np.median([pipeline[-1].C for pipeline in pipelines]))
    return 1 / (middle * n_rows * (len(pipelines) if truth.link is LABELS else 1))


def _affine(pipelines: list[Pipeline], truth: Truth) -> Affine:
    if truth.link is LABELS:
        return np.vstack([p[-1].coef_ for p in pipelines]), np.concatenate([p[-1].intercept_ for p in pipelines])
    model = pipelines[0][-1]
    coefficients, intercepts = np.atleast_2d(model.coef_).astype(np.float64), np.atleast_1d(model.intercept_)
    if truth.link is NUMBERS:
        return coefficients / truth.scale, (intercepts - truth.mean) / truth.scale
    known = truth.target.coded(np.asarray(model.classes_))
    if len(coefficients) == 1 and truth.n_answers > 1:  # two classes of several
        coefficients = np.vstack([-coefficients / 2, coefficients / 2])
        intercepts = np.concatenate([-intercepts / 2, intercepts / 2])
    if truth.n_answers == 1:
        return coefficients, intercepts
    weights = np.zeros((truth.n_answers, coefficients.shape[1]))
    every = np.full(truth.n_answers, NEVER)
    weights[known], every[known] = coefficients, intercepts
    return weights, every
