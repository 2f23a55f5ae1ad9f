"""A saved probe on new texts: the model runs up to that layer only."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from probekit.api.probe import ProbeRun
from probekit.api.request import ONLY_WHERE_ASKED, RENDERED
from probekit.api.same_model import same_model
from probekit.errors import InputError, SpecError
from probekit.evaluate import label_probability
from probekit.probes.saved import SUFFIX, SavedProbe, card_path, load_probe, save_probe
from probekit.report.files import plain_value
from probekit.spec import OF_WORDS, ChosenProbe, Json, Listener, Silent
from probekit.splits import label_lists

MODEL_FIELDS = (
    *("model", "revision", "tokenizer", "max_length", "dtype", "batch_tokens", "store_dtype"),
    *("prompt", "chat_template", "pool_over", "side", "site", "random_seed", "quantize", "tokens"),
)
"""What of a cache's spec a prediction must repeat."""


CARD_FIELDS = (("task", str), ("pooling", str), ("layer", int), ("labels", list), ("viterbi", bool))
"""What a prediction needs of the card beside them."""


@dataclass(frozen=True)
class Prediction:
    """Answers for n texts: ``labels`` (n,); ``probability`` (n, n_classes) in the order of ``classes``, or None.

    Where a text may have several labels, each of ``labels`` is a list of them.
    """

    labels: NDArray[Any]
    classes: tuple[Any, ...]
    probability: NDArray[np.floating] | None


def save_probes(run: ProbeRun, folder: Path) -> list[Path]:
    """Save each curve's probe of the selected layer, ``MODEL-TARGET-POOLING-LAYER-PROBE.skops``, with a JSON card.

    Where a run has several caches of one model, the cache's name stands after the model's.
    """
    paths = [folder / name for name in _file_names(run)]
    folder.mkdir(parents=True, exist_ok=True)
    for path, (chosen, spec) in zip(paths, run.chosen, strict=True):
        save_probe(path, chosen.estimator, _card(chosen, spec, viterbi=bool(run.record["options"]["viterbi"])))
    return paths


def _file_names(run: ProbeRun) -> list[str]:
    """One for each chosen probe, none twice, also where upper and lower case are the same."""
    caches = {(spec["model"], chosen.row["cache"]) for chosen, spec in run.chosen}
    names: list[str] = []
    for chosen, spec in run.chosen:
        several = sum(model == spec["model"] for model, _ in caches) > 1
        parts = [spec["model"], *([chosen.row["cache"]] if several else []), chosen.target, chosen.pooling]
        whole = "-".join([*map(str, parts), f"{chosen.layer:03d}", chosen.probe])
        plain = "".join(c if c.isalnum() or c in "-_." else "_" for c in whole)
        name, taken = plain, {other.lower() for other in names}
        for k in count(2):
            if name.lower() + SUFFIX not in taken:
                break
            name = f"{plain}-{k}"
        names.append(name + SUFFIX)
    return names


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
        "cache": {name: spec[name] for name in MODEL_FIELDS} | _only_where_used(spec),
        "scores": {name: plain_value(value) for name, value in chosen.row.items()},
    }


def _only_where_used(spec: Json) -> Json:
    """What of a cache's spec a prediction must repeat where it is not as usual."""
    found = {name: spec[name] for name in (*ONLY_WHERE_ASKED, *RENDERED) if name in spec and name != "words"}
    return found | {"batching": "single"} if spec.get("batching") == "single" else found


def predict(
    probe: str | os.PathLike[str],
    texts: Sequence[str],
    *,
    spans: Sequence[tuple[int, int]] | None = None,
    model: str | os.PathLike[str] | None = None,
    device: str = "auto",
    threads: int | None = None,
    trust_remote_code: bool = False,
    listener: Listener | None = None,
) -> Prediction:
    """Use a saved probe (``.skops``) on ``texts``; the model reads them up to the probe's layer and no further.

    ``spans``: first character of each text's span and the one after its last, for a probe of spans. ``model``: where
    the model is, if it is a local one that lies elsewhere than a hub id would say. It must be the very model that the
    probe was fitted on: its revision (or the hash of its weights) and tokenizer are compared.

    Raises SpecError for a probe that can't be trusted or read, ModelError for another model, InputError for empty text.
    """
    saved = open_probe(Path(probe), texts)
    if saved.card["task"] in OF_WORDS:
        raise SpecError(f"probe {probe}", "must be one of whole texts; this one tags words, see tag_texts")
    if (saved.card["cache"]["pool_over"] == "span") != (spans is not None):
        needed = "needs the span of each text" if spans is None else "reads whole texts, no spans"
        raise SpecError(f"probe {probe}", needed)
    source = same_model(saved.card["cache"], model)
    from probekit.api.reading import Reader, read_states  # here, because it loads torch

    reader = Reader(source, device, threads, trust_remote_code, listener or Silent())
    return _answer(saved, read_states(reader, texts, card=saved.card, spans=spans))


def reads_spans(card: Json) -> bool:
    """Whether a probe's card says that it reads a span of each text."""
    cache = card.get("cache")
    return isinstance(cache, dict) and cache.get("pool_over") == "span"


def open_probe(probe: Path, texts: Sequence[str]) -> SavedProbe:
    """A saved probe whose card has what a prediction needs, for ``texts`` that have something to read."""
    saved = load_probe(probe)
    _check_card(saved.card, probe)
    _check_labels(saved, probe)
    for i, text in enumerate(texts):
        if not isinstance(text, str) or not text.strip():
            raise InputError(f"text {i + 1}", "must not be empty", repr(text))
    return saved


def _check_card(card: Json, probe: Path) -> None:
    """A card may be anybody's: what a prediction takes from it has to be there, and of its type."""
    cache = card.get("cache")
    missing = [name for name, kind in CARD_FIELDS if not isinstance(card.get(name), kind)]
    missing += list(MODEL_FIELDS) if not isinstance(cache, dict) else [f for f in MODEL_FIELDS if f not in cache]
    if missing:
        raise SpecError(f"card {card_path(probe)}", "must say what the probe was fitted on", f"no {', '.join(missing)}")


def _check_labels(saved: SavedProbe, probe: Path) -> None:
    """Answers are decoded by the card's labels where the estimator does not know them all; they must fit."""
    labels, task = saved.card["labels"], saved.card["task"]
    if task == "multilabel":
        fits = len(labels) == len(saved.estimator.estimators_)
    else:
        fits = task not in OF_WORDS or (labels == sorted(labels) and set(saved.estimator.classes_) <= set(labels))
    if not fits:
        raise SpecError(
            f"card {card_path(probe)}", "must have the labels of its probe, sorted", f"{len(labels)} others"
        )


def _answer(saved: SavedProbe, states: NDArray[np.float32]) -> Prediction:
    estimator = saved.estimator
    if saved.card["task"] == "multilabel":
        names = np.array(saved.card["labels"], dtype=np.object_)
        return Prediction(
            label_lists(estimator.predict(states), names), tuple(names), label_probability(estimator, states)
        )
    labels = np.asarray(estimator.predict(states))
    if not hasattr(estimator, "predict_proba"):
        return Prediction(labels, (), None)
    return Prediction(
        labels, tuple(estimator.classes_.tolist()), np.asarray(estimator.predict_proba(states), dtype=float)
    )
