"""What methods of explanation are worth: what leaving out the words that they call important does to the answer.

    python benchmarks/explain.py DATA [--texts 200] [--work FOLDER] [--model minilm|smollm2]

DATA: a folder with ``sst2/{train,dev,test}.tsv``. A cache and the probe of its best layer are made in ``--work`` once.
For each method and baseline: the probability that is lost without the most important fifth of the words, beside the
same for random words (mean over 10 draws), the gap of integrated gradients, and CPU seconds a text without these
checks.
"""

from __future__ import annotations

import argparse
import csv
import time
from pathlib import Path

import numpy as np
from heads import head_of, models, run

import probekit
from probekit.explanation.data_set import trust_table

WAYS = (
    ("occlusion", "delete", None),
    ("occlusion", "mask", None),
    ("lrp", "delete", None),
    ("integrated-gradients", "delete", "mask"),
    ("integrated-gradients", "delete", "pad"),
    ("integrated-gradients", "delete", "zero"),
    ("gradient-norm", "delete", None),
    ("gradient-x-input", "delete", None),
)
TIMED = 20
"""Texts."""


def make_probe(data: Path, work: Path, name: str) -> Path:
    """The probe of SST-2 at the layer that is best on validation. SmolLM2 reads 600 of the training rows."""
    files = [data / "sst2" / f"{part}.tsv" for part in ("train", "dev", "test")]
    cache, probes = work / f"{name}.h5", work / f"{name}-probes"
    if name == "smollm2":
        for part, n in (("train", 600), ("dev", 200), ("test", 300)):
            head_of(data / "sst2" / f"{part}.tsv", work / "some" / f"{part}.tsv", n)
        files = [work / "some" / f"{part}.tsv" for part in ("train", "dev", "test")]
    if not cache.exists():
        layers = ("--layers", "10:31:2") if name == "smollm2" else ()
        run("extract", models()[name], *files, "--dtype", "float32", "--out", cache, *layers)
    if not probes.exists():
        run("probe", cache, "--target", "label", "--save-probes", probes)
    return probes


def main() -> None:
    """See above."""
    parser = argparse.ArgumentParser()
    parser.add_argument("data", type=Path)
    parser.add_argument("--texts", type=int, default=200)
    parser.add_argument("--work", type=Path, default=Path("explain-benchmark"))
    parser.add_argument("--model", choices=("minilm", "smollm2"), default="minilm")
    asked = parser.parse_args()
    asked.work.mkdir(parents=True, exist_ok=True)
    probes, model = make_probe(asked.data, asked.work, asked.model), models()[asked.model]
    with (asked.data / "sst2" / "test.tsv").open(encoding="utf-8") as file:
        texts = [row["text"] for row in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)][: asked.texts]
    for method, remove, baseline in WAYS:
        options = {"method": method, "remove": remove, "baseline": baseline, "model": model, "threads": 1}
        try:
            found = probekit.explain(probes, texts, **options)
        except probekit.ProbekitError as error:
            print(f"| {method} {baseline or ''} | {error} |", flush=True)
            continue
        begun = time.process_time()
        probekit.explain(probes, texts[:1], trust=False, **options)
        between = time.process_time()
        probekit.explain(probes, texts[: TIMED + 1], trust=False, **options)
        seconds = (time.process_time() - between - (between - begun)) / TIMED
        row = trust_table(found).iloc[0]
        gaps = np.array([one.first.gap for one in found])
        within = (
            "" if np.isnan(gaps).all() else f"{np.mean(gaps < 0.01):.0%}, {np.mean([o.first.steps for o in found]):.0f}"
        )
        print(
            f"| {method} | {remove} | {baseline or ''} | {row['comprehensiveness']:.3f} | "
            f"{row['random_comprehensiveness']:.3f} | {row['beyond_random']:.3f} ({row['lower']:.3f} to "
            f"{row['upper']:.3f}) | {row['sufficiency']:.3f} | {row['random_sufficiency']:.3f} | {within} | "
            f"{seconds:.2f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
