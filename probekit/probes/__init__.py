"""Probes: cheap heads that read a label or a number off the hidden states of one layer, on the CPU."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import count
from typing import Any

from sklearn.base import BaseEstimator

from probekit.errors import SpecError
from probekit.probes.knn import fit_knn
from probekit.probes.lda import fit_lda
from probekit.probes.logistic import fit_logistic, refit_logistic
from probekit.probes.mass_mean import fit_mass_mean, fit_mass_mean_iid
from probekit.probes.mlp import fit_mlp
from probekit.probes.own import own_probe
from probekit.probes.probe import FitFunction, Probe
from probekit.probes.result import FittedProbe, Folds
from probekit.probes.ridge import fit_ridge
from probekit.probes.sparse_logistic import fit_sparse_logistic
from probekit.probes.trained import fit_attention, fit_mlp_torch

__all__ = ["PROBES", "FitFunction", "FittedProbe", "Folds", "Probe", "as_probe", "as_probes"]

PROBES: dict[str, Probe] = {
    probe.name: probe
    for probe in (
        Probe("logistic", ("classification",), fit_logistic, refit_logistic),
        Probe("ridge", ("regression",), fit_ridge),
        Probe("mlp", ("classification", "regression"), fit_mlp),
        Probe("lda", ("classification",), fit_lda),
        Probe("mass-mean", ("classification",), fit_mass_mean),
        Probe("mass-mean-iid", ("classification",), fit_mass_mean_iid),
        Probe("knn", ("classification", "regression"), fit_knn),
        Probe("sparse-logistic", ("classification",), fit_sparse_logistic),
        Probe("mlp-torch", ("classification", "regression"), fit_mlp_torch),
        Probe("attention", ("classification", "regression"), fit_attention, of_tokens=True),
    )
}


def as_probe(value: str | BaseEstimator | Any) -> Probe:
    """The probe of a name in ``PROBES``, or that of an estimator (see ``own_probe``). Raises SpecError for others."""
    if isinstance(value, Probe):
        return value
    if not isinstance(value, str):
        own = own_probe(value)
        return replace(own, name=f"{own.name}-own") if own.name in PROBES else own
    if value not in PROBES:
        raise SpecError(f"--probe {value}", f"one of {', '.join(PROBES)}")
    return PROBES[value]


def as_probes(values: Sequence[str | BaseEstimator | Any]) -> tuple[Probe, ...]:
    """The probes of several; estimators that would have one name get a number each."""
    found: list[Probe] = []
    for probe in map(as_probe, values):
        taken = {*PROBES, *(other.name for other in found)}
        numbered = (f"{probe.name}-{k}" for k in count(2))
        again = probe.name in taken and probe.name not in PROBES
        found.append(replace(probe, name=next(name for name in numbered if name not in taken)) if again else probe)
    return tuple(found)
