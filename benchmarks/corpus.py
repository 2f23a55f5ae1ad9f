"""Texts for the benchmarks: SST-2 as it is, and a corpus of long-tailed length put together from its sentences."""

from __future__ import annotations

from pathlib import Path

import numpy as np

WORDS = "the a film of and to is in that it as with for its an this but on be at by one about not like"

DATA = Path(__file__).resolve().parent.parent.parent / "shared" / "data"


def sentences() -> list[str]:
    """The sentences of SST-2's training part where it is beside the checkout, else made of common words."""
    path = DATA / "sst2" / "train.tsv"
    if path.exists():
        return [line.split("\t")[0] for line in path.read_text(encoding="utf-8").splitlines()[1:]]
    rng = np.random.default_rng(0)
    words = np.array(WORDS.split())
    return [" ".join(rng.choice(words, size=int(rng.integers(4, 35)))) for _ in range(7000)]


def long_tailed(n: int, *, seed: int = 0) -> list[str]:
    """``n`` texts of log-normal length (median 45 words, 5 to 190), as in reviews or posts."""
    rng = np.random.default_rng(seed)
    words = " ".join(sentences()).split()
    lengths = np.clip(np.exp(rng.normal(np.log(45), 0.85, n)), 5, 190).astype(int)
    starts = rng.integers(0, len(words) - 200, n)
    return [" ".join(words[start : start + length]) for start, length in zip(starts, lengths, strict=True)]
