"""Data that come as words, through ``extract``: every word's token states against transformers, each text alone."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest
import torch
import transformers

from probekit import extract
from probekit.cli import run
from probekit.errors import OutOfMemoryError, SpecError, StaleCacheError
from probekit.extraction import reader as reader_module
from probekit.extraction.plan import make_plan
from probekit.extraction.run import ForwardPlan
from probekit.extraction.run import run as run_extraction
from probekit.models import backbone as backbone_module
from tests.packaged import load_transformers, minilm, smollm2

SENTENCES = [
    ["good", "film", ",", "but", "the", "plot", "is", "n't"],
    ["New York", "has", "日本", "😀👩‍👩‍👧", "@user", "https://ex.org/a?b=c"],
    ["dull"],
    ["a very", "fine", "actor", "'s", "Größe", "."],
    ["the", "\u200d", "bad", "\u200d", "film"],  # BERT drops the joiner
]
LONG = [word for _ in range(6) for word in ("the", "actor", "isn't", "very", "good", "unbelievably", "!")]
TOLERANCE = 2e-5  # of the layer's largest value
OPTIONS = {"tokens": True, "token_dtype": "float32", "dtype": "float32", "threads": 1}


def save_conll(path, sentences):
    lines = ["".join(f"{word}\tO\n" for word in words) for words in sentences]
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def save_lists(path, sentences):
    path.write_text("".join(f"{json.dumps({'tokens': words})}\n" for words in sentences), encoding="utf-8")
    return path


@pytest.fixture(scope="module", params=["tiny", "minilm", pytest.param("smollm2", marks=pytest.mark.slow)])
def loaded(request):
    """The model's path, and transformers' own model and tokenizer, loaded once."""
    path = {"minilm": minilm, "smollm2": smollm2, "tiny": lambda: request.getfixturevalue("tiny_model")}[
        request.param
    ]()
    return path, *load_transformers(path)


@pytest.fixture
def real(loaded, monkeypatch):
    """A GGUF takes long to load, so ``extract`` gets a copy of what is loaded."""
    path, model, tokenizer = loaded
    if path.suffix == ".gguf":

        def load_backbone(_source, _spec, _options):
            own = copy.deepcopy(model)
            return backbone_module.prepare(own, device=torch.device("cpu"), dtype="float32", dtype_reason="test")

        monkeypatch.setattr(reader_module, "load_backbone", load_backbone)
        monkeypatch.setattr(reader_module, "load_tokenizer", lambda _source, **_options: copy.deepcopy(tokenizer))
    return loaded


def hidden_states(model, ids):
    """[layer] (n_tokens, d_model) of one text alone."""
    with torch.inference_mode():
        states = model(input_ids=torch.tensor([ids]), output_hidden_states=True).hidden_states
    return [layer[0].numpy() for layer in states]


def tokens_of(words, offsets):
    """By Hugging Face's offsets: for each word, which tokens have one of its characters."""
    found, start = [], 0
    for word in words:
        found.append([i for i, (a, b) in enumerate(offsets) if a < start + len(word) and b > start])
        start += len(word) + 1
    return found


def own_pieces(tokenizer, words, max_length, stride):
    """Hugging Face's own overlapping pieces: [(ids, offsets)]."""
    read = tokenizer(
        " ".join(words),
        max_length=max_length,
        stride=stride,
        truncation=True,
        return_overflowing_tokens=True,
        return_offsets_mapping=True,
    )
    tokenizer.backend_tokenizer.no_truncation()
    return list(zip(read["input_ids"], read["offset_mapping"], strict=True))


def assert_near(got, want, scale, message=""):
    np.testing.assert_allclose(got, want, rtol=0, atol=TOLERANCE * scale, err_msg=message)


