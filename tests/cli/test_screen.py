"""Nothing of the data's steers a terminal, whatever prints it; what a program reads keeps its bytes."""

from __future__ import annotations

import csv
import io
import json
import os
import pty
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from rich.table import Table
from rich.text import Text

from probekit.cli import run
from probekit.cli.screen import Screen, plain, plain_table
from tests.tiny import tiny_texts

BAD = "\x1b[31m\x1b]0;title\x07\x9b2J\x7f\u202eabc\u2066\r\x08[red]x[/red][/]:smile:"
OWN = re.compile(r"\x1b\[[0-9;]*m|\x1b\[\?25[lh]|\x1b\[[0-9]*[AK]|\x1b\[2K|\r\n|\r|\n")
"""Colours and the moves of a progress bar."""

CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\u2028\u2029]")


def test_what_a_control_character_looks_like():
    assert plain("a\x1b[31m\n\tb\x9b\x7f\u202e é→") == "a\\u001b[31m\\n\\tb\\u009b\\u007f\\u202e é→"
    assert json.loads(f'"{plain("x" + chr(27) + chr(0x9B))}"') == "x\x1b\x9b"


def test_a_table_for_people_has_one_line_per_row_and_keeps_its_types():
    table = pd.DataFrame({"a": ["x\nerror: fake", None], "b": [1.5, 2], "c": [True, False], "d": [None, None]})
    shown = plain_table(table)
    assert shown["a"][0] == "x\\nerror: fake"
    assert pd.isna(shown["a"][1])
    assert shown.dtypes.tolist() == table.dtypes.tolist()


def test_own_colours_pass_and_those_of_the_text_do_not():
    out = io.StringIO()
    console = Screen(
        file=out, force_terminal=True, color_system="standard", highlight=False, markup=False, emoji=False, width=400
    )
    table = Table(box=None)
    table.add_column(BAD)
    table.add_row(Text(BAD, style="bold red"))
    console.print(table)
    console.print(BAD)
    assert "\x1b[1;31m" in out.getvalue()
    left = re.sub(r"\x1b\[1;31m|\x1b\[0m|\x1b\[1m|\n", "", out.getvalue())
    assert not CONTROL.search(left), left
    assert "[red]x[/red][/]:smile:" in left


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "koi8-r"])
def test_a_terminal_with_few_characters(encoding):
    raw = io.BytesIO()
    console = Screen(file=io.TextIOWrapper(raw, encoding, errors="backslashreplace"), width=60)
    console.print("→ R² … ████▌ ━━╸ ⠋ 日本")
    shown = raw.getvalue().decode(encoding)
    assert shown.startswith((">", "→"))
    assert "\\u25" not in shown
    assert "\\u65e5" in shown


@pytest.fixture(scope="module")
def hostile(tmp_path_factory, tiny_model):
    """A folder in which every name, label and text has control characters in it."""
    folder = tmp_path_factory.mktemp("hostile")
    name = BAD.replace("/", "|")
    shutil.copytree(tiny_model, folder / f"m{name}")
    texts, labels = tiny_texts(60)
    rows = [
        {"text": f"{t} {BAD}\nerror: fake", f"label{name}": f"{y}{BAD}\nerror: fake", f"group{name}": f"g{i % 9}{BAD}"}
        for i, (t, y) in enumerate(zip(texts, labels, strict=True))
    ]
    words = [{"tokens": ["good" + BAD, "film"], f"tags{name}": [f"B-x{BAD}", "O"]} for _ in range(20)]
    (folder / f"d{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / f"w{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in words))
    return folder, name


