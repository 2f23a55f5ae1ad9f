"""Pooling over a span of each text, given in characters or words, against transformers and NumPy."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
import transformers

from probekit import extract
from probekit.api.predict import predict
from probekit.api.probe import run_probes
from probekit.cli import run
from probekit.errors import InputError, SpecError, StaleCacheError
from probekit.evaluate.plan import ProbeOptions
from probekit.extraction.spans import character_spans
from probekit.inputs.read import read_examples
from probekit.saved import save
from tests.numpy_poolings import NUMPY_POOLINGS
from tests.packaged import minilm

POOLINGS = ("mean", "first", "last", "max")
OPTIONS = {"pool_over": "span", "dtype": "float32", "threads": 1}
TEXTS = [
    ("Angela Merkel visited Tokyo in May.", "Tokyo"),
    ("a 😀👩‍👩‍👧 family in 日本", "日本"),
    ("unbelievably long", "believ"),  # part of a word: all tokens that have a character of it
    ("He said: no.", "He said: no."),
    ("x", "x"),
    ("New York, New York!", "York,"),
    ("Größe and naïve", "ïv"),
]
WORDS = [
    (["Angela", "Merkel", "ca", "n't", "visit", "New York", "."], 0, 2),
    (["Angela", "Merkel", "ca", "n't", "visit", "New York", "."], 2, 4),
    (["in", "New York", "today"], 1, 2),
    (["😀👩‍👩‍👧", "日本語", "x"], 0, 1),
    (["only"], 0, 1),
    (["one", "two", "unbelievably"], 1, 3),
]


def write_rows(path, rows):
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return path


def character_rows():
    """The last of several places where the span's characters are."""
    for text, part in TEXTS:
        start = text.rindex(part)
        yield {"text": text, "start": start, "end": start + len(part), "label": "y"}


def word_rows():
    for words, start, end in WORDS:
        yield {"tokens": words, "start": start, "end": end, "label": "y"}


def characters_of_words(words, start, end):
    """Found by writing the words one after the other."""
    places, text = [], ""
    for word in words:
        text += " " if text else ""
        places.append((len(text), len(text) + len(word)))
        text += word
    return text, places[start][0], places[end - 1][1]


@pytest.fixture(scope="module")
def real():
    path = minilm()
    return path, transformers.AutoModel.from_pretrained(path).eval(), transformers.AutoTokenizer.from_pretrained(path)


def expected_states(real, text, start, end, *, before="", after=""):
    """[layer] (n, d_model): the tokens that have a character of the span, of one prompt alone."""
    _, model, tokenizer = real
    read = tokenizer(f"{before}{text}{after}", return_offsets_mapping=True, return_tensors="pt")
    offsets = read.pop("offset_mapping")[0].tolist()
    span = set(range(start + len(before), end + len(before)))
    picked = [i for i, (a, b) in enumerate(offsets) if span & set(range(a, b))]
    assert picked
    with torch.inference_mode():
        return [layer[0].numpy()[picked] for layer in model(**read, output_hidden_states=True).hidden_states]


def check(cache, expected):
    for name in POOLINGS:
        for layer in cache.layers:
            want = np.stack([NUMPY_POOLINGS[name](states[layer]) for states in expected])
            got = cache.layer(layer, pooling=name)
            np.testing.assert_allclose(got, want, rtol=0, atol=2e-5 * np.abs(want).max(), err_msg=f"{name} {layer}")


@pytest.mark.parametrize(("before", "after"), [("", ""), ("Who visited Tokyo? ", " Answer:"), ("x", "x")])
def test_spans_of_characters(real, tmp_path, before, after):
    data = write_rows(tmp_path / "a.jsonl", character_rows())
    options = {"prompt": f"{before}{{text}}{after}"} if before else {}
    expected = [
        expected_states(real, row["text"], row["start"], row["end"], before=before, after=after)
        for row in character_rows()
    ]
    with extract(
        real[0], data, out=tmp_path / "c.h5", pooling=POOLINGS, batch_tokens=40, **OPTIONS, **options
    ) as cache:
        assert cache.spec["pool_over"] == "span"
        check(cache, expected)


