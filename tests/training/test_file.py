"""A training in a YAML file: what it says, and every mistake in one line."""

from __future__ import annotations

import string
import sys
from dataclasses import MISSING, fields

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from probekit.api.train import run_heads
from probekit.errors import SpecError
from probekit.readspec import RunOptions
from probekit.spec import Silent
from probekit.training import file as module
from probekit.training.file import MOST_BYTES, read_train_file
from probekit.training.options import HeadOptions, TrainOptions

FULL = """
cache: caches/c.h5
out: heads
prompts: ["In a word: {text}", "{text}"]
model: org/model   # not here, so from the hub
device: cpu
threads: 2
jobs: 3
targets:
  no: {head: mlp, width: 16, dropout: 0, layer: 3, pooling: mean}
  "2020": {weight: 2, task: number}
  größe:
backbone: lora
epochs: 5
lr: 1e-3
lora_rank: 4
lora_targets: [q_proj, v_proj]
split: 0.25
checkpointing: true
"""
SHORT = "cache: c.h5\ntargets: {label: {}}\n"


def write(folder, text):
    path = folder / "heads.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def refused(folder, text):
    with pytest.raises(SpecError) as raised:
        read_train_file(write(folder, text))
    message = str(raised.value)
    assert raised.value.exit_code == 2
    assert message.isprintable()  # one line
    assert message.startswith("heads.yaml")
    return message


def test_a_file_says_everything(tmp_path):
    found = read_train_file(write(tmp_path, FULL))
    heads = (
        HeadOptions("no", "mlp", 3, "mean", 16, 0.0),
        HeadOptions("2020", weight=2.0, task="number"),
        HeadOptions("größe"),
    )
    options = TrainOptions(
        heads,
        backbone="lora",
        epochs=5,
        lr=1e-3,
        lora_rank=4,
        lora_targets=("q_proj", "v_proj"),
        split=0.25,
        checkpointing=True,
    )
    run = RunOptions("cpu", 2)
    assert found.parts() == (tmp_path / "caches/c.h5", options, run, tmp_path / "heads", "org/model")
    assert found.prompts == ("In a word: {text}", "{text}")
    assert found.jobs == 3
    (tmp_path / "org" / "model").mkdir(parents=True)
    assert read_train_file(tmp_path / "heads.yaml").model == str(tmp_path / "org/model")


def test_what_is_not_said_is_as_in_python(tmp_path):
    found = read_train_file(write(tmp_path, "\ufeff" + SHORT))
    assert found.parts() == (tmp_path / "c.h5", TrainOptions((HeadOptions("label"),)), RunOptions(), None, None)


def test_every_option_has_a_place(tmp_path):
    """Written as it is by default."""
    plain = {f.name: f.default for f in fields(TrainOptions) if f.default is not MISSING}
    plain["lora_targets"] = list(plain["lora_targets"])
    head = {f.name: f.default for f in fields(HeadOptions) if f.default is not MISSING}
    text = yaml.safe_dump({"cache": "c.h5", "targets": {"label": head}, **plain})
    assert read_train_file(write(tmp_path, text)).options == TrainOptions((HeadOptions("label"),))


