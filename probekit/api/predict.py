"""A saved probe on new texts: the model runs up to that layer only."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from probekit.arguments import texts_of
from probekit.errors import InputError, ProbekitError, SpecError
from probekit.evaluate import label_probability
from probekit.extraction.request import same_model
from probekit.readspec import ReadSpec, RunOptions
from probekit.report.files import plain_value
from probekit.saved import SUFFIX, SavedProbe, card_path, check_usable, load_probe, read_card, save_probe
from probekit.spec import OF_WORDS, ChosenProbe, Json, Listener, Silent
from probekit.tasks import label_lists

if TYPE_CHECKING:
    from probekit.api.probe import ProbeRun


LONGEST_NAME = 200
"""Bytes of a probe's file name without its ending: file systems take 255."""


@dataclass(frozen=True)
class Prediction:
    """Answers for n texts: ``labels`` (n,); ``probability`` (n, n_classes) in the order of ``classes``, or None.

    Where a text may have several labels, each of ``labels`` is a list of them. A blank text has no answer: its label is
    None (of numbers NaN), and NaN are its probabilities.
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


def predict(
    probe: str | os.PathLike[str],
    texts: str | Sequence[str],
    *,
    target: str | None = None,
    spans: Sequence[tuple[int, int]] | None = None,
    model: str | os.PathLike[str] | None = None,
    device: str = "auto",
    threads: int | None = None,
    trust_remote_code: bool = False,
    listener: Listener | None = None,
) -> Prediction:
    """Use a saved probe (``.skops``) on ``texts``, one or several; the model reads them up to the probe's layer only.

    ``probe``: a file, or a folder of them, of which the best on validation is used; ``target`` says of what, where
    there are several. ``spans``: first character of each text's span and the one after its last, for a probe of spans.
    ``model``: where the model is, if it is a local one that lies elsewhere than a hub id would say. It must be the very
    model that the probe was fitted on: its revision (or the hash of its weights) and tokenizer are compared.

    Raises SpecError for a probe that can't be trusted or read, ModelError for another model, InputError where there is
    no text to read.
    """
    listener = listener or Silent()
    path = find_probe(Path(probe), target, listener)
    saved, given = open_probe(path), texts_of(texts)
    if saved.card["task"] in OF_WORDS:
        raise SpecError(f"probe {path}", "must be one of whole texts; this one tags words, see tag_texts")
    if (saved.card["cache"]["pool_over"] == "span") != (spans is not None):
        needed = "needs the span of each text" if spans is None else "reads whole texts, no spans"
        raise SpecError(f"probe {path}", needed)
    if spans is not None and len(spans) != len(given):
        raise SpecError("spans", f"one for each of {len(given)} texts", str(len(spans)))
    filled = filled_rows(given, listener)
    source = same_model(saved.card["cache"], model)
    from probekit.extraction.reader import read_states  # here, because it loads torch

    states = read_states(
        [given[i] for i in filled],
        card=saved.card,
        source=source,
        options=RunOptions(device, threads, trust_remote_code=trust_remote_code),
        listener=listener,
        spans=None if spans is None else [spans[i] for i in filled],
    )
    with strangers_code(path):
        answer = _answer(saved, states)
    return answer if len(filled) == len(given) else _with_blanks(answer, filled, len(given))


def find_probe(probe: Path, target: str | None, listener: Listener) -> Path:
    """``probe``, or if that is a folder the probe in it that is best on validation. Raises SpecError if there is none.

    ``target``: of which target; None where the folder is of one only.
    """
    if not probe.is_dir():
        return probe
    cards = {path: read_card(path) for path in sorted(probe.glob(f"*{SUFFIX}"))}
    if not cards:
        raise SpecError(f"probe {probe}", f"must be a {SUFFIX} file, or a folder of them", "a folder with none")
    targets = sorted({str(card.get("target")) for card in cards.values()})
    if len(targets) > 1 and target is None:
        raise SpecError(f"probe {probe}", "has probes of several targets: name one with --target", ", ".join(targets))
    if target is not None and target not in targets:
        raise SpecError(f"--target {target}", f"{probe} has probes of {', '.join(targets)}")
    fitting = {path: card for path, card in cards.items() if target in (None, card.get("target"))}
    metrics = sorted({str(card.get("scores", {}).get("metric")) for card in fitting.values()})
    if len(metrics) > 1:
        message = "has probes with different scores, of which none is the best: name one file"
        raise SpecError(f"probe {probe}", message, ", ".join(metrics))
    best = max(fitting, key=lambda path: _val_score(fitting[path]))
    score = f"{_val_score(fitting[best]):.3f} on validation{_test_score(fitting[best])}"
    of_several = f", the best of {len(fitting)}" if len(fitting) > 1 else ""
    listener.note(f"using {best.name}: layer {fitting[best].get('layer')}, {score}{of_several}")
    return best


def _test_score(card: Json) -> str:
    score = card.get("scores", {}).get("score")
    return f", {score:.3f} on test" if isinstance(score, int | float) else ""


def _val_score(card: Json) -> float:
    """None was kept: worse than any."""
    score = card.get("scores", {}).get("val_score")
    return float(score) if isinstance(score, int | float) else -np.inf


def reads_spans(card: Json) -> bool:
    """Whether a probe's card says that it reads a span of each text."""
    return bool(card.get("cache", {}).get("pool_over") == "span")


