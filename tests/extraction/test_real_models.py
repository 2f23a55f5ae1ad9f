"""The two packaged models through the whole of ``extract``: the cache against transformers and plain NumPy."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from probekit import extract
from probekit.extraction import reader as reader_module
from probekit.models import backbone as backbone_module
from tests.numpy_poolings import NUMPY_POOLINGS
from tests.packaged import load_transformers, minilm, smollm2

TEXTS = [
    "a long sentence about the city of Osaka and its castle, its food and its trains",
    "hi",
    "three more words",
    "Größenwahn 😀 日本語",
    "the same length",
    "the same number",
    "x",
    'He said: "no", and left.',
] * 2
TOLERANCE = 2e-5  # of the layer's largest value, in float32


@pytest.fixture(scope="module", params=["minilm", pytest.param("smollm2", marks=pytest.mark.slow)])
def real(request):
    """The model's path, and transformers' own model and tokenizer (a GGUF takes long, so it is loaded once)."""
    path = {"minilm": minilm, "smollm2": smollm2}[request.param]()
    return path, *load_transformers(path)


@pytest.fixture
def loaded(real, monkeypatch):
    """``extract`` gets copies of what is loaded already."""
    path, model, tokenizer = real

    def load_backbone(_source, spec, _options):
        dtype = spec.dtype or "float32"
        own = copy.deepcopy(model).to(getattr(torch, dtype))
        return backbone_module.prepare(own, device=torch.device("cpu"), dtype=dtype, dtype_reason="test")

    monkeypatch.setattr(reader_module, "load_backbone", load_backbone)
    monkeypatch.setattr(reader_module, "load_tokenizer", lambda _source, **_options: copy.deepcopy(tokenizer))
    return path, model, tokenizer


@pytest.fixture
def data(tmp_path):
    path = tmp_path / "texts.csv"
    lines = ["id,text,label", *(f'row{i},"{t.replace(chr(34), chr(34) * 2)}",{i % 2}' for i, t in enumerate(TEXTS))]
    path.write_text("\n".join([*lines, ""]), encoding="utf-8")
    return path


def independent(model, tokenizer):
    """hidden_states of every text alone, as NumPy: [text][layer] (tokens, d_model)."""
    found = []
    for text in TEXTS:
        with torch.inference_mode():
            states = model(**tokenizer(text, return_tensors="pt"), output_hidden_states=True).hidden_states
        found.append([layer[0].numpy() for layer in states])
    return found


@pytest.mark.parametrize("side", ["right", pytest.param("left", marks=pytest.mark.slow)])
def test_every_cached_layer_equals_hidden_states_pooled_by_numpy(loaded, data, tmp_path, side, monkeypatch):
    path, model, tokenizer = loaded
    expected = independent(model, tokenizer)
    monkeypatch.setattr(tokenizer, "padding_side", side)
    cache = extract(
        path, data, out=tmp_path / "c.h5", dtype="float32", pooling=",".join(NUMPY_POOLINGS), batch_tokens=40, threads=1
    )
    assert cache.ids.tolist() == [f"row{i}" for i in range(len(TEXTS))]
    assert cache.texts == TEXTS
    assert cache.n_tokens.tolist() == [len(states[0]) for states in expected]
    assert cache.layers == tuple(range(len(expected[0])))
    for layer in cache.layers:
        scale = max(np.abs(states[layer]).max() for states in expected)
        for name, pool in NUMPY_POOLINGS.items():
            want = np.stack([pool(states[layer]) for states in expected])
            np.testing.assert_allclose(
                cache.layer(layer, pooling=name), want, rtol=0, atol=TOLERANCE * scale, err_msg=f"{name} {layer}"
            )
    cache.close()


large_is_slow = pytest.mark.parametrize(
    "real", ["minilm", pytest.param("smollm2", marks=pytest.mark.slow)], indirect=True
)


@large_is_slow
def test_padded_reading_gives_the_same(loaded, data, tmp_path, monkeypatch):
    """The fallback for models that can't be packed, on models that can."""
    path, model, tokenizer = loaded
    monkeypatch.setattr(backbone_module, "_try_packing", lambda *_arguments: (None, "padded: test"))
    expected = independent(model, tokenizer)
    with extract(path, data, out=tmp_path / "c.h5", pooling="last", batch_tokens=40, threads=1) as cache:
        assert cache.spec["batching"] == "padded"
        for layer in cache.layers:
            scale = max(np.abs(states[layer]).max() for states in expected)
            want = np.stack([states[layer][-1] for states in expected])
            np.testing.assert_allclose(cache.layer(layer), want, rtol=0, atol=TOLERANCE * scale)


@large_is_slow
def test_defaults_by_kind_of_model(loaded, data, tmp_path):
    path, model, _ = loaded
    with extract(path, data, out=tmp_path / "c.h5", threads=1) as cache:
        decoder = path.suffix == ".gguf"
        assert cache.poolings == (("last", "mean_skip_first") if decoder else ("mean",))
        assert cache.final_norm == ({30} if decoder else set())
        assert cache.spec["batching"] == "packed"
        assert cache.spec["n_layers"] == (30 if decoder else 6)
        assert cache.d_model == model.config.hidden_size


@large_is_slow
def test_bfloat16_is_near_and_massive_activations_survive(loaded, data, tmp_path):
    """Trap: float16 overflow. SmolLM2's first position has values that float16 rounds by 16 and half of the range."""
    path, model, tokenizer = loaded
    expected = independent(model, tokenizer)
    with extract(path, data, out=tmp_path / "c.h5", pooling="first,mean", dtype="bfloat16", threads=1) as cache:
        for layer in cache.layers:
            want = np.stack([states[layer].mean(0) for states in expected])
            error = np.linalg.norm(cache.layer(layer, pooling="mean") - want) / np.linalg.norm(want)
            assert error < 0.06, layer  # 2**-8 a step, through 30 blocks
        if path.suffix == ".gguf":
            largest = max(np.abs(cache.layer(k, pooling="first")).max() for k in cache.layers)
            assert 10_000 < largest < 65_504


def test_the_attention_sink_is_what_mean_skip_first_leaves_out(loaded, data, tmp_path):
    """Trap: the sink in mean pooling. Unrelated texts look alike by the mean, and not without the first position."""
    path, _, _ = loaded
    if path.suffix != ".gguf":
        pytest.skip("an encoder without a sink")
    with extract(path, data, out=tmp_path / "c.h5", pooling="mean,mean_skip_first", threads=1) as cache:
        cosine = {}
        for name in cache.poolings:
            rows = np.array(cache.layer(15, pooling=name))[[0, 2, 4]]
            rows /= np.linalg.norm(rows, axis=1, keepdims=True)
            cosine[name] = (rows @ rows.T)[np.triu_indices(3, 1)].mean()
    assert cosine["mean"] > 0.98
    assert cosine["mean_skip_first"] < 0.9


@large_is_slow
def test_truncation_is_counted_and_keeps_the_beginning(loaded, data, tmp_path):
    path, _, tokenizer = loaded
    with extract(path, data, out=tmp_path / "c.h5", pooling="last", max_length=6, threads=1) as cache:
        full = [len(tokenizer(text)["input_ids"]) for text in TEXTS]
        assert cache.truncated.tolist() == [n > 6 for n in full]
        assert cache.n_tokens.tolist() == [min(n, 6) for n in full]
