"""A saved probe and its cache to an answer: does the model use what the probe reads?"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.base import clone

from probekit.api.predict import find_probe, is_heads
from probekit.api.probe import CacheLike, opened_caches
from probekit.errors import SpecError
from probekit.evaluate.names import cache_names
from probekit.explanation.erase import Floats, probe_directions
from probekit.explanation.intervention import (
    MAX_ROWS,
    Asked,
    InterventionOptions,
    InterventionResult,
    answer_words,
    plan_intervention,
)
from probekit.extraction.request import same_model
from probekit.probes import PROBES
from probekit.readspec import RunOptions
from probekit.saved import check_usable, load_probe
from probekit.spec import Listener, Silent

if TYPE_CHECKING:
    from probekit.training.saved_heads import Heads


def intervene(
    probe: str | os.PathLike[str],
    cache: CacheLike,
    *,
    erase: str = "leace",
    steer: float | None = None,
    answer: str | Sequence[str] | None = None,
    layers: Any = None,
    n_random: int = 5,
    seed: int = 0,
    max_rows: int = MAX_ROWS,
    target: str | None = None,
    split: str | float | None = None,
    model: str | os.PathLike[str] | None = None,
    device: str = "auto",
    threads: int | None = None,
    trust_remote_code: bool = False,
    executor: Executor | None = None,
    listener: Listener | None = None,
) -> InterventionResult:
    """Take what a probe reads out of the model's states, run the layers above, and see what they still know.

    ``probe``: a ``.skops`` file that was saved for ``cache``, a folder of them (the best on validation is taken), or a
    folder of linear heads on frozen states; ``target``: of which, where there are several. Every token's state at the
    probe's layer is changed by one affine map, fitted on the pooled states of the training rows:

    - ``erase="leace"``: of all maps that leave nothing for a linear reader the one that changes least (Belrose et al.
      2023); "mean-difference": the projection off the differences of class means; "direction": off the directions that
      the probe itself reads by.
    - ``steer=a``: nothing is erased; a times the difference of the two class means is added (for numbers: what goes
      with one standard deviation), or with ``erase="direction"`` the part of it along the probe's direction.

    The layers above are run from the cache's token states, where it has them, else the model reads the texts up to
    that layer. At each layer of the cache above (or of ``layers``) the probe that was fitted on untouched states
    answers, and one that is refitted on the changed ones. A model with a language-model head says its next-token loss,
    and with ``answer``, two words in the order of the sorted classes (" negative, positive", each one token), what it
    answers itself at the last token: the difference of their logits, as AUROC against the label. Beside all of it
    stands the same for ``n_random`` random choices of as many directions (shifts of the same length, for ``steer``).

    ``max_rows``: of the training part, and of the test part. ``split``: as for ``probekit.probe``; the groups of the
    probe's table are used for intervals. ``model``: where a local model is. The result's ``table`` has the columns
    ``INTERVENTION_COLUMNS``, ``verdict`` what it says in words.

    Raises SpecError for a probe of other states, rows or layers, and for options that do not apply; ModelError for
    another model, one whose layers can't be run alone, and for ``answer`` without a language-model head; CacheError
    for a cache without texts; InputError for labels that can't be used and for values that are not finite.
    """
    options = InterventionOptions(
        erase=erase,
        steer=steer,
        answer=answer_words(answer),
        layers=layers,
        n_random=n_random,
        seed=seed,
        max_rows=max_rows,
        split=split,
    )
    run = RunOptions(device, threads, trust_remote_code=trust_remote_code)
    return run_intervene(
        Path(probe), cache, options, run, target=target, model=model, executor=executor, listener=listener or Silent()
    )


def run_intervene(
    probe: Path,
    cache: CacheLike,
    options: InterventionOptions,
    run: RunOptions,
    *,
    target: str | None,
    model: str | os.PathLike[str] | None,
    executor: Executor | None,
    listener: Listener,
) -> InterventionResult:
    """``intervene`` with its options in one object each."""
    started = time.time()
    if not probe.exists():
        raise SpecError(f"probe {probe}", "there is no such file or folder")
    asked = _asked(probe, target, listener)
    with opened_caches([cache]) as opened:
        plan = plan_intervention(opened[0], asked, options, name=cache_names(opened)[0])
        source = same_model(opened[0].spec, model)
        from probekit.explanation.intervene import run_intervention  # here, because it loads torch

        found = run_intervention(plan, source, run, executor=executor, listener=listener)
    packages = ("probekit-layers", "torch", "transformers", "scikit-learn", "numpy")
    made = {"versions": {name: version(name) for name in packages}, "seconds": round(time.time() - started, 3)}
    return replace(found, record={**made, **found.record})


def _asked(probe: Path, target: str | None, listener: Listener) -> Asked:
    """The probe that is asked about. Raises SpecError where there is none that can be used."""
    if is_heads(probe):
        return _asked_heads(probe, target)
    path = find_probe(probe, target, listener)
    saved = load_probe(path)
    check_usable(saved.card, f"probe {path}")
    name = str(saved.card.get("probe"))
    if target is not None and saved.card.get("target") != target:
        raise SpecError(f"--target {target}", f"the probe is of {saved.card.get('target')}")
    kind = name if name in PROBES else clone(saved.estimator)
    called = f"probe {path.name}"
    return Asked(called, saved.card, kind, partial(probe_directions, saved.estimator, called))


def _asked_heads(folder: Path, target: str | None) -> Asked:
    """A linear head on frozen states is a probe; it is refitted elsewhere as the task's own kind of probe."""
    from probekit.training.saved_heads import load_heads  # here, because it loads torch

    heads, called = load_heads(folder), f"heads {folder.name}"
    i = heads.index(target, called)
    card = {**heads.card["heads"][i], "cache": heads.card["cache"]}
    if heads.tuned or card["shape"]["kind"] != "linear":
        got = f"{card['shape']['kind']}, backbone {heads.card['backbone']}"
        raise SpecError(called, "must be linear, on a frozen backbone: others read states that no cache has", got)
    return Asked(called, card, None, partial(_head_directions, heads, i), sized=False)


def _head_directions(heads: Heads, i: int) -> Floats:
    """(d, n_answers)"""
    tensors = {name: value.double().numpy() for name, value in heads.modules[i].state_dict().items()}
    found = (tensors["output.weight"] / tensors["standardise.scale"]).T
    return np.asarray(found - found.mean(axis=1, keepdims=True) if found.shape[1] > 1 else found)