def test_every_words_states(real, tmp_path):
    path, model, tokenizer = real
    data = save_conll(tmp_path / "a.conll", SENTENCES)
    with extract(path, data, out=tmp_path / "c.h5", batch_tokens=30, **OPTIONS) as cache:
        assert cache.words == SENTENCES
        assert cache.spec["words"] == "tokens"
        assert "stride" not in cache.spec
        assert cache.texts == [" ".join(words) for words in SENTENCES]
        assert json.loads(cache.column("tokens")[1]) == SENTENCES[1]
        assert len(cache.layers) == model.config.num_hidden_layers + 1
        assert not cache.truncated.any()
        tokens = {layer: cache.tokens(layer) for layer in cache.layers}
        for i, words in enumerate(SENTENCES):
            own = tokenizer(" ".join(words), return_offsets_mapping=True)
            expected, picked = hidden_states(model, own["input_ids"]), tokens_of(words, own["offset_mapping"])
            for layer, stored in tokens.items():
                assert stored.ids(i).tolist() == own["input_ids"]
                scale = np.abs(expected[layer]).max()
                for w, at in enumerate(picked):
                    assert np.flatnonzero(stored.word(i) == w).tolist() == at
                    assert_near(stored[i][stored.word(i) == w], expected[layer][at], scale, f"{layer} {words[w]}")
            none = {i for at in picked for i in at} ^ set(range(len(own["input_ids"])))
            assert set(np.flatnonzero(stored.word(i) == -1).tolist()) == none


def test_a_list_column_reads_like_a_conll_file(tiny_model, tmp_path):
    saved = save_conll(tmp_path / "a.conll", SENTENCES), save_lists(tmp_path / "a.jsonl", SENTENCES)
    caches = [extract(tiny_model, data, out=tmp_path / f"{data.name}.h5", **OPTIONS) for data in saved]
    a, b = (cache.tokens(2) for cache in caches)
    assert caches[1].words == SENTENCES
    assert a.all.tobytes() == b.all.tobytes()
    assert a.token_word.tolist() == b.token_word.tolist()
    for cache in caches:
        cache.close()


def test_words_beyond_the_cut_have_no_token(tiny_model, tmp_path):
    data = save_conll(tmp_path / "a.conll", [*SENTENCES, LONG])
    with extract(tiny_model, data, out=tmp_path / "c.h5", max_length=8, **OPTIONS) as cache:
        tokens = cache.tokens(2)
        assert cache.truncated.tolist() == [True, True, False, True, False, True]
        assert tokens.word(5).tolist() == [-1, 0, 1, 2, 2, 2, 3, -1]  # isn't: isn ' t
        assert cache.words[5] == LONG
        assert cache.n_tokens[5] == 8


def test_overlapping_pieces(real, tmp_path):
    check_pieces(real, tmp_path, max_length=14, stride=5)


@pytest.mark.parametrize("loaded", ["tiny", "minilm"], indirect=True)
def test_pieces_that_share_nothing(real, tmp_path):
    check_pieces(real, tmp_path, max_length=12, stride=0)


def check_pieces(real, tmp_path, *, max_length, stride):
    """Each word's states are those of the one piece that has most of it, read alone."""
    path, model, tokenizer = real
    sentences = [SENTENCES[0], LONG, SENTENCES[2], SENTENCES[1] * 2]
    data = save_conll(tmp_path / "a.conll", sentences)
    options = OPTIONS | {"max_length": max_length, "stride": stride, "batch_tokens": 40}
    with extract(path, data, out=tmp_path / "c.h5", **options) as cache:
        assert cache.spec["stride"] == stride
        assert not cache.truncated.any()
        tokens = {layer: cache.tokens(layer) for layer in cache.layers}
        for i, words in enumerate(sentences):
            pieces = own_pieces(tokenizer, words, max_length, stride)
            assert (len(pieces) > 1) == (i in (1, 3))
            assert cache.n_tokens[i] == sum(len(ids) for ids, _ in pieces)
            bounds = np.cumsum([0, *(len(ids) for ids, _ in pieces)])
            states = [hidden_states(model, ids) for ids, _ in pieces]
            picked = [tokens_of(words, offsets) for _, offsets in pieces]
            whole = tokens_of(words, tokenizer(" ".join(words), return_offsets_mapping=True)["offset_mapping"])
            word = tokens[0].word(i)
            assert tokens[0].ids(i).tolist() == [token for ids, _ in pieces for token in ids]
            assert set(word.tolist()) - {-1} == {w for w, at in enumerate(whole) if at}
            for w, of_word in enumerate(whole):
                at = np.flatnonzero(word == w)
                if not of_word:
                    assert not len(at)
                    continue
                piece = int(np.searchsorted(bounds, at[0], side="right")) - 1
                assert (at - bounds[piece]).tolist() == picked[piece][w]  # all it has of the word, and no other
                assert len(at) == max(len(found[w]) for found in picked)
                assert len(at) == len(of_word) or len(of_word) > stride + 1
                for layer, stored in tokens.items():
                    expected, got = states[piece][layer], stored[i][at]
                    assert_near(got, expected[picked[piece][w]], np.abs(expected).max(), f"{layer} {words[w]}")


