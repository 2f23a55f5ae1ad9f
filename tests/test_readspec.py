"""The one list of what determines a hidden state: every field of it, and the comparisons that it is asked for."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from probekit import extract
from probekit.api.extract import estimate
from probekit.errors import SpecError
from probekit.layers import choose_layers, layers_text, parse_layers
from probekit.readspec import (
    FIELDS,
    ReadSpec,
    check_made,
    check_spec,
    different_model,
    different_reading,
    headings,
    missing_to_read,
    shown_fields,
)

OTHER = {
    "format_version": 2,
    **dict.fromkeys(("model", "revision", "tokenizer", "device", "words"), "another"),
    **dict.fromkeys(("texts", "columns"), "0" * 64),
    "store_dtype": "float16",
    "store_text": False,
    "tokens": "bfloat16",
    "prompt": "very {text}",
    "chat_template": True,
    "pool_over": "text",
    "side": "decoder",
    "site": "mlp",
    "random_seed": 3,
    "quantize": "4bit",
    "n_layers": 12,
    "layers": (0, 5),
    "poolings": ("mean", "last"),
    "max_length": 77,
    "dtype": "bfloat16",
    "batching": "single",
    "batch_tokens": 99,
    "stride": 0,
    "last_layer": "both",
    "rendered": ("<", ">"),
    "rendered_trim": "left",
}
"""For each field a value that is not its usual one."""

WHOLE = ReadSpec(**(OTHER | {"pool_over": "all", "batching": "packed"}))

CARD = [
    *("model", "revision", "tokenizer", "max_length", "dtype", "batch_tokens", "store_dtype", "prompt"),
    *("chat_template", "pool_over", "side", "site", "random_seed", "quantize", "tokens"),
    *("stride", "rendered", "rendered_trim", "last_layer"),
]
SAME_STATES = {"model", "revision", "tokenizer", "n_layers", "side", "site", "random_seed", "quantize", "last_layer"}
MAY_DIFFER = {
    *("format_version", "revision", "random_seed", "layers", "poolings", "columns", "words"),
    *("store_dtype", "store_text", "tokens", "device", "dtype", "batching", "batch_tokens"),
}
NOT_SHOWN = {
    *("format_version", "columns", "words", "n_layers", "layers", "poolings"),
    *("store_text", "tokens", "batching", "batch_tokens"),
}


def test_every_field_is_tried():
    assert set(OTHER) == set(FIELDS)


@pytest.mark.parametrize("name", FIELDS)
def test_a_field_comes_back_from_json(name):
    spec = ReadSpec(**{name: OTHER[name]})
    found = json.loads(json.dumps(spec.json()))
    assert name in found
    check_spec(found, "here", error=SpecError)
    assert ReadSpec.from_json(found) == spec
    assert ReadSpec.from_json(found | {"of a later version": [1]}) == spec


@pytest.mark.parametrize("name", FIELDS)
def test_a_field_is_written_where_it_has_to_be(name):
    usual = ReadSpec()
    assert (name in usual.json()) == (FIELDS[name].written == "always")
    assert getattr(usual, name) is None or FIELDS[name].written != "once known"


@pytest.mark.parametrize("name", FIELDS)
@pytest.mark.parametrize("value", [{}, [None], 0.5, -(10**400)])
def test_a_wrong_field_is_refused_by_name(name, value):
    with pytest.raises(SpecError) as caught:
        check_spec({name: value}, "here", error=SpecError)
    assert caught.value.source == f"here, field {name!r}"
    assert caught.value.allowed == f"must be {FIELDS[name].allowed.allowed}"


@pytest.mark.parametrize("name", FIELDS)
def test_a_field_is_in_the_card_if_its_list_says_so(name):
    assert (name in ReadSpec(**{name: OTHER[name]}).for_card()) == (FIELDS[name].card is not None)


def test_the_order_of_a_card_and_texts_that_are_read_one_by_one():
    assert list(WHOLE.for_card()) == CARD
    assert list(dataclasses.replace(WHOLE, batching="single").for_card()) == [*CARD, "batching"]


@pytest.mark.parametrize("name", FIELDS)
def test_what_a_file_must_say(name):
    found = WHOLE.json()
    check_made(found, "here", error=SpecError)
    assert missing_to_read(found, of_words=True) == []
    del found[name]
    if FIELDS[name].required:
        with pytest.raises(SpecError, match=f"no {name}"):
            check_made(found, "here", error=SpecError)
    else:
        check_made(found, "here", error=SpecError)
    needed = FIELDS[name].required and FIELDS[name].card is not None
    assert missing_to_read(found, of_words=False) == ([name] if needed else [])


def test_tokens_are_needed_for_words_alone():
    found = WHOLE.json() | {"tokens": None}
    assert missing_to_read(found, of_words=False) == []
    assert missing_to_read(found, of_words=True) == ["tokens"]
    assert missing_to_read(found | {"max_length": None}, of_words=False) == ["max_length"]


@pytest.mark.parametrize("name", FIELDS)
def test_comparisons(name):
    mine = ReadSpec(store_text=True, texts="a" * 64).json()
    other = mine | ReadSpec(**{name: OTHER[name]}).json() | ({} if name == "texts" else {"texts": "a" * 64})
    difference = (name, mine.get(name), other[name])
    assert different_model(mine, other) == (difference if name in SAME_STATES else None)
    assert different_reading(mine, other) == (None if name in MAY_DIFFER else difference)
    assert (name in shown_fields(other)) == (name not in NOT_SHOWN)
    assert different_model(mine, mine) is None
    assert different_reading(mine, mine) is None


def test_spans_must_be_the_same_for_the_control():
    mine = ReadSpec(pool_over="span", columns="0" * 64).json()
    other = mine | {"columns": "1" * 64}
    assert different_reading(mine, other) == ("columns", "0" * 64, "1" * 64)
    assert different_reading(mine, mine | {"words": "tokens"}) == ("words", None, "tokens")


def test_fields_of_a_later_version_tell_readings_apart():
    mine = WHOLE.json()
    assert different_reading(mine, mine | {"new": 1}) == ("new", None, 1)
    assert shown_fields(mine | {"new": 1})["new"] == 1


def test_what_is_as_usual_is_not_mentioned():
    assert headings(ReadSpec().json() | {"stride": None, "last_layer": "normed"}) == {}
    assert shown_fields(ReadSpec().json()) == {"store_dtype": "float32"}
    assert headings(ReadSpec(stride=0).json()) == {"stride": 0}


@pytest.mark.parametrize("text", ["all", "0", "-1", "0,4:7,-1", ":", "1:", ":3", "0:12:2", "::-1"])
def test_a_choice_of_layers_is_read_and_shown(text):
    assert layers_text(parse_layers(text)) == text
    every = ":" if text == "all" else text
    meant = {int(layer) for part in every.split(",") for layer in np.atleast_1d(eval(f"np.arange(13)[{part}]"))}
    assert choose_layers(parse_layers(text), 12) == tuple(sorted(meant))


@pytest.mark.parametrize("text", ["", "x", "1,", "0:5:0", "1:2:3:4", "0.5"])
def test_what_is_no_layer(text):
    with pytest.raises(SpecError) as caught:
        parse_layers(text)
    assert (caught.value.source, caught.value.got) == ("--layers", repr(text))


def test_lists_are_as_good_as_texts(tmp_path, tiny_model, tiny_data):
    options = {"dtype": "float32", "threads": 1}
    with extract(tiny_model, tiny_data, out=tmp_path / "a.h5", layers="0,2", pooling="mean,last", **options) as a:
        found = a.fingerprint
    for layers in ([0, -1], (0, 2), range(0, 3, 2), "0::2"):
        with extract(
            tiny_model, tiny_data, out=tmp_path / "a.h5", layers=layers, pooling=["mean", "last"], **options
        ) as b:
            assert b.fingerprint == found
    with extract(tiny_model, tiny_data, out=tmp_path / "b.h5", layers=1, pooling=["mean"], **options) as b:
        assert (b.layers, b.poolings) == ((1,), ("mean",))
    with pytest.raises(SpecError, match="at least one"):
        extract(tiny_model, tiny_data, out=tmp_path / "c.h5", layers=[])


def test_an_estimate_takes_the_options_of_extract(tmp_path, tiny_model, tiny_data):
    found = estimate(tiny_model, tiny_data, layers=[0, 1], dtype="float32", threads=1)
    assert (found.layers, found.n_layers) == ((0, 1), 2)
    assert found.file_bytes > 0
    with pytest.raises(TypeError, match="layer"):
        estimate(tiny_model, tiny_data, layer=[0])
    with pytest.raises(SpecError, match="--layers"):
        estimate(tiny_model, tiny_data, layers=[7])
    assert list(tmp_path.iterdir()) == []