TARGET_FIELDS = "head, layer, pooling, width, dropout, weight, task"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "cache: c.h5\ntargets: {label: {widht: 3}}",
            f"heads.yaml, targets.label.widht: one of {TARGET_FIELDS}; did you mean 'width'?",
        ),
        (f"{SHORT}epochs: many", "heads.yaml, epochs: a whole number; got 'many'"),
        (f"{SHORT}epochs: 3.0", "heads.yaml, epochs: a whole number; got 3.0"),
        (f"{SHORT}epochs: true", "heads.yaml, epochs: a whole number; got true"),
        (f"{SHORT}patience:", "heads.yaml, patience: a whole number; got nothing"),
        (f"{SHORT}lr: fast", "heads.yaml, lr: a number; got 'fast'"),
        (f"{SHORT}weight_decay: true", "heads.yaml, weight_decay: a number; got true"),
        (f"{SHORT}checkpointing: yes", "heads.yaml, checkpointing: true or false; got 'yes'"),
        (f"{SHORT}bf16: 1", "heads.yaml, bf16: true or false; got 1"),
        (f"{SHORT}backbone: 3", "heads.yaml, backbone: text; got 3"),
        (f"{SHORT}split: [a]", "heads.yaml, split: text or a number; got ['a']"),
        (f"{SHORT}lora_targets: all-linear", "heads.yaml, lora_targets: a list of texts; got 'all-linear'"),
        (f"{SHORT}lora_targets: [a, 3]", "heads.yaml, lora_targets: a list of texts; got ['a', 3]"),
        (f"{SHORT}out: 3", "heads.yaml, out: text; got 3"),
        (f"{SHORT}epochs: 0", "heads.yaml, epochs 0: a whole number of at least 1"),
        (f"{SHORT}lora_rank: {'9' * 5000}", "heads.yaml, lora_rank: a whole number; got inf"),
        (f"{SHORT}lr: 1e999", "heads.yaml, lr inf: a number above 0"),
        (f"{SHORT}backbone: half", "heads.yaml, backbone half: frozen, top:M (a number), lora or full"),
        (
            f"{SHORT}bf16: true",
            "heads.yaml, bf16: is for a backbone that is trained: backbone lora, full or top:M",
        ),
        (
            "cache: c.h5\ntargets: {label: {head: tree}}",
            "heads.yaml, target label, head tree: one of linear, mlp, attention, mix",
        ),
        ("targets: {label: {}}", "heads.yaml, cache: must be there"),
        ("cache: c.h5", "heads.yaml, targets: must be there"),
        ("cache: c.h5\ntargets: {}", "heads.yaml, targets: at least one column"),
        ("cache: c.h5\ntargets:", "heads.yaml, targets: a mapping of columns to what their heads are; got nothing"),
        (
            "cache: c.h5\ntargets: [label]",
            "heads.yaml, targets: a mapping of columns to what their heads are; got ['label']",
        ),
        ("cache: c.h5\ntargets: {a: 3}", "heads.yaml, targets.a: a mapping of names to values; got 3"),
        ('cache: c.h5\ntargets: {"a\\nb": 3}', "heads.yaml, targets.'a\\nb': a mapping of names to values; got 3"),
        ("", "heads.yaml: a mapping of names to values; got nothing"),
        ("- cache", "heads.yaml: a mapping of names to values; got ['cache']"),
        ("cache: [", "heads.yaml, line 1: must be YAML; got expected the node content, but found '<stream end>'"),
        (
            "cache: c.h5\n\tout: h",
            "heads.yaml, line 2: must be YAML; got found character '\\t' that cannot start any token",
        ),
        ("cache: a: b", "heads.yaml, line 1: must be YAML; got mapping values are not allowed here"),
        ("a: \x00", "heads.yaml: must be YAML; got special characters are not allowed"),
        (f"{SHORT}---\na: 1", "heads.yaml, line 4: one document in a file; got another"),
        (f"{SHORT}out: a\nout: b", "heads.yaml, line 4: names must be there once; got 'out'"),
        ("cache: c.h5\ntargets:\n  a: {}\n  b: {}\n  'a': {}", "heads.yaml, line 5: names must be there once; got 'a'"),
        ("cache: c.h5\ntargets:\n  true: {}", "heads.yaml, line 3: names must be text: put them in quotes; got true"),
        ("cache: c.h5\ntargets:\n  2020: {}", "heads.yaml, line 3: names must be text: put them in quotes; got 2020"),
        ("cache: c.h5\ntargets:\n  ~: {}", "heads.yaml, line 3: names must be text: put them in quotes; got ~"),
        ("[a]: b", "heads.yaml, line 1: names must be text: put them in quotes; got ['a']"),
        (
            f"{SHORT}out: &a x",
            "heads.yaml, line 3: must say everything where it is used; got an anchor or alias (& or *)",
        ),
        (
            f"{SHORT}out: *a",
            "heads.yaml, line 3: must say everything where it is used; got an anchor or alias (& or *)",
        ),
        (
            f"{SHORT}out: !!python/object/apply:os.system [ls]",
            "heads.yaml, line 3: must be plain values; got the tag tag:yaml.org,2002:python/object/apply:os.system",
        ),
        (f"{SHORT}out: !!float x", "heads.yaml, line 3: must be plain values; got the tag tag:yaml.org,2002:float"),
        (f"a: {'[' * 500}", "heads.yaml, line 1: at most 20 lists and mappings inside each other"),
        (SHORT.encode() + b"out: h\xe4", "heads.yaml, line 3: must be UTF-8 text; got the byte 0xe4"),
        (SHORT.encode("utf-16"), "heads.yaml, line 1: must be UTF-8 text; got the byte 0xff"),
        (b"#" * (MOST_BYTES + 1), "heads.yaml: at most 262,144 bytes; got more"),
    ],
)
def test_mistakes_are_one_line(tmp_path, text, message):
    assert refused(tmp_path, text) == message