@pytest.mark.parametrize(("before", "after"), [("", ""), ("Angela Merkel said: ", " x")])
def test_spans_of_words(real, tmp_path, before, after):
    data = write_rows(tmp_path / "a.jsonl", word_rows())
    options = {"prompt": f"{before}{{text}}{after}"} if before else {}
    expected = [expected_states(real, *characters_of_words(*row), before=before, after=after) for row in WORDS]
    with extract(
        real[0], data, out=tmp_path / "c.h5", pooling=POOLINGS, batch_tokens=40, **OPTIONS, **options
    ) as cache:
        check(cache, expected)


def test_tokens_are_kept_whole_beside_a_span(real, tmp_path):
    data = write_rows(tmp_path / "a.jsonl", word_rows())
    with extract(real[0], data, out=tmp_path / "c.h5", tokens=True, token_dtype="float32", **OPTIONS) as cache:
        tokens = cache.tokens(6)
        for i, (words, start, end) in enumerate(WORDS):
            assert set(tokens.word(i).tolist()) == {-1, *range(len(words))}
            inside = (tokens.word(i) >= start) & (tokens.word(i) < end)
            np.testing.assert_allclose(cache.layer(6)[i], tokens[i][inside].mean(0), atol=1e-5)


def test_other_spans_are_another_cache(tiny_model, tmp_path):
    data = write_rows(tmp_path / "a.jsonl", [{"text": "good film", "start": 0, "end": 4}])
    extract(tiny_model, data, out=tmp_path / "c.h5", **OPTIONS).close()
    write_rows(data, [{"text": "good film", "start": 5, "end": 9}])
    with pytest.raises(StaleCacheError, match="columns"):
        extract(tiny_model, data, out=tmp_path / "c.h5", **OPTIONS)
    with pytest.raises(StaleCacheError):
        extract(tiny_model, data, out=tmp_path / "c.h5", **OPTIONS | {"pool_over": "text"})


GOOD = {"text": "good film", "start": 0, "end": 4}
TAGGED = {"tokens": ["good", "bad film", "plot"], "start": 0, "end": 1}
NEEDS = r"--pool-over span needs whole numbers in columns 'start' and 'end'"
BAD = {
    "no end": ([{"text": "good", "start": 0}], rf"a\.jsonl, column 'end': {NEEDS}; got none$"),
    "no start": ([{"text": "good", "end": 1}], rf"a\.jsonl, column 'start': {NEEDS}; got none$"),
    "text": ([GOOD | {"start": "zero"}], rf"a\.jsonl, column 'start': {NEEDS}; got object$"),
    "fractions": ([GOOD | {"end": 1.5}], rf"a\.jsonl, column 'end': {NEEDS}; got float64$"),
    "missing": ([GOOD, GOOD | {"end": None}], rf"a\.jsonl, column 'end': {NEEDS}; got float64$"),
    "true": ([GOOD | {"end": True}], rf"a\.jsonl, column 'end': {NEEDS}; got bool$"),
    "empty": ([GOOD, GOOD | {"start": 4}], r"example 1: a span within its 9 characters; got start 4, end 4$"),
    "backwards": ([GOOD | {"start": 5}], r"example 0: a span within its 9 characters; got start 5, end 4$"),
    "too far": ([GOOD | {"end": 10}], r"example 0: a span within its 9 characters; got start 0, end 10$"),
    "below 0": ([GOOD | {"start": -1}], r"example 0: a span within its 9 characters; got start -1, end 4$"),
    "named": (
        [GOOD | {"id": "first"}, GOOD | {"id": "second", "end": 99}],
        r"a\.jsonl, example second: a span within its 9 characters; got start 0, end 99$",
    ),
    "words: empty": ([TAGGED | {"end": 0}], r"example 0: a span within its 3 words; got start 0, end 0$"),
    "words: too far": ([TAGGED | {"end": 4}], r"example 0: a span within its 3 words; got start 0, end 4$"),
    "words: below 0": ([TAGGED | {"start": -2}], r"example 0: a span within its 3 words; got start -2, end 1$"),
    "words: no end": ([{"tokens": ["good"], "start": 0}], rf"a\.jsonl, column 'end': {NEEDS}; got none$"),
}


