"""A fitted probe as a file: skops, so that opening one runs no code, and a JSON card that says what it belongs to."""

from __future__ import annotations

import hashlib
import io
import json
import stat
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import skops.io
from sklearn.base import BaseEstimator

from probekit.errors import SpecError
from probekit.fields import DIGEST, LABELS, MOST_LAYERS, OBJECT, TEXT, TRUTH, Field, check_fields, one_of, shown, whole
from probekit.output import plain_value, replacing, write_whole
from probekit.readspec import ReadSpec, check_spec, missing_to_read
from probekit.spec import ATTENTION, POOLING_NAMES, ChosenProbe, Json, Result
from probekit.tasks import TASKS

SUFFIX = ".skops"
LONGEST_NAME = 200
"""Bytes of a probe's file name without its ending: file systems take 255."""
CARD_VERSION = 1
MOST_CARD_BYTES = 64 << 20
MOST_BYTES = 8 << 30
MOST_UNPACKED = 100
"""Times its size that a probe may have unpacked: skops packs nothing, so it is about 1."""

TRUSTED: tuple[str, ...] = (
    "sklearn.neural_network._stochastic_optimizers.AdamOptimizer",
    "sklearn.compose._target.TransformedTargetRegressor",
    "sklearn.feature_selection._univariate_selection.f_classif",
    "probekit.heads.estimators.HeadClassifier",
    "probekit.heads.estimators.HeadRegressor",
)
"""Types beyond those of NumPy, SciPy and scikit-learn that skops knows to be harmless."""

CARD: Mapping[str, Field] = {
    "format_version": whole(1, 1),
    "target": TEXT,
    "task": one_of(*TASKS),
    "probe": TEXT,
    "pooling": one_of(*POOLING_NAMES, ATTENTION),
    "layer": whole(0, MOST_LAYERS),
    "labels": LABELS,
    "viterbi": TRUTH,
    "fitted_on": one_of("train", "train + validation"),
    "n_fitted": whole(1, 2**63),
    "cache": OBJECT,
    "scores": OBJECT,
    "sha256": DIGEST,
}
"""The card of a saved probe; its ``cache`` holds fields of ``ReadSpec``."""