def test_typos_come_before_what_they_leave_out(tmp_path):
    message = refused(tmp_path, "cache: c.h5\ntarget: {label: {}}")
    assert message.startswith(
        "heads.yaml, target: one of cache, out, model, prompts, device, threads, jobs, targets, backbone, "
    )
    assert message.endswith("; did you mean 'targets'?")
    assert "did you mean" not in refused(tmp_path, f"{SHORT}xyzzy: 1")
    # What must not come with a file: code to run, files to write over.
    for name in ("trust_remote_code", "overwrite", "heads"):
        assert f"heads.yaml, {name}: one of" in refused(tmp_path, f"{SHORT}{name}: true")


def test_no_file_is_one_line(tmp_path):
    for path in (tmp_path / "none.yaml", tmp_path):
        with pytest.raises(SpecError, match="must be a file that can be read"):
            read_train_file(path)


@pytest.mark.parametrize(("package", "called"), [("yaml", "pyyaml"), ("pydantic", "pydantic")])
def test_what_is_not_installed_is_named(tmp_path, monkeypatch, package, called):
    monkeypatch.setitem(sys.modules, package, None)
    expected = f"heads.yaml: needs the package {called}: in the clone, pip install -c constraints.txt '.[train]'"
    assert refused(tmp_path, SHORT) == expected


def test_numbers_are_those_of_yaml_1_2(tmp_path):
    plain = {
        "1e-3": 1e-3,
        ".5": 0.5,
        "3.": 3.0,
        "-7": -7,
        "+1.5E+2": 150.0,
        "12:30": "12:30",
        "010": "010",
        "0x1F": "0x1F",
        "1_000": "1_000",
        "off": "off",
        "2020-01-01": "2020-01-01",
        ".inf": ".inf",
        "'3'": "3",
        "null": None,
    }
    text = "\n".join(f"k{i}: {written}" for i, written in enumerate(plain))
    found = module._read_yaml(write(tmp_path, text))
    assert list(found.values()) == list(plain.values())
    assert [type(value) for value in found.values()] == [type(value) for value in plain.values()]


WORDS = st.text(alphabet=string.printable + "é\ud800\u2028&*!<", max_size=40)


@settings(max_examples=150, deadline=None)
@given(
    text=st.one_of(
        WORDS, WORDS.map(lambda word: f"{SHORT}out: {word}"), WORDS.map(lambda w: f"cache: c\ntargets: {{{w}: {{}}}}")
    )
)
def test_anything_is_read_or_refused_in_one_line(tmp_path_factory, text):
    path = write(tmp_path_factory.getbasetemp(), text.encode("utf-8", "surrogatepass"))
    try:
        read_train_file(path)
    except SpecError as error:
        assert str(error).isprintable()  # noqa: PT017  (not every text is refused)


def test_a_file_trains(tmp_path, tiny_model, tiny_data):
    import probekit

    probekit.extract(tiny_model, tiny_data, out=tmp_path / "c.h5").close()
    text = "cache: c.h5\nout: heads\ntargets: {label: {}, score: {head: mlp, width: 4}}\nepochs: 1\n"
    cache, options, run, out, model = read_train_file(write(tmp_path, text)).parts()
    result = run_heads(cache, options, run, out=out, model=model, prompts=(), jobs=1, executor=None, listener=Silent())
    assert result.heads.targets == ["label", "score"]
    assert (tmp_path / "heads" / "card.json").is_file()