def commands(name):
    model, data, cache, words = f"m{name}", f"d{name}.jsonl", f"c{name}.h5", f"w{name}.h5"
    label, heads = f"label{name}", f"heads{name}"
    probe = ["probe", cache, "--target", label, "--jobs", "1"]
    beside = ["--group", f"group{name}", "--per-class", "--shots", "1", "--transfer", f"t{name}.h5", "--seeds", "2"]
    return [
        (0, ["extract", model, data, "--out", cache]),
        (0, ["extract", model, data, "--out", cache]),
        (0, ["extract", model, data, "--out", f"t{name}.h5"]),
        (0, ["extract", model, data, "--estimate", "--prompt", "x\x1b[31m {text}"]),
        (2, ["extract", model, data, "--out", cache, "--max-length", "9"]),
        (2, ["extract", model, f"no{name}.csv", "--out", cache]),
        (2, ["extract", f"no{name}", data, "--out", cache]),
        (2, ["extract", model, data, "--out", f"no{name}/{cache}"]),
        (2, ["extract", model, data, "--text", f"no{name}", "--out", "x.h5"]),
        (0, ["inspect", cache]),
        (0, ["inspect", cache, "--health"]),
        (0, ["inspect", cache, "--json"]),
        (0, ["verify", cache]),
        (0, [*probe, *beside, "--out", f"o{name}.csv", "--save-probes", heads]),
        (0, [*probe, "--json", "--per-class"]),
        (2, ["probe", cache, "--target", f"no{name}"]),
        (2, [*probe, "--group", f"no{name}"]),
        (2, [*probe, "--split", label]),
        (2, [*probe, f"--no{name}"]),
        (2, [*probe, "--debug", "--layers", BAD]),
        (0, ["predict", heads, "--model", model, "--text", f"good {BAD}\nx"]),
        (0, ["predict", heads, "--model", model, data, "--json"]),
        (2, ["predict", f"no{name}", "--text", "a"]),
        (0, ["extract", model, f"w{name}.jsonl", "--tokens", "--out", words]),
        (0, ["probe", words, "--target", f"tags{name}", "--jobs", "1", "--save-probes", f"taggers{name}"]),
        (0, ["predict", f"taggers{name}", "--model", model, "--text", f"good {BAD}"]),
        (0, ["predict", f"taggers{name}", "--model", model, "--text", f"good {BAD}", "--json"]),
    ]


RUNNER = """
import json, sys
from probekit.cli import main
codes = []
for arguments in json.load(open("commands.json")):
    sys.argv = ["probekit", *arguments]
    print("$", ascii(arguments), flush=True)
    try:
        main()
    except SystemExit as end:
        codes.append(end.code)
json.dump(codes, open("codes.json", "w"))
"""


def test_all_commands_on_a_terminal(hostile):
    folder, name = hostile
    (folder / "commands.json").write_text(json.dumps([arguments for _, arguments in commands(name)]))
    ours, theirs = pty.openpty()
    root = str(Path(__file__).parents[2])
    environment = os.environ | {"PYTHONPATH": root, "TERM": "xterm-256color", "COLUMNS": "100", "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        [sys.executable, "-c", RUNNER], stdin=theirs, stdout=theirs, stderr=theirs, cwd=folder, env=environment
    ) as child:
        os.close(theirs)
        printed = b""
        while True:
            try:
                part = os.read(ours, 65536)
            except OSError:  # how Linux says that the other side is closed
                break
            if not part:
                break
            printed += part
    os.close(ours)
    assert child.returncode == 0, printed[-2000:]
    assert json.loads((folder / "codes.json").read_text()) == [code for code, _ in commands(name)], printed.decode()
    text = printed.decode()
    assert "\x1b[" in text  # the terminal was taken for one
    for line in OWN.sub("\n", text).split("\n"):
        assert not CONTROL.search(line), ascii(line)
        assert not line.startswith("error: fake")
    before, after = text.split("'--debug'")
    assert "Traceback" in after
    assert "Traceback" not in before
    assert "unexpected" not in text


def test_a_pipe_gets_the_bytes_of_the_data(hostile, monkeypatch, capsys):
    folder, name = hostile
    monkeypatch.chdir(folder)
    for arguments in ([f"m{name}", f"d{name}.jsonl", "--out", "pipe.h5"],):
        assert run(["extract", *arguments]) == 0
    assert run(["probe", "pipe.h5", "--target", f"label{name}", "--jobs", "1", "--save-probes", "h"]) == 0
    capsys.readouterr()
    base = ["predict", "h", "--model", f"m{name}", "--text", "good"]
    assert run(base) == 0
    (row,) = csv.DictReader(io.StringIO(capsys.readouterr().out, newline=""))
    assert row["prediction"] in {f"pos{BAD}\nerror: fake", f"neg{BAD}\nerror: fake"}
    assert run([*base, "--json"]) == 0
    printed = capsys.readouterr().out
    assert json.loads(printed)["prediction"] == row["prediction"]
    assert "\u202e" in printed