CARD_NEEDS = ("task", "pooling", "layer", "labels", "viterbi", "cache")
"""What a prediction takes from it."""


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
    reader wants to know (labels, scores). Both are written whole before either gets its name, the probe first: a kill
    between the two leaves a probe without its card, or with the card of the one before it, and ``load_probe`` refuses
    both, since the card has the SHA-256 of its probe.

    Raises SpecError for an estimator with types that ``load_probe`` would refuse; then nothing is written.
    """
    _write(path, _dumped(estimator, f"probe {card.get('probe', path.stem)}"), card)


def _write(path: Path, data: bytes, card: Json) -> None:
    whole = {"format": "probekit-probe", "format_version": CARD_VERSION, **card, "sha256": _sha256(data)}
    text = json.dumps(whole, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    # The card's name is inside: the probe gets its own first.
    with replacing(card_path(path), durable=True) as new_card:
        new_card.write_bytes(text.encode("utf-8", "backslashreplace"))
        write_whole(path, data, durable=True)


def save(result: Result, folder: Path | str) -> list[Path]:
    """Save each curve's probe of the selected layer, ``MODEL-TARGET-POOLING-LAYER-PROBE.skops``, with a JSON card.

    ``result``: of ``probekit.probe``. Where it has several caches of one model, the cache's name stands after the
    model's. Returns the files. Raises SpecError for an estimator of the user's own that such a file can't hold; then
    nothing is written.
    """
    paths = [Path(folder) / name for name in _file_names(result)]
    dumped = [_dumped(chosen.estimator, f"probe {chosen.probe}") for chosen, _ in result.chosen]
    Path(folder).mkdir(parents=True, exist_ok=True)
    for path, data, (chosen, spec) in zip(paths, dumped, result.chosen, strict=True):
        _write(path, data, _card(chosen, spec, viterbi=bool(result.record["options"]["viterbi"])))
    return paths


def _file_names(result: Result) -> list[str]:
    """One for each chosen probe, none twice, also where upper and lower case are the same."""
    caches = {(spec["model"], chosen.row["cache"]) for chosen, spec in result.chosen}
    names: list[str] = []
    for chosen, spec in result.chosen:
        several = sum(model == spec["model"] for model, _ in caches) > 1
        parts = [spec["model"], *([chosen.row["cache"]] if several else []), chosen.target]
        plain = _file_name("-".join(map(str, parts)), f"-{chosen.pooling}-{chosen.layer:03d}-{chosen.probe}")
        name, taken = plain, {other.lower() for other in names}
        for k in count(2):
            if name.lower() + SUFFIX not in taken:
                break
            name = f"{plain}-{k}"
        names.append(name + SUFFIX)
    return names


def _file_name(what: str, which: str) -> str:
    """Both in characters that every file system takes, and not too many of them."""
    clean = "".join(c if c.isalnum() or c in "-_." else "_" for c in what + which)
    if len(clean.encode()) <= LONGEST_NAME:
        return clean
    short = clean.encode()[: LONGEST_NAME // 2].decode(errors="ignore")
    return f"{short}-{hashlib.sha256((what + which).encode(errors='replace')).hexdigest()[:8]}{which}"


def _card(chosen: ChosenProbe, spec: Json, *, viterbi: bool) -> Json:
    return {
        "target": chosen.target,
        "task": chosen.task,
        "probe": chosen.probe,
        "pooling": chosen.pooling,
        "layer": chosen.layer,
        "labels": [plain_value(label) for label in chosen.classes],
        "viterbi": viterbi,
        "fitted_on": chosen.fitted_on,
        "n_fitted": chosen.n_fitted,
        "cache": ReadSpec.from_json(spec).for_card(),
        "scores": {name: plain_value(value) for name, value in chosen.row.items()},
    }


def _dumped(estimator: BaseEstimator, source: str) -> bytes:
    try:
        data = bytes(skops.io.dumps(estimator))
        unknown = _untrusted(data)
    except Exception as error:
        raise SpecError(source, "can't be saved: skops must be able to write it", _reason(error)) from error
    if unknown:
        raise SpecError(source, "can't be saved: skops must know all its types as harmless", ", ".join(unknown))
    return data


def _untrusted(data: bytes) -> list[str]:
    return [name for name in skops.io.get_untrusted_types(data=data) if name not in TRUSTED]


def load_probe(path: Path) -> SavedProbe:
    """Read a probe and its card.

    Raises SpecError if there is none, the file is not the one that the card speaks of, or it holds a type that is not
    known to be harmless.
    """
    card = read_card(path)
    data = _read(path, f"probe {path}", MOST_BYTES)
    if _sha256(data) != card["sha256"]:
        message = f"must be the file that {card_path(path).name} speaks of (if saving was interrupted, save it again)"
        raise SpecError(f"probe {path}", message, "other contents")
    try:
        _check_size(data)
        unknown = _untrusted(data)
        estimator: Any = None if unknown else skops.io.loads(data, trusted=list(TRUSTED))
    except Exception as error:
        raise SpecError(f"probe {path}", "is damaged or not a skops file", _reason(error)) from error
    if unknown:
        raise SpecError(f"probe {path}", "may hold scikit-learn, NumPy and probekit types only", ", ".join(unknown))
    if not hasattr(estimator, "predict"):
        raise SpecError(f"probe {path}", "must be something that predicts", type(estimator).__name__)
    return SavedProbe(estimator, card)


def read_card(path: Path) -> Json:
    """The card of the probe at ``path``, every field of it checked.

    Raises SpecError where there is none, or no such probe.
    """
    if path.suffix != SUFFIX or not path.is_file():
        raise SpecError(f"probe {path}", f"must be a {SUFFIX} file made by probekit probe --save-probes")
    card = card_path(path)
    try:
        found = json.loads(_read(card, f"card {card}", MOST_CARD_BYTES).decode())
    except FileNotFoundError as error:
        raise SpecError(f"probe {path}", f"needs its card {card.name} beside it") from error
    except (ValueError, RecursionError) as error:  # no UTF-8, no JSON, a number of 5,000 digits, a list in a list in …
        raise SpecError(f"card {card}", "must be readable JSON", _reason(error)) from error
    if not isinstance(found, dict) or found.get("format") != "probekit-probe" or "sha256" not in found:
        raise SpecError(f"card {card}", "is not the card of a probe")
    version = found.get("format_version")
    if version != CARD_VERSION or type(version) is not int:
        raise SpecError(f"card {card}", f"this probekit reads version {CARD_VERSION}", shown(version))
    check_fields(found, CARD, f"card {card}", SpecError)
    check_spec(found.get("cache", {}), f"card {card}, cache", error=SpecError)
    return found


def of_words(card: Json) -> bool:
    """Whether a probe's card says that it tags words."""
    return card.get("task") in TASKS and TASKS[card["task"]].of_words


def of_tokens(card: Json) -> bool:
    """Whether a probe's card says that it reads all tokens of a text."""
    return bool(card.get("pooling") == ATTENTION)


def check_usable(card: Json, source: str) -> None:
    """Raise SpecError where a card that was checked lacks something that a prediction needs."""
    missing = [name for name in CARD_NEEDS if name not in card]
    missing += missing_to_read(card.get("cache", {}), of_words=of_words(card) or of_tokens(card))
    if missing:
        raise SpecError(source, "must say what the probe was fitted on", f"no {', '.join(missing)}")


def _read(path: Path, source: str, most: int) -> bytes:
    """All of a file; of a device there may be no end. Raises FileNotFoundError if there is none."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise SpecError(source, "must be a file", "a folder" if path.is_dir() else "a device")
        if status.st_size > most:
            raise SpecError(source, f"must have at most {most:,} bytes", f"{status.st_size:,}")
        return path.read_bytes()
    except FileNotFoundError:
        raise
    except OSError as error:
        raise SpecError(source, "must be a file that can be read", error.strerror or str(error)) from error


def _check_size(data: bytes) -> None:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        unpacked = sum(entry.file_size for entry in archive.infolist())
    if unpacked > MOST_UNPACKED * len(data):
        raise ValueError(f"{len(data):,} bytes that unpack to {unpacked:,}")


def _reason(error: Exception) -> str:
    return (str(error) or type(error).__name__)[:160]


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
