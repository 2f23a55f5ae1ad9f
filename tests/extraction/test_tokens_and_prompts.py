"""Token states and pooling over the text alone, through ``extract``, against transformers and NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import transformers

from probekit import extract
from probekit.api.predict import predict
from probekit.api.probe import run_probes
from probekit.errors import InputError, SpecError
from probekit.evaluate.plan import ProbeOptions
from probekit.saved import save
from tests.packaged import minilm
from tests.tiny import tiny_texts


@pytest.fixture(scope="module")
def own(tiny_model):
    """transformers' own tokenizer and model."""
    return transformers.AutoTokenizer.from_pretrained(tiny_model), transformers.AutoModel.from_pretrained(tiny_model)


def states_of(own, text):
    tokenizer, model = own
    with torch.inference_mode():
        return [
            s[0].numpy() for s in model(**tokenizer(text, return_tensors="pt"), output_hidden_states=True).hidden_states
        ]


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 2e-6), ("float16", 2e-3), ("bfloat16", 2e-2)])
def test_token_states(tmp_path, tiny_model, tiny_data, own, dtype, tolerance):
    with extract(
        tiny_model, tiny_data, out=tmp_path / "c.h5", tokens=True, token_dtype=dtype, dtype="float32", batch_tokens=50
    ) as cache:
        texts, _ = tiny_texts(60)
        for layer in cache.layers:
            tokens = cache.tokens(layer)
            assert len(tokens) == 60
            for i in range(0, 60, 7):
                np.testing.assert_allclose(tokens[i], states_of(own, texts[i])[layer], rtol=tolerance, atol=tolerance)
        encoding = own[0](texts[7], return_special_tokens_mask=True)
        assert tokens.ids(7).tolist() == encoding["input_ids"]
        assert tokens.special(7).tolist() == [bool(s) for s in encoding["special_tokens_mask"]]
        assert tokens.word(7).tolist() == [-1, *range(len(encoding["input_ids"]) - 2), -1]
        mean = np.stack([tokens[i].mean(0) for i in range(60)])
        np.testing.assert_allclose(cache.layer(2), mean, atol=tolerance * 5)


def test_pooling_over_the_text_alone(tmp_path, tiny_model, tiny_data, own):
    texts, _ = tiny_texts(60)
    options = {"prompt": "the film : {text} a plot", "pooling": "mean,last,first", "dtype": "float32"}
    with (
        extract(tiny_model, tiny_data, out=tmp_path / "text.h5", pool_over="text", **options) as inside,
        extract(tiny_model, tiny_data, out=tmp_path / "all.h5", **options) as whole,
    ):
        for i in range(0, 60, 7):
            states = states_of(own, f"the film : {texts[i]} a plot")[2]
            of_text = states[4 : 4 + len(texts[i].split())]  # [CLS] the film [UNK]
            np.testing.assert_allclose(inside.layer(2, pooling="mean")[i], of_text.mean(0), atol=2e-6)
            np.testing.assert_allclose(inside.layer(2, pooling="first")[i], of_text[0], atol=2e-6)
            np.testing.assert_allclose(inside.layer(2, pooling="last")[i], of_text[-1], atol=2e-6)
            np.testing.assert_allclose(whole.layer(2, pooling="mean")[i], states.mean(0), atol=2e-6)


def test_without_a_prompt_the_text_is_all_but_the_special_tokens(tmp_path, tiny_model, tiny_data, own):
    texts, _ = tiny_texts(60)
    with extract(tiny_model, tiny_data, out=tmp_path / "c.h5", pool_over="text", dtype="float32") as cache:
        np.testing.assert_allclose(cache.layer(1)[5], states_of(own, texts[5])[1][1:-1].mean(0), atol=2e-6)


def test_a_saved_probe_repeats_the_prompt(tmp_path, tiny_model, tiny_data):
    out = tmp_path / "c.h5"
    extract(tiny_model, tiny_data, out=out, prompt="a {text} film", pool_over="text", dtype="float32").close()
    done = run_probes([out], ["score"], options=ProbeOptions())
    (path,) = save(done, tmp_path / "heads")
    ((chosen, _),) = done.chosen
    texts, _ = tiny_texts(60)
    found = predict(path, [texts[i] for i in chosen.test], model=tiny_model)
    np.testing.assert_allclose(found.labels, chosen.predicted, rtol=1e-4, atol=1e-4)


def test_random_weights_are_another_model_and_always_the_same(tmp_path, tiny_model, tiny_data):
    caches = [
        extract(tiny_model, tiny_data, out=tmp_path / f"{name}.h5", random_seed=seed, dtype="float32")
        for name, seed in (("trained", None), ("a", 1), ("b", 1), ("c", 2))
    ]
    trained, a, b, c = (np.array(cache.layer(2)) for cache in caches)
    assert a.tobytes() == b.tobytes()
    assert np.abs(a - trained).max() > 0.1
    assert np.abs(a - c).max() > 0.1
    for cache in caches:
        cache.close()


def test_sites_through_extract(tmp_path, tiny_model, tiny_data):
    with extract(tiny_model, tiny_data, out=tmp_path / "c.h5", site="attention", dtype="float32") as cache:
        assert cache.layers == (1, 2)
        assert cache.final_norm == frozenset()
    stamp = (tmp_path / "c.h5").stat().st_mtime_ns
    extract(tiny_model, tiny_data, out=tmp_path / "c.h5", site="attention").close()
    assert (tmp_path / "c.h5").stat().st_mtime_ns == stamp
    with pytest.raises(SpecError, match=r"--layers 0,1: the embeddings \(0\) have no mlp; layers 1..2"):
        extract(tiny_model, tiny_data, out=tmp_path / "d.h5", site="mlp", layers="0,1")


def test_what_is_refused(tmp_path, tiny_model, tiny_data):
    out = tmp_path / "c.h5"
    for options, message in (
        ({"prompt": "no place"}, r"--prompt: must have \{text\} in it exactly once"),
        ({"prompt": "{text} {text}"}, r"--prompt: must have \{text\} in it exactly once"),
        ({"pool_over": "words"}, "--pool-over words: one of all, text, span"),
        ({"pool_over": "text", "pooling": "mean_skip_first"}, "with --pool-over text take mean"),
        ({"chat_template": True}, "--chat-template: needs a tokenizer with a chat template"),
        ({"site": "head"}, "--site head: one of block, attention, mlp"),
        ({"side": "decoder"}, "--side decoder: goes with encoder-decoder models; got a bert"),
        ({"token_dtype": "int8"}, "--token-dtype int8: one of float32, float16, bfloat16"),
    ):
        with pytest.raises(SpecError, match=message):
            extract(tiny_model, tiny_data, out=out, **options)
    odd = tmp_path / "odd.tsv"
    odd.write_text("text\tlabel\ngood\ta\n\x7f\tb\n")  # BERT's tokenizer drops control characters
    with pytest.raises(InputError, match=r"example 1: with --pool-over text every text needs a token of its own"):
        extract(minilm(), odd, out=out, pool_over="text")
    assert [path.name for path in tmp_path.iterdir()] == ["odd.tsv"]
