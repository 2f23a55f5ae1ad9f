"""What extract, inspect and probe say of a cache: how its states were made, and what is counted."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from probekit.cli import run
from probekit.cli import summary as of_cli
from probekit.store import describe
from tests.tiny import tiny_texts


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("summary")
    texts, labels = tiny_texts(60)
    rows = [f"{text}\t{label}\t{i % 5}" for i, (text, label) in enumerate(zip(texts, labels, strict=True))]
    (folder / "d.tsv").write_text("\n".join(["text\tlabel\tpriority", *rows, ""]), encoding="utf-8")
    return folder


@pytest.fixture
def extracted(folder, tiny_model, monkeypatch, capsys):
    """Run extract with some options; what it and inspect say, by the name of the line."""
    monkeypatch.chdir(folder)

    def extract(name, *options):
        said = []
        for command in (["extract", str(tiny_model), "d.tsv", "--out", name, *options], ["inspect", name]):
            assert run(command) == 0
            said.append(
                dict(re.split(r"  +", line.rstrip(), maxsplit=1) for line in capsys.readouterr().out.splitlines())
            )
        assert said[0].items() - said[1].items() <= {("model", said[0]["model"])}  # there the revision is short
        return said[1]

    return extract


def test_what_is_not_as_usual_is_said(extracted):
    plain = extracted("plain.h5")
    assert plain.keys().isdisjoint({"prompt", "chat template", "pooled over", "site", "side", "stride", "last layer"})
    prompted = extracted("prompted.h5", "--prompt", "a film:\n{text} ", "--pool-over", "text", "--random-seed", "7")
    assert prompted["prompt"] == '"a film:\\n{text} "'
    assert prompted["pooled over"] == "text"
    assert prompted["model"].endswith("(random weights, seed 7)")
    assert extracted("long.h5", "--tokens", "--stride", "4")["stride"] == "4"
    assert extracted("site.h5", "--site", "attention")["site"] == "attention"


@pytest.mark.parametrize(
    ("options", "said"),
    {
        (): "3 stored: embeddings (0) and blocks 1, 2 of 2",
        ("--layers", "0"): "1 stored: embeddings (0)",
        ("--layers", "-1"): "1 stored: block 2 of 2",
        ("--site", "mlp"): "2 stored: mlp of blocks 1, 2 of 2",
    }.items(),
)
def test_layers_are_counted_with_the_embeddings(extracted, options, said):
    assert extracted(f"layers{len(said)}.h5", *options)["layers"].split(" (final norm")[0] == said


def test_fields_of_other_models(extracted):
    """Fields that a decoder's or an encoder-decoder's cache has."""
    extracted("fields.h5")
    spec = describe("fields.h5").spec
    assert of_cli._asked(spec) == {}
    more = {"chat_template": True, "side": "decoder", "quantize": "8bit", "last_layer": "raw"}
    more["rendered"] = {"before": "<|user|>\n", "after": "<|end|>"}
    assert of_cli._asked(spec | more) == {
        "chat template": "yes",
        "rendered": '{"before": "<|user|>\\n", "after": "<|end|>"}',
        "side": "decoder",
        "last layer": "raw",
        "quantized": "8bit",
    }


def test_an_estimate_says_what_it_counts(folder, tiny_model, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    assert run(["extract", str(tiny_model), "d.tsv", "--estimate", "--prompt", "the film {text}"]) == 0
    out = capsys.readouterr().out
    assert "60 (0 would be cut)" in out
    assert "3 to store: embeddings (0) and blocks 1, 2 of 2" in out
    tokens = int(re.search(r"tokens +([\d,]+) to read, special ones and prompt counted", out)[1].replace(",", ""))
    words = sum(len(text.split()) for text in tiny_texts(60)[0])
    assert tokens == words + 60 * (2 + 2)  # [CLS], [SEP], "the", "film"


def test_inspect_on_a_narrow_terminal_cuts_nothing(extracted, monkeypatch):
    extracted("narrow.h5", "--prompt", "words " * 20 + "{text}")
    file = io.StringIO()
    monkeypatch.setattr(of_cli, "screen", lambda **_: Console(file=file, width=60, highlight=False, markup=False))
    of_cli.print_summary(describe("narrow.h5"), full=True)
    lines = file.getvalue().splitlines()
    assert max(map(len, lines)) <= 60
    assert "…" not in file.getvalue()
    assert file.getvalue().count("words") == 20


def test_whole_numbers_read_as_classes_are_said_in_the_heading(extracted, monkeypatch, capsys):
    extracted("probed.h5")
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setattr("probekit.cli.progress.QUIET_SECONDS", -1.0)
    assert run(["probe", "probed.h5", "--target", "priority,label", "--jobs", "1"]) == 0
    out, err = capsys.readouterr()
    assert max(map(len, out.splitlines())) <= 60
    assert out.count("read as 5 classes; for numbers: --task priority=regression\n") == 1
    assert out.count("read as") == 1
    assert "Weak: only 12 test rows." in out
    # 3 layers and, for each target, the words alone
    assert "probing: 5 of 5 fits" in err
