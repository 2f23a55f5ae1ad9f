"""A tiny model of any family with a made-up probe on it, ready to be explained."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import torch
from torch import nn

from probekit.explanation.opened import Opened, Reading, Scorer
from probekit.explanation.twins import ClassOdds
from probekit.explanation.words import Bound
from probekit.extraction.reader import Reader
from probekit.models.backbone import prepare
from probekit.models.live import for_training
from probekit.models.prompts import Template
from probekit.readspec import ReadSpec
from probekit.tasks import TASKS
from probekit.training.texts import Place
from tests.models.families import FAMILIES, build

WORDS = [[5], [9, 3], [7], [11, 4, 8], [30]]
"""The tokens of each word of the text; one token stands before them and one behind."""

IDS = np.array([1, *(token for word in WORDS for token in word), 2], dtype=np.int32)
UNIT = np.array([-1, *(w for w, word in enumerate(WORDS) for _ in word), -1], dtype=np.int32)
MASK_ID = 6


def bound(ids=IDS, unit=UNIT, *, name="1"):
    n_words = int(unit.max()) + 1
    words = tuple((2 * w, 2 * w + 1) for w in range(n_words))
    return Bound(name, "abcdefghijklmnop"[:n_words].replace("", " ").strip(), ids, unit, words, None, n_words)


class Made(nn.Module):
    """A linear probe of ``n`` classes, its weights drawn by a seed."""

    def __init__(self, d, n, seed=0):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.register_buffer("weight", torch.randn(d, n, generator=generator, dtype=torch.float64))
        self.odds = ClassOdds()

    def forward(self, x):
        return self.odds(x.double() @ self.weight)


@contextmanager
def reading(name, *, model=None, layer=2, pooling="mean", n_classes=3, score=None, dtype="float32", smooth=True):
    model = model or build(name)
    backbone = prepare(
        model,
        device=torch.device("cpu"),
        dtype=dtype,
        dtype_reason="",
        side=FAMILIES[name].side if name in FAMILIES else "encoder",
    )
    scorer = Scorer(
        Place((layer,), pooling),
        score or Made(backbone.stack.d_model, n_classes),
        smooth,
        TASKS["classification"],
        tuple("abcdefgh"[:n_classes]),
        "made-up",
    )
    tokenizer = SimpleNamespace(mask_token_id=MASK_ID, pad_token_id=0)
    reader = Reader(ReadSpec(), backbone, tokenizer, Template())
    with Opened(reader, None, scorer).reading() as found:
        yield found


def unpadded(found, sequences):
    """Scores of each sequence alone, through ``Backbone.stream``'s path and not that of gradients."""
    backbone, scorer = found.opened.reader.backbone, found.opened.scorer
    rows = []
    for ids in sequences:
        states = []
        alone = replace(backbone, position_start=None, single=False)
        alone.stream(
            [list(map(int, ids))], layers=scorer.place.layers, receive=lambda _k, s, to=states: to.append(s.clone())
        )
        rows.append(scorer.score(states[0].mean(0, keepdim=True))[0].numpy())
    return np.array(rows)


__all__ = ["IDS", "MASK_ID", "UNIT", "WORDS", "Made", "Reading", "bound", "for_training", "reading", "unpadded"]