@pytest.mark.parametrize("name", BAD)
def test_spans_that_can_not_be(tmp_path, name):
    rows, message = BAD[name]
    with pytest.raises(InputError, match=message):
        character_spans(read_examples([write_rows(tmp_path / "a.jsonl", rows)]))


def test_a_span_without_a_token(real, tiny_model, tmp_path):
    blank = write_rows(tmp_path / "blank.jsonl", [GOOD, GOOD | {"start": 4, "end": 5}])
    message = "example 1: with --pool-over span every span needs a token of its own"
    with pytest.raises(InputError, match=message):
        extract(tiny_model, blank, out=tmp_path / "c.h5", **OPTIONS)
    dropped = write_rows(tmp_path / "a.jsonl", [{"tokens": ["good", "\u200d"], "start": 1, "end": 2}])
    with pytest.raises(InputError, match="example 0: with --pool-over span every span needs a token of its own"):
        extract(real[0], dropped, out=tmp_path / "c.h5", **OPTIONS)
    row = {"tokens": ["good"] * 9 + ["film"], "start": 9, "end": 10}
    cut = write_rows(tmp_path / "b.jsonl", [row])
    extract(tiny_model, cut, out=tmp_path / "c.h5", **OPTIONS, max_length=12).close()
    with pytest.raises(InputError, match="example 0: with --pool-over span every span needs a token of its own"):
        extract(tiny_model, cut, out=tmp_path / "d.h5", **OPTIONS, max_length=11)


def test_the_first_position_is_not_the_spans(tiny_model, tmp_path):
    data = write_rows(tmp_path / "a.jsonl", [GOOD])
    message = "leaves out the first position of the whole input; with --pool-over span take mean"
    with pytest.raises(SpecError, match=message):
        extract(tiny_model, data, out=tmp_path / "c.h5", **OPTIONS, pooling="mean_skip_first")


def test_the_command_line(tiny_model, tmp_path, capsys):
    data = write_rows(tmp_path / "a.jsonl", [GOOD | {"end": 10}])
    command = ["extract", str(tiny_model), str(data), "--out", str(tmp_path / "c.h5"), "--pool-over", "span"]
    assert run(command) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert line == "error: a.jsonl, example 0: a span within its 9 characters; got start 0, end 10"
    assert [path.name for path in tmp_path.iterdir()] == ["a.jsonl"]
    assert run(command[:-2]) == 0  # without spans these are columns like others


def test_a_saved_probe_of_spans(tiny_model, tmp_path, capsys):
    words = ["good", "bad", "film", "plot", "dull", "fine"]
    rows = [{"text": f"a {w} the {v}", "start": 2, "end": 2 + len(w), "type": w[0]} for w in words for v in words]
    data = write_rows(tmp_path / "s.jsonl", rows)
    extract(tiny_model, data, out=tmp_path / "s.h5", dtype="float32", pool_over="span").close()
    done = run_probes([tmp_path / "s.h5"], ["type"], options=ProbeOptions(split=0.3))
    (path,) = save(done, tmp_path / "heads")
    chosen = done.chosen[0][0]
    spans = [(rows[i]["start"], rows[i]["end"]) for i in chosen.test]
    texts = [rows[i]["text"] for i in chosen.test]
    assert predict(path, texts, spans=spans, model=tiny_model).labels.tolist() == chosen.predicted.tolist()
    with pytest.raises(SpecError, match="needs the span of each text"):
        predict(path, texts, model=tiny_model)
    command = ["predict", str(path), "--model", str(tiny_model)]
    assert run([*command, str(data)]) == 0
    printed = [line.split(",")[1] for line in capsys.readouterr().out.splitlines()[1:]]
    assert [printed[i] for i in chosen.test] == chosen.predicted.tolist()
    assert run([*command, "--text", "a good film"]) == 2
    assert "reads spans: give DATA with columns 'start' and 'end'" in capsys.readouterr().err
    assert run(["predict", str(path), str(path), "--text", "a"]) == 2
    assert "PROBE: one saved probe at a time" in capsys.readouterr().err
