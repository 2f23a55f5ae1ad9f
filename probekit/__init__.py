"""Which layer of an open-source LLM knows X, and how well can a cheap head read it?

>>> import probekit
>>> cache = probekit.extract("model", "train.csv", out="cache.h5")     # doctest: +SKIP
>>> probekit.probe_layers(cache, "label")                              # doctest: +SKIP
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from probekit.api.attach import attach
    from probekit.api.attention import attention
    from probekit.api.explain import explain, explain_layers
    from probekit.api.extract import extract
    from probekit.api.inspect import diagnostics
    from probekit.api.intervene import intervene
    from probekit.api.predict import predict, tag_texts
    from probekit.api.probe import ProbekitWarning, few_shot, probe, probe_layers, transfer
    from probekit.api.train import train
    from probekit.api.verify import verify
    from probekit.errors import ProbekitError
    from probekit.explanation.intervention import InterventionResult
    from probekit.saved import save
    from probekit.spec import Result
    from probekit.store import Cache, open_cache
    from probekit.training.attach import HeadShape

__version__ = "0.1.0"

__all__ = [
    "Cache",
    "HeadShape",
    "InterventionResult",
    "ProbekitError",
    "ProbekitWarning",
    "Result",
    "attach",
    "attention",
    "diagnostics",
    "explain",
    "explain_layers",
    "extract",
    "few_shot",
    "intervene",
    "open_cache",
    "predict",
    "probe",
    "probe_layers",
    "save",
    "tag_texts",
    "train",
    "transfer",
    "verify",
]

_HOME = {
    "Cache": "probekit.store",
    "HeadShape": "probekit.training.attach",
    "InterventionResult": "probekit.explanation.intervention",
    "ProbekitError": "probekit.errors",
    "ProbekitWarning": "probekit.api.probe",
    "Result": "probekit.spec",
    "attach": "probekit.api.attach",
    "attention": "probekit.api.attention",
    "diagnostics": "probekit.api.inspect",
    "explain": "probekit.api.explain",
    "explain_layers": "probekit.api.explain",
    "extract": "probekit.api.extract",
    "few_shot": "probekit.api.probe",
    "intervene": "probekit.api.intervene",
    "open_cache": "probekit.store",
    "predict": "probekit.api.predict",
    "probe": "probekit.api.probe",
    "probe_layers": "probekit.api.probe",
    "save": "probekit.saved",
    "tag_texts": "probekit.api.predict",
    "train": "probekit.api.train",
    "transfer": "probekit.api.probe",
    "verify": "probekit.api.verify",
}


def __getattr__(name: str) -> Any:
    """Load a part on its first use: ``import probekit`` alone is instant and loads no torch."""
    if name not in _HOME:
        raise AttributeError(f"module 'probekit' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
