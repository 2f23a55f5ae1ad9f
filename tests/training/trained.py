"""Small caches of a tiny model, and short ways to train on them and to look inside."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from probekit import extract
from probekit.extraction.request import same_model
from probekit.readspec import RunOptions
from probekit.spec import Silent
from probekit.store import Cache
from probekit.training import run
from probekit.training.backbone import make_trainable, open_live
from probekit.training.options import TrainOptions, head_options
from probekit.training.plan import Chosen, choose_layers, plan_training
from tests.tiny import tiny_texts

PARTS = ("train", "train", "train", "dev", "test")


@dataclass(frozen=True)
class Given:
    """A cache and the model that it is of."""

    cache: Cache
    model: Path


def table(n=80):
    """Texts with a label of two classes, one of three, a number, several labels; the parts are a column."""
    texts, labels = tiny_texts(n)
    words = [text.split() for text in texts]
    return pd.DataFrame(
        {
            "text": texts,
            "label": labels,
            "kind": [("a", "b", "c")[(of.count("film") + of.count("fine")) % 3] for of in words],
            "score": [10.0 + 3 * len(of) + of.count("plot") for of in words],
            "topics": [sorted(set(of) & {"film", "plot", "actor"}) for of in words],
            "split": [PARTS[(i // 2) % 5] for i in range(n)],
            "doc": [f"doc{i // 4}" for i in range(n)],
        }
    )


def parts_of(cache):
    """Rows of train, val and test by the column "split", in their order in the cache."""
    column = np.array([str(value) for value in cache.column("split")])
    return {
        part: np.flatnonzero(column == name) for part, name in (("train", "train"), ("val", "dev"), ("test", "test"))
    }


def made(folder, model, data, **options):
    options = {"tokens": True, "token_dtype": "float32", "dtype": "float32"} | options
    return Given(extract(model, data, out=folder / "cache.h5", **options), model)


def options_of(targets, **options):
    """``TrainOptions`` of targets, with what is the heads' own among them."""
    own = {name: options.pop(name) for name in ("head", "layer", "pooling", "width", "dropout") if name in options}
    shared = {name: options.pop(name) for name in ("tasks", "weights") if name in options}
    return TrainOptions(head_options(targets, **shared, **own), **options)


_CHOSEN: dict[str, list[Chosen]] = {}


def chosen_once(plan, executor, listener):
    """``choose_layers``, which is the same for all trainings that read the same: the probes are fitted once."""
    o = plan.options
    heads = [replace(head, width=128, dropout=0.1, weight=1.0) for head in o.heads]
    of = (heads, o.backbone, o.soft_prompt, o.seeds, o.split, o.group, o.drop_rare, o.subword, o.viterbi)
    key = f"{plan.cache.path} {plan.cache.fingerprint} {of}"
    if key not in _CHOSEN:
        _CHOSEN[key] = choose_layers(plan, executor, listener)
    return [replace(one, options=head) for one, head in zip(_CHOSEN[key], o.heads, strict=True)]


def planned(given, targets, **options):
    plan = plan_training(given.cache, options_of(targets, **options), name="cache")
    return plan, chosen_once(plan, None, Silent())


def trained(given, targets, *, state=None, listener=None, **options):
    """The ``Training`` of a cache."""
    plan = plan_training(given.cache, options_of(targets, **options), name="cache")
    source = same_model(given.cache.spec, given.model) if plan.options.tuned else None
    return run.run_training(
        plan, source, RunOptions("cpu", 1), state=state, executor=None, listener=listener or Silent()
    )


@contextmanager
def tuned_problem(given, targets, **options):
    """The problem of a training through the backbone before its first step, and the backbone."""
    plan, chosen = planned(given, targets, **options)
    source = same_model(given.cache.spec, given.model)
    places = [run.place_of(one) for one in chosen]
    units = np.unique(np.concatenate([one.fits[0].train for one in chosen]))
    with open_live(
        given.cache, source, plan.options, RunOptions("cpu", 1), places=places, rows=units, listener=Silent()
    ) as live:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            tuned = make_trainable(given.cache, live, plan.options, places=places, rows=units, listener=Silent())
        heads = [run._tuned_head(plan, one, 0, tuned) for one in chosen]
        yield run._problem(plan.options, tuned, heads), tuned


def weights_of(training):
    """All that was trained, by name, as bytes."""
    found = {
        f"{i}.{name}": value.numpy().tobytes()
        for i, module in enumerate(training.heads.modules)
        for name, value in module.state_dict().items()
    }
    return found | {name: data for name, data in training.heads.files.items() if name.endswith(".safetensors")}


def one_line(error):
    return "\n" not in str(error.value) and len(str(error.value)) < 600
