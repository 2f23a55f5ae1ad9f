"""Every field of a card and of a cache's spec, wrong in every way: one line, exit 2, and nothing heavy is begun."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path

import h5py
import pytest

from probekit import open_cache, predict
from probekit.cli import run
from probekit.errors import CacheError, SpecError
from probekit.readspec import FIELDS
from probekit.saved import CARD, CARD_NEEDS, card_path, read_card
from probekit.store.fingerprint import fingerprint
from probekit.store.layout import STORAGE_DTYPES

MADE = [name for name, about in FIELDS.items() if about.required]
READ = [name for name in MADE if FIELDS[name].card]
OLD = Path(__file__).parent.parent / "old"
MISSING = object()
ANYTHING = [None, True, -1, 0.5, 1e308, 10**400, "", "x" * 200_000, "nonsense\x1b[31m", [], [None], {}, {"a": [1]}]
"""Most of which no field may be."""

RIGHT = {
    "format_version": [1],
    **{name: ["nonsense\x1b[31m"] for name in ("model", "revision", "tokenizer", "device", "target", "probe")},
    **{name: [True] for name in ("store_text", "chat_template", "viterbi")},
    **{name: [None] for name in ("tokens", "prompt", "quantize", "max_length", "stride")},
    "random_seed": [None, -1],
    "words": [None, "", "x" * 200_000, "nonsense\x1b[31m"],
    "poolings": [[]],
    "labels": [[]],
    "cache": [{}, {"a": [1]}],
    "scores": [{}, {"a": [1]}],
}
"""What of ``ANYTHING`` a field may be (or is found to be wrong for another reason than its type)."""


def wrong_values(field):
    return [value for value in ANYTHING if not any(value is r or value == r for r in RIGHT.get(field, []))]


@pytest.fixture
def here(tmp_path, monkeypatch):
    shutil.copytree(OLD, tmp_path / "old")
    monkeypatch.chdir(tmp_path / "old")
    return tmp_path / "old"


def the_line(capsys):
    """The one line that says what is wrong."""
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert "unexpected" not in line
    assert len(line) < 500
    assert "\x1b" not in line
    return line


def edit_card(change):
    path = Path("heads/old_model-label-mean-000-logistic.skops")
    card = json.loads(card_path(path).read_text())
    change(card)
    card_path(path).write_text(json.dumps(card))
    return str(path)


def put(place, field, value):
    if value is MISSING:
        place.pop(field, None)
    else:
        place[field] = value


every_value = pytest.mark.parametrize("step", [4, pytest.param(1, marks=pytest.mark.slow)])
"""A few of the wrong values, or all."""


@every_value
@pytest.mark.parametrize("field", CARD)
def test_every_field_of_a_card(here, capsys, field, step):
    for value in wrong_values(field)[::step]:
        path = edit_card(lambda card, value=value: put(card, field, value))
        assert run(["predict", path, "--model", "model", "--text", "good"]) == 2, value
        line = the_line(capsys)
        assert f"'{field}'" in line or field == "format_version", line
    if field in CARD_NEEDS or field in ("format_version", "sha256"):
        path = edit_card(lambda card: put(card, field, MISSING))
        assert run(["predict", path, "--model", "model", "--text", "good"]) == 2
        the_line(capsys)


@every_value
@pytest.mark.parametrize("field", FIELDS)
def test_every_field_of_a_cards_cache(here, capsys, field, step):
    values = wrong_values(field)[::step] + ([MISSING] if field in READ else [])
    if field == "max_length":
        values.append(None)
    for value in values:
        path = edit_card(lambda card, value=value: put(card["cache"], field, value))
        assert run(["predict", path, "--model", "model", "--text", "good"]) == 2, value
        assert field in the_line(capsys), value


@every_value
@pytest.mark.parametrize("field", FIELDS)
def test_every_field_of_a_caches_spec(here, capsys, field, step):
    for value in [*wrong_values(field)[::step], *([MISSING] if field in MADE else [])]:
        with h5py.File("cache.h5", "r+") as file:
            spec = json.loads(file.attrs["spec"])
            put(spec, field, value)
            file.attrs["spec"] = json.dumps(spec)
            file.attrs["fingerprint"] = fingerprint(spec)
        if value is not MISSING:
            assert run(["inspect", "cache.h5"]) == 2, value
            assert field in the_line(capsys), value
        assert run(["probe", "cache.h5", "--target", "label", "--jobs", "1"]) == 2, value
        assert field in the_line(capsys), value


def test_layers_beyond_the_model_are_refused(here, capsys):
    with h5py.File("cache.h5", "r+") as file:
        spec = json.loads(file.attrs["spec"]) | {"layers": [0, 1, 7]}
        file.attrs["spec"], file.attrs["fingerprint"] = json.dumps(spec), fingerprint(spec)
    with pytest.raises(CacheError, match=r"'layers'.*must be of 2 layers; got 7"):
        open_cache("cache.h5")
    path = edit_card(lambda card: put(card, "layer", 5_000))
    assert run(["predict", path, "--model", "model", "--text", "good"]) == 2
    assert "layer" in capsys.readouterr().err


def test_fields_that_nobody_knows_are_let_through(here):
    edit_card(lambda card: card.update(later="x", cache=card["cache"] | {"newer": [1]}))
    found = predict("heads/old_model-label-mean-000-logistic.skops", "good film", model="model")
    assert found.labels.shape == (1,)


def test_the_dtypes_are_those_of_the_store():
    assert {dtype for dtype in (*STORAGE_DTYPES, "int8") if FIELDS["store_dtype"].allowed.fits(dtype)} == set(
        STORAGE_DTYPES
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 100_000, "must be readable JSON"),
        ("1" * 5_000, "must be readable JSON"),
        ("\xe9", "must be readable JSON"),
        ("[]", "is not the card of a probe"),
        ('{"format": "probekit-probe"}', "is not the card of a probe"),
        ('{"format": "probekit-probe", "sha256": "0", "format_version": NaN}', "this probekit reads version 1"),
    ],
)
def test_what_is_no_card(here, text, message):
    path = Path("heads/old_model-label-mean-000-logistic.skops")
    card_path(path).write_bytes(text.encode("latin-1"))
    with pytest.raises(SpecError, match=message):
        read_card(path)


def test_a_card_without_an_end_is_not_read(here, capsys):
    path = Path("heads/old_model-label-mean-000-logistic.skops")
    card_path(path).unlink()
    os.symlink("/dev/zero", card_path(path))
    with pytest.raises(SpecError, match="must be a file; got a device"):
        read_card(path)
    card_path(path).unlink()
    os.mkfifo(card_path(path))
    with pytest.raises(SpecError, match="must be a file; got a device"):
        read_card(path)
    card_path(path).unlink()
    card_path(path).touch()
    os.truncate(card_path(path), 1 << 40)
    with pytest.raises(SpecError, match="must have at most 67,108,864 bytes"):
        read_card(path)


def test_what_is_in_a_probe_may_be_anything(here, capsys):
    """Each is a whole skops file of harmless types, and its card fits it."""
    import skops.io
    from sklearn.linear_model import LogisticRegression, Ridge
    from sklearn.pipeline import make_pipeline

    path = Path("heads/old_model-label-mean-000-logistic.skops")
    other_size = LogisticRegression().fit([[0.0, 1], [1, 0]], ["a", "b"])
    for estimator in (LogisticRegression(), make_pipeline(LogisticRegression()), other_size, Ridge()):
        for task in ("classification", "multilabel", "tags", "entities"):
            data = skops.io.dumps(estimator)
            path.write_bytes(data)
            edit_card(
                lambda card, data=data, task=task: card.update(task=task, sha256=hashlib.sha256(data).hexdigest())
            )
            assert run(["predict", str(path), "--model", "model", "--text", "good"]) == 2
            *_, line = capsys.readouterr().err.splitlines()
            assert line.startswith("error: ")
            assert "unexpected" not in line


def test_a_probe_that_unpacks_to_far_more_is_not_unpacked(here):
    import io
    import zipfile

    path = Path("heads/old_model-label-mean-000-logistic.skops")
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("schema.json", "[" * 5_000_000)
    path.write_bytes(packed.getvalue())
    edit_card(lambda card: card.update(sha256=hashlib.sha256(packed.getvalue()).hexdigest()))
    with pytest.raises(SpecError, match=r"is damaged or not a skops file.*that unpack to 5,000,000"):
        predict(path, "good", model="model")
