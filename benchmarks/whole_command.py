"""The whole command ``probekit probe --layers all`` against the loop that a user would otherwise write, in one run.

    python benchmarks/whole_command.py CACHE [--target label] [--repeats 3]

CACHE: SST-2 read by all-MiniLM-L6-v2, with its own train, dev and test rows. The loop reads the same layers with h5py
and, for each, runs scikit-learn's ``GridSearchCV`` over the same grid of C and the same folds, on as many processes,
and scores the test rows; it has no baselines, no intervals and no choice of a layer. Both are whole processes, imports
included, in turn; the medians and their ratio are printed, and how far the scores are apart.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

LOOP = """
import sys
import h5py, numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

rows = np.load(sys.argv[2], allow_pickle=False)
folds = [(rows[f"fit{k}"], rows[f"held{k}"]) for k in range(int(rows["n_folds"]))]
grid = {"logisticregression__C": rows["grid"].tolist()}
with h5py.File(sys.argv[1]) as file:
    labels = file["examples"][sys.argv[3]]
    y = labels.asstr()[()] if labels.dtype.kind == "O" else labels[()]
    for name in sorted(file["pooled/mean"]):
        X = file["pooled/mean"][name][()]
        pipeline = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
        search = GridSearchCV(pipeline, grid, cv=folds, scoring="neg_log_loss", n_jobs=int(sys.argv[4]))
        search.fit(X[rows["train"]], y[rows["train"]])
        print(int(name), search.best_estimator_.score(X[rows["test"]], y[rows["test"]]), flush=True)
"""


def same_rows(cache_path: str, target: str, out: Path) -> None:
    """Training and test rows, inner folds and grid as probekit has them, for the loop to use."""
    import numpy as np

    from probekit import open_cache
    from probekit.probes.logistic import C_GRID
    from probekit.splits import Column, inner_folds, make_splits
    from probekit.tasks.read import read_target

    with open_cache(cache_path) as cache:
        read = read_target(cache.column(target), target, ids=cache.ids)
        column = Column("split", cache.column("split"))
        (split,) = make_splits(read, ids=cache.ids, texts=cache.texts, split=column)
        folds = inner_folds(read.truth[split.train], stratify=True, groups=None, seed=0)
    arrays = {f"fit{k}": fit for k, (fit, _) in enumerate(folds)} | {
        f"held{k}": held for k, (_, held) in enumerate(folds)
    }
    np.savez(out, train=split.train, test=split.test, grid=np.array(C_GRID), n_folds=len(folds), **arrays)


def timed(command: list[str]) -> tuple[float, float, str]:
    """Wall-clock and CPU seconds of a whole process and its children, and what it printed."""
    before, start = os.times(), time.perf_counter()
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    wall, after = time.perf_counter() - start, os.times()
    cpu = (after.children_user - before.children_user) + (after.children_system - before.children_system)
    return wall, cpu, done.stdout


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cache")
    parser.add_argument("--target", default="label")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    arguments = parser.parse_args()
    times: dict[str, list[tuple[float, float]]] = {"loop": [], "probekit": []}
    with tempfile.TemporaryDirectory() as folder:
        rows, script = Path(folder) / "rows.npz", Path(folder) / "loop.py"
        same_rows(arguments.cache, arguments.target, rows)
        script.write_text(LOOP)
        commands = {
            "loop": [sys.executable, str(script), arguments.cache, str(rows), arguments.target, str(arguments.jobs)],
            "probekit": [
                *(sys.executable, "-m", "probekit", "probe", arguments.cache, "--target", arguments.target),
                *("--layers", "all", "--probe", "logistic", "--jobs", str(arguments.jobs), "--json"),
            ],
        }
        printed = {}
        for _ in range(arguments.repeats):
            for name, command in commands.items():
                wall, cpu, printed[name] = timed(command)
                times[name].append((wall, cpu))
    by_loop = {int(line.split()[0]): float(line.split()[1]) for line in printed["loop"].splitlines()}
    by_probekit = {row["layer"]: row["score"] for row in json.loads(printed["probekit"])}
    apart = max(abs(by_loop[layer] - by_probekit[layer]) for layer in by_loop)
    print("| | wall-clock s | CPU s |\n|---|--:|--:|")
    medians = {
        name: [statistics.median(column) for column in zip(*found, strict=True)] for name, found in times.items()
    }
    for name, (wall, cpu) in medians.items():
        print(f"| {name} | {wall:.1f} | {cpu:.1f} |")
    wall, cpu = (a / b for a, b in zip(medians["loop"], medians["probekit"], strict=True))
    print(f"| ratio | {wall:.1f} x | {cpu:.1f} x |")
    print(f"\n{len(by_loop)} layers; test accuracy differs by at most {apart:.4f}")


if __name__ == "__main__":
    main()