def test_running_text_in_pieces(tiny_model, tmp_path):
    """Without words of the data the tokenizer's own words are kept once each."""
    texts = ["good film", " ".join(LONG)]
    data = tmp_path / "a.jsonl"
    data.write_text("".join(f"{json.dumps({'text': text})}\n" for text in texts), encoding="utf-8")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny_model)
    with extract(tiny_model, data, out=tmp_path / "c.h5", max_length=12, stride=3, **OPTIONS) as cache:
        assert cache.words is None
        for i, text in enumerate(texts):
            word = cache.tokens(1).word(i)
            own = tokenizer(text)
            known = [w for w, token in zip(own.word_ids(), own["input_ids"], strict=True) if token > 3]  # not special
            assert sorted(word[word >= 0].tolist()) == known  # here every word is one token
            assert (word[cache.tokens(1).special(i)] == -1).all()


def test_a_stride_changes_nothing_for_texts_that_fit(tiny_model, tmp_path):
    short = save_conll(tmp_path / "short.conll", SENTENCES)
    mixed = save_conll(tmp_path / "mixed.conll", [*SENTENCES, LONG * 2])
    caches = [
        extract(tiny_model, data, out=tmp_path / f"{name}.h5", stride=stride, **OPTIONS)
        for name, data, stride in (("a", short, None), ("b", short, 4), ("c", mixed, 4))
    ]
    plain, strided, among_long = caches
    for layer in plain.layers:
        want, same, near = (cache.tokens(layer) for cache in caches)
        assert want.all.tobytes() == same.all.tobytes()
        assert plain.layer(layer).tobytes() == strided.layer(layer).tobytes()
        for i in range(len(SENTENCES)):
            for cache in (same, near):
                assert cache.ids(i).tolist() == want.ids(i).tolist()
                assert cache.word(i).tolist() == want.word(i).tolist()
                assert cache.special(i).tolist() == want.special(i).tolist()
            assert_near(near[i], want[i], 1)
    assert among_long.n_tokens[-1] > 32
    for cache in caches:
        cache.close()


def test_a_cache_made_otherwise_is_stale(tiny_model, tmp_path):
    sentences = [["New York", "good"], LONG]
    data = save_conll(tmp_path / "a.conll", sentences)
    plain, strided, other = tmp_path / "plain.h5", tmp_path / "strided.h5", tmp_path / "other"
    extract(tiny_model, data, out=plain, **OPTIONS).close()
    extract(tiny_model, data, out=strided, stride=4, **OPTIONS).close()
    stamps = [path.stat().st_mtime_ns for path in (plain, strided)]
    for out, stride, message in (
        (plain, 4, "^stride: the cache plain.h5 was made with nothing, now 4;"),
        (plain, 0, "^stride: .* with nothing, now 0;"),
        (strided, None, "^stride: .* with 4, now nothing;"),
        (strided, 5, "^stride: .* with 4, now 5;"),
    ):
        with pytest.raises(StaleCacheError, match=message) as error:
            extract(tiny_model, data, out=out, stride=stride, **OPTIONS)
        assert error.value.source == "stride"
    other.mkdir()
    same_text = save_conll(other / "a.conll", [["New", "York", "good"], LONG])
    running = other / "b.jsonl"
    running.write_text("".join(f"{json.dumps({'text': ' '.join(words)})}\n" for words in sentences))
    for words in (same_text, running):
        with pytest.raises(StaleCacheError, match=r"^columns: the cache plain\.h5 was made from other columns;"):
            extract(tiny_model, words, out=plain, **OPTIONS)
    for out, stride in ((plain, None), (strided, 4)):  # and these are reused
        extract(tiny_model, data, out=out, stride=stride, **OPTIONS).close()
    assert [path.stat().st_mtime_ns for path in (plain, strided)] == stamps


