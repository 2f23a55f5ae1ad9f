"""The last block's state before the model's final norm, after it, or both."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from probekit import extract, open_cache, predict
from probekit.cli import run
from probekit.errors import SpecError
from probekit.models import packing
from probekit.models.backbone import prepare
from tests.models.families import FAMILIES, build
from tests.models.test_families import TEXTS, read


def put_out_by_the_last_block(model, stack, side, text):
    """By a hook of our own on transformers' own run of one text."""
    seen = []
    hook = stack.blocks[-1].register_forward_hook(
        lambda _m, _i, out: seen.append(out if torch.is_tensor(out) else out[0])
    )
    ids = torch.tensor([text])
    with torch.inference_mode():
        if side == "decoder":
            model(input_ids=ids)
        else:
            model(input_ids=ids, attention_mask=torch.ones_like(ids))
    hook.remove()
    return seen[-1][0]


@pytest.mark.parametrize("name", [name for name, family in FAMILIES.items() if name != "fnet"])
def test_raw_is_what_the_last_block_put_out(name):
    family, model = FAMILIES[name], build(name)

    def ready(last_layer):
        return prepare(
            copy.deepcopy(model),
            device=torch.device("cpu"),
            dtype="float32",
            dtype_reason="",
            side=family.side,
            last_layer=last_layer,
        )

    raw, normed = ready("raw"), ready("normed")
    n = raw.stack.n_layers
    found = read(raw, TEXTS, (n - 1, n))
    if not raw.padded:
        packing.switch_attention(raw.model, "sdpa")  # transformers' own run
    expected = [put_out_by_the_last_block(raw.model, raw.stack, family.side, text) for text in TEXTS]
    for mine, theirs in zip(found[n], expected, strict=True):
        torch.testing.assert_close(mine, theirs.float(), atol=1e-5, rtol=1e-5)
    of_both = read(normed, TEXTS, (n,))
    assert raw.stack.normed_layer is None
    if not family.final_norm:
        assert_equal(found[n], of_both[n])
        with pytest.raises(SpecError, match="this one has none"):
            ready("both")
        return
    assert normed.stack.normed_layer == n
    both = ready("both")
    assert both.stack.normed_layer == n + 1
    states = read(both, TEXTS, (0, n, n + 1))
    assert_equal(states[n], found[n])
    assert_equal(states[n + 1], of_both[n])
    assert any(not torch.allclose(a, b, atol=1e-3) for a, b in zip(states[n], states[n + 1], strict=True))


def assert_equal(found, expected):
    for mine, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-5)


@pytest.fixture
def decoder(tmp_path, tiny_model):
    """A tiny Llama with the tiny BERT's tokenizer."""
    import shutil

    import transformers

    folder = tmp_path / "llama"
    shutil.copytree(tiny_model, folder)
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=14,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=32,
    )
    transformers.LlamaModel(config).save_pretrained(folder)
    return folder


def test_the_whole_way(tmp_path, decoder, tiny_data, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    common = {"dtype": "float32", "pooling": "last"}
    normed = extract(decoder, tiny_data, out="normed.h5", **common)
    raw = extract(decoder, tiny_data, out="raw.h5", last_layer="raw", **common)
    both = extract(decoder, tiny_data, out="both.h5", last_layer="both", **common)
    assert "last_layer" not in normed.spec
    assert (raw.layers, raw.final_norm) == ((0, 1, 2), frozenset())
    assert (both.layers, both.final_norm) == ((0, 1, 2, 3), frozenset({3}))
    np.testing.assert_allclose(both.layer(2), raw.layer(2), atol=1e-6)
    np.testing.assert_allclose(both.layer(3), normed.layer(2), atol=1e-6)
    assert extract(decoder, tiny_data, out="both.h5", last_layer="both", **common).fingerprint == both.fingerprint
    assert run(["probe", "both.h5", "--target", "label", "--layers", "-1", "--save-probes", "heads"]) == 0
    (probe,) = (tmp_path / "heads").glob("*-003-*.skops")
    with open_cache("both.h5") as cache:
        texts, states = cache.texts[:8], cache.layer(3)[:8]
    found = predict(probe, texts, model=decoder)
    from probekit.saved import load_probe

    assert found.labels.tolist() == load_probe(probe).estimator.predict(states).tolist()
    for options in ("--last-layer final", "--last-layer raw --site mlp", "--layers 4 --last-layer both"):
        capsys.readouterr()
        assert run(["extract", str(decoder), str(tiny_data), "--out", "bad.h5", *options.split(" ")]) == 2
        assert capsys.readouterr().err.count("error: --la") == 1