def open_probe(probe: Path) -> SavedProbe:
    """A saved probe whose card has what a prediction needs."""
    saved = load_probe(probe)
    check_usable(saved.card, f"card {card_path(probe)}")
    with strangers_code(probe):
        _check_labels(saved, probe)
    return saved


@contextmanager
def strangers_code(probe: Path) -> Iterator[None]:
    """What is in somebody's file may raise whatever it likes when it is asked; it becomes a SpecError."""
    try:
        yield
    except (ProbekitError, MemoryError):
        raise
    except Exception as error:
        message = "must hold a fitted probe that answers for states of its model"
        raise SpecError(f"probe {probe}", message, f"{type(error).__name__}: {error}"[:160]) from error


def filled_rows(texts: Sequence[str], listener: Listener) -> list[int]:
    """Which of ``texts`` are not blank; how many are is said. Raises InputError if there is nothing to read."""
    filled = [i for i, text in enumerate(texts) if text.strip()]
    if len(texts) == 1 and not filled:
        raise InputError("text 1", "must not be empty", repr(texts[0][:80]))
    if not filled:
        raise InputError("texts", "at least one that is not blank", f"{len(texts)} blank ones" if texts else "none")
    blank = [i + 1 for i, text in enumerate(texts) if not text.strip()]
    if blank:
        shown = ", ".join(map(str, blank[:10])) + (", …" if len(blank) > 10 else "")
        listener.note(f"{len(blank)} of {len(texts)} texts are blank and have no answer (counted from 1: {shown})")
    return filled


def _with_blanks(answer: Prediction, filled: Sequence[int], n: int) -> Prediction:
    """The answers in the places of their texts, and none in between."""
    numbers = answer.labels.dtype.kind == "f"
    labels = np.full(n, np.nan if numbers else None, dtype=answer.labels.dtype if numbers else np.object_)
    for i, label in zip(filled, answer.labels.tolist(), strict=True):
        labels[i] = label
    probability = None
    if answer.probability is not None:
        probability = np.full((n, answer.probability.shape[1]), np.nan)
        probability[list(filled)] = answer.probability
    return Prediction(labels, answer.classes, probability)


def _check_labels(saved: SavedProbe, probe: Path) -> None:
    """Answers are decoded by the card's labels where the estimator does not know them all; they must fit."""
    labels, task = saved.card["labels"], saved.card["task"]
    if task == "multilabel":
        fits = len(labels) == len(saved.estimator.estimators_)
    else:
        fits = task not in OF_WORDS or _are_tags(labels, saved.estimator.classes_)
    if not fits:
        raise SpecError(
            f"card {card_path(probe)}", "must have the labels of its probe, sorted", f"{len(labels)} others"
        )


def _are_tags(labels: list[Any], classes: Sequence[Any]) -> bool:
    return labels == sorted(labels) and len(classes) > 0 and set(classes) <= set(labels)


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