def test_words_whose_column_is_called_otherwise(tiny_model, tmp_path):
    """Also "text", a name that the cache has for itself."""
    data = tmp_path / "a.jsonl"
    for name in ("text", "id/word", "forms"):
        data.write_text("".join(f"{json.dumps({name: words})}\n" for words in SENTENCES))
        with extract(tiny_model, data, out=tmp_path / "c.h5", text=name, overwrite=True, **OPTIONS) as cache:
            assert (cache.words, cache.spec["words"]) == (SENTENCES, name)


def test_what_is_refused(tiny_model, tmp_path):
    data = save_conll(tmp_path / "a.conll", [LONG])
    prompt = "a good film {text} dull"
    for options, message in (
        ({"store_text": False}, r"^--no-store-text: a\.conll has words, whose tags are of no use without them$"),
        ({"stride": 4, "tokens": False}, "^--stride 4: is for the states of every token: --tokens$"),
        ({"stride": 4, "pool_over": "text"}, "^--stride 4: goes with pooling over all tokens"),
        ({"stride": -1}, "^--stride -1: at least 0"),
        ({"stride": 30}, "^--stride 30: 0 to 29, fewer than the tokens of a text that fit in at once$"),
        ({"stride": 8, "max_length": 10}, "^--stride 8: 0 to 7, fewer than"),
        ({"stride": 4, "max_length": 10, "prompt": prompt}, "^--stride 4: 0 to 3, fewer than"),
        (
            {"stride": 0, "max_length": 6, "prompt": prompt},
            "^--max-length: the prompt alone takes 6 tokens; got 6$",
        ),
    ):
        with pytest.raises(SpecError, match=message):
            extract(tiny_model, data, out=tmp_path / "c.h5", **OPTIONS | options)
    assert [path.name for path in tmp_path.iterdir()] == ["a.conll"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--stride 4", "--stride 4: is for the states of every token"),
        ("--tokens --stride -1", "--stride -1: at least 0"),
        ("--tokens --stride 30", "--stride 30: 0 to 29, fewer than the tokens"),
        ("--tokens --stride 4 --pool-over text", "--stride 4: goes with pooling over all tokens"),
        ("--tokens --no-store-text", "--no-store-text: a.conll has words"),
    ],
)
def test_the_command_line_says_it_in_one_line(tiny_model, tmp_path, capsys, options, message):
    data = save_conll(tmp_path / "a.conll", [["good", "film"]])
    code = run(["extract", str(tiny_model), str(data), "--out", str(tmp_path / "c.h5"), *options.split()])
    out, err = capsys.readouterr()
    assert (code, out) == (2, "")
    (line,) = [line for line in err.splitlines() if line.startswith("error: ")]
    assert line.startswith(f"error: {message}")
    assert "Traceback" not in err
    assert [path.name for path in tmp_path.iterdir()] == ["a.conll"]


def test_out_of_memory_counts_all_pieces_of_the_text(tiny_model):
    model = transformers.AutoModel.from_pretrained(tiny_model)
    backbone = backbone_module.prepare(model, device=torch.device("cpu"), dtype="float32", dtype_reason="test")

    def stream(*_arguments, **_options):
        raise torch.OutOfMemoryError("no memory")

    object.__setattr__(backbone, "stream", stream)
    plan = make_plan(np.array([7], dtype=np.int32), batch_tokens=10)
    reading = ForwardPlan([np.arange(7)], plan, (0,), ("mean",), cuts=[(4,)])

    class Sink:
        def pending(self):
            return [0]

    with pytest.raises(OutOfMemoryError, match=r"^a text of 7 tokens: must fit"):
        run_extraction(backbone, reading, Sink())


def test_an_estimate_of_texts_in_pieces(tiny_model, tmp_path, capsys):
    data = save_conll(tmp_path / "d.conll", [["good"] * n for n in (150, 3) * 10])
    assert run(["extract", str(tiny_model), str(data), "--tokens", "--stride", "4", "--estimate"]) == 0
    assert "20 (0 would be cut)" in capsys.readouterr().out
