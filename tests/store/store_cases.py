"""Made-up layouts and states for the store's tests, and a process that writes a cache slowly enough to be killed."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import numpy as np

from probekit.spec import CacheLayout, Examples, TokenLayout, WindowStates
from probekit.store import open_writer

SPEC = {"model": "m/tiny", "revision": "a", "layers": [0, 1, 2], "max_length": None}


def make_examples(n: int) -> Examples:
    return Examples(
        source="x.tsv",
        text_column="sentence",
        texts=[f"Zürich {i} 日本 \n" * (i % 4 + 1) for i in range(n)],
        ids=np.array([f"id{i}" for i in range(n)], dtype=object),
        columns={
            "label": np.arange(n, dtype=np.int64) % 3,
            "km/h": np.linspace(-1, np.nan if n == 1 else 1, n),
            "text": np.array(["", "ä", "b%"] * n, dtype=object)[:n],
            "ok": np.arange(n) % 2 == 0,
        },
    )


def make_layout(n, *, window=4, layers=(0, 1, 2), poolings=("mean", "last"), dtype="float32", token_dtype=None, d=5):
    rng = np.random.default_rng(n)
    n_tokens = rng.integers(1, 7, n).astype(np.int32)
    total = int(n_tokens.sum())
    tokens = None
    if token_dtype:
        special = rng.random(total) < 0.2
        ids = rng.integers(0, 30000, total).astype(np.int32)
        tokens = TokenLayout(ids, special, rng.integers(-1, 9, total).astype(np.int32), token_dtype)
    return CacheLayout(
        layers=tuple(layers),
        final_norm=(layers[-1],),
        poolings=tuple(poolings),
        d_model=d,
        n_tokens=n_tokens,
        truncated=rng.random(n) < 0.3,
        windows=tuple((start, min(n, start + window)) for start in range(0, n, window)),
        pooled_dtype=dtype,
        tokens=tokens,
    )


def begin(path, layout, **options):
    spec = options.pop("spec", SPEC)
    examples = options.pop("examples", None) or make_examples(len(layout.n_tokens))
    return open_writer(path, spec=spec, provenance={}, layout=layout, examples=examples, **options)


def make_states(layout: CacheLayout, index: int, *, scale: float = 1.0, split_batches: int = 0) -> WindowStates:
    """States that depend on the window alone, as a model's do."""
    start, stop = layout.windows[index]
    rng = np.random.default_rng([7, index])
    rows = int(layout.n_tokens[start:stop].sum())
    pooled = {
        (pooling, layer): (scale * rng.standard_normal((stop - start, layout.d_model))).astype(np.float32)
        for pooling in layout.poolings
        for layer in layout.layers
    }
    tokens = {
        layer: (scale * rng.standard_normal((rows, layout.d_model))).astype(np.float32)
        for layer in (layout.layers if layout.tokens else ())
    }
    return WindowStates(index, pooled, tokens, split_batches)


def write_all(path, layout, *, spec=SPEC, order=None, **options):
    examples = make_examples(len(layout.n_tokens))
    with open_writer(path, spec=spec, provenance={"by": "test"}, layout=layout, examples=examples, **options) as writer:
        for index in order if order is not None else writer.pending():
            writer.write_window(make_states(layout, index))
        writer.seal()


def whole_pooled(layout: CacheLayout, pooling: str, layer: int) -> np.ndarray:
    return np.concatenate([make_states(layout, i).pooled[pooling, layer] for i in range(len(layout.windows))])


def whole_tokens(layout: CacheLayout, layer: int) -> np.ndarray:
    return np.concatenate([make_states(layout, i).tokens[layer] for i in range(len(layout.windows))])


def killable_layout() -> CacheLayout:
    return make_layout(120, window=4, layers=(0, 1, 2, 3), token_dtype="float16")


# (Called in processes of its own only, so os.pwrite is not put back.)
def write_slowly(path: Path) -> None:
    """Most of the time passes between the single writes to the file, so that most kills fall there."""
    pwrite = os.pwrite
    os.pwrite = lambda fd, data, at: (time.sleep(0.0003), pwrite(fd, data, at))[1]
    layout = killable_layout()
    examples = make_examples(120)
    with open_writer(path, spec=SPEC, provenance={}, layout=layout, examples=examples) as writer:
        for index in writer.pending():
            writer.write_window(make_states(layout, index))
        writer.seal()


def serve() -> None:
    """For each line "SECONDS PATH" on stdin: write PATH slowly in a fresh process and kill -9 it after SECONDS.

    Answers with its exit code and how long it ran. The processes are forks of this one, which has the imports behind
    it and no threads: so the kill falls into the work, not into the start of Python.
    """
    for line in sys.stdin:
        seconds, path = line.rstrip("\n").split(" ", 1)
        begun = time.perf_counter()
        pid = os.fork()
        if pid == 0:
            write_slowly(Path(path))
            os._exit(0)
        ended = False
        while not ended and time.perf_counter() - begun < float(seconds):
            # Not reaped before the kill, so the number can't belong to anyone else by then.
            ended = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
            time.sleep(0.0005)
        if not ended:
            os.kill(pid, signal.SIGKILL)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        print(code, time.perf_counter() - begun, flush=True)


if __name__ == "__main__":
    serve()
