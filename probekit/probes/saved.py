"""A fitted probe as a file: skops, so that opening one runs no code, and a JSON card that says what it belongs to."""

from __future__ import annotations

import hashlib
import json
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import skops.io
from sklearn.base import BaseEstimator

from probekit.errors import SpecError
from probekit.spec import Json

SUFFIX = ".skops"
CARD_VERSION = 1
TRUSTED: tuple[str, ...] = (
    "sklearn.neural_network._stochastic_optimizers.AdamOptimizer",
    "sklearn.compose._target.TransformedTargetRegressor",
    "sklearn.feature_selection._univariate_selection.f_classif",
)
"""Types beyond those of NumPy, SciPy and scikit-learn that skops knows to be harmless."""


@dataclass(frozen=True)
class SavedProbe:
    """A probe read back. ``card``: JSON, see ``save_probe``."""

    estimator: BaseEstimator
    card: Json


def card_path(path: Path) -> Path:
    """Where the card of the probe at ``path`` is."""
    return path.with_suffix(".json")


def save_probe(path: Path, estimator: BaseEstimator, card: Json) -> None:
    """Write ``path`` (``.skops``) and its card beside it; the card gets the file's SHA-256.

    ``card``: what a prediction needs (model, revision, tokenizer, pooling, layer, maximum length, dtypes) and what a
    reader wants to know (labels, scores). The card is written last: a probe without one was not finished.
    """
    data = skops.io.dumps(estimator)
    path.write_bytes(data)
    whole = {"format": "probekit-probe", "format_version": CARD_VERSION, **card, "sha256": _sha256(data)}
    card_path(path).write_text(
        json.dumps(whole, indent=1, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8"
    )


def load_probe(path: Path) -> SavedProbe:
    """Read a probe and its card.

    Raises SpecError if there is none, the file is not the one that the card speaks of, or it holds a type that is not
    known to be harmless.
    """
    card = read_card(path)
    data = path.read_bytes()
    if _sha256(data) != card["sha256"]:
        raise SpecError(f"probe {path}", f"must be the file that {card_path(path).name} speaks of", "other contents")
    try:
        unknown = [name for name in skops.io.get_untrusted_types(data=data) if name not in TRUSTED]
        if unknown:
            raise SpecError(f"probe {path}", "may hold scikit-learn, NumPy and probekit types only", ", ".join(unknown))
        estimator: Any = skops.io.loads(data, trusted=list(TRUSTED))
    except (zipfile.BadZipFile, KeyError, TypeError, ValueError, json.JSONDecodeError) as error:
        raise SpecError(f"probe {path}", "is damaged or not a skops file", str(error)[:160]) from error
    if not hasattr(estimator, "predict"):
        raise SpecError(f"probe {path}", "must be something that predicts", type(estimator).__name__)
    return SavedProbe(estimator, card)


def read_card(path: Path) -> Json:
    """The card of the probe at ``path``. Raises SpecError where there is none, or no such probe."""
    if path.suffix != SUFFIX or not path.is_file():
        raise SpecError(f"probe {path}", f"must be a {SUFFIX} file made by probekit probe --save-probes")
    card = card_path(path)
    try:
        found = json.loads(card.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise SpecError(f"probe {path}", f"needs its card {card.name} beside it") from error
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise SpecError(f"card {card}", "must be readable JSON", str(error)[:160]) from error
    if not isinstance(found, dict) or found.get("format") != "probekit-probe" or "sha256" not in found:
        raise SpecError(f"card {card}", "is not the card of a probe")
    if found["format_version"] != CARD_VERSION:
        raise SpecError(f"card {card}", f"this probekit reads version {CARD_VERSION}", str(found["format_version"]))
    return found


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
