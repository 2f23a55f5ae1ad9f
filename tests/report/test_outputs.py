"""Files are written whole under another name, then renamed: a full disk or a kill leaves the old ones as they were."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression, Ridge

from probekit.cli import run
from probekit.errors import DiskError, SpecError
from probekit.output import check_can_fill, check_can_write, replacing, write_whole
from probekit.report import draw_curves, write_csv, write_table
from probekit.saved import card_path, load_probe, save_probe

OLD = Path(__file__).parent.parent / "old"


@contextmanager
def disk_of(n_bytes):
    """No file may grow beyond so many bytes, as on a full disk."""
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def old_table():
    return pd.read_csv(OLD / "layers.csv").astype({"selected": bool, "final_norm": bool}).assign(cache="old")


WRITERS = {
    "a.csv": lambda path: write_csv(old_table(), path),
    "b.csv": lambda path: write_table(old_table(), {}, path),
    "c.png": lambda path: draw_curves(old_table(), path),
    "d.svg": lambda path: draw_curves(old_table(), path),
    "e.pdf": lambda path: draw_curves(old_table(), path),
    "f.skops": lambda path: save_probe(path, Ridge().fit(np.eye(40), np.arange(40.0)), {}),
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_full_disk_leaves_the_old_file(tmp_path, name):
    WRITERS[name](tmp_path / name)  # everything is loaded, and is whole
    for path in tmp_path.iterdir():
        path.write_text("old")
    names = sorted(tmp_path.iterdir())
    with disk_of(600), pytest.raises(DiskError, match="can't be written; got File too large"):
        WRITERS[name](tmp_path / name)
    assert sorted(tmp_path.iterdir()) == names
    assert {path.read_text() for path in names} == {"old"}


def test_a_kill_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("old")
    code = (
        "import os, signal; from pathlib import Path; from probekit.output import replacing\n"
        f"with replacing(Path({str(path)!r})) as partial:\n"
        "    partial.write_text('ne'); os.kill(os.getpid(), signal.SIGKILL)"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    assert subprocess.run([sys.executable, "-c", code], env=environment, check=False).returncode == -9
    assert path.read_text() == "old"


def test_an_error_in_between_leaves_nothing(tmp_path):
    def write():
        with replacing(tmp_path / "a") as partial:
            partial.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write()
    assert not list(tmp_path.iterdir())


def test_a_link_is_written_through(tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "a.csv").write_text("old")
    os.symlink("there/a.csv", tmp_path / "a.csv")
    write_whole(tmp_path / "a.csv", b"new")
    assert (tmp_path / "a.csv").is_symlink()
    assert (tmp_path / "there" / "a.csv").read_bytes() == b"new"


def test_a_name_of_the_longest_kind(tmp_path):
    name = "ü" * 125 + ".csv"
    write_whole(tmp_path / name, b"x")
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("stop_at", [pytest.param(0, marks=pytest.mark.slow), 1, 2])
def test_a_kill_while_a_probe_is_saved(tmp_path, stop_at):
    """Before the first, between the two and after both renames: the old probe, a refusal, the new probe."""
    path = tmp_path / "p.skops"
    save_probe(path, LogisticRegression().fit([[0.0], [1]], ["a", "b"]), {"labels": ["a", "b"]})
    code = f"""
import os, signal
from pathlib import Path
from sklearn.linear_model import LogisticRegression
from probekit.saved import save_probe
seen, rename = [], os.rename
def stop(event, arguments):
    if event == "os.rename":
        if len(seen) == {stop_at}:
            os.kill(os.getpid(), signal.SIGKILL)
        seen.append(arguments)
import sys
sys.addaudithook(stop)
save_probe(Path({str(path)!r}), LogisticRegression().fit([[0.0], [1]], ["c", "d"]), {{"labels": ["c", "d"]}})
"""
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run([sys.executable, "-c", code], env=environment, check=False)
    assert done.returncode == (-9 if stop_at < 2 else 0)
    if stop_at == 1:
        with pytest.raises(SpecError, match=r"must be the file that p\.json speaks of"):
            load_probe(path)
        return
    saved = load_probe(path)
    assert saved.estimator.classes_.tolist() == saved.card["labels"] == (["a", "b"] if stop_at == 0 else ["c", "d"])


# --- before the work


@pytest.fixture
def here(tmp_path, monkeypatch):
    shutil.copytree(OLD, tmp_path / "old")
    monkeypatch.chdir(tmp_path / "old")
    return tmp_path / "old"


PROBE = ["probe", "cache.h5", "--target", "label", "--jobs", "1"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--out", "/proc/l.csv"], "--out /proc/l.csv: must be a name that can be written to"),
        (["--out", f"{'x' * 300}.csv"], "name too long"),
        (["--out", f"{'x' * 249}.csv", "--per-class"], "name too long"),
        (["--out", "dangling.csv"], "a link to nothing.csv, which is not there"),
        (["--out", "pipe.csv", "--overwrite"], "must be a file; got a device"),
        (["--out", "folder.csv", "--overwrite"], "must be a file; got a folder"),
        (["--out", "train.tsv/l.csv"], "the folder must exist"),
        (["--plot", "/proc/l.png"], "--plot /proc/l.png: must be a name that can be written to"),
        (["--save-probes", "/proc/heads"], "--save-probes /proc/heads: must be a folder that can be written to"),
        (["--save-probes", "train.tsv/heads"], "must be a folder"),
        (["--save-probes", "x" * 300], "name too long"),
        (["--save-probes", "dangling.csv"], "--save-probes dangling.csv: must be a folder"),
    ],
)
def test_what_could_not_be_written_is_found_before_the_work(here, capsys, options, message):
    os.symlink("nothing.csv", "dangling.csv")
    os.mkfifo("pipe.csv")
    Path("folder.csv").mkdir()
    before = sorted(here.rglob("*"))
    assert run([*PROBE, *options]) == 2
    (line,) = capsys.readouterr().err.splitlines()  # no "probing ..."
    assert message in line.replace("File name", "name")
    assert sorted(here.rglob("*")) == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_the_right_to_write(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(SpecError, match="can be written to"):
        check_can_write("--out", tmp_path / "a.csv", overwrite=False)
    with pytest.raises(SpecError, match="can be written to"):
        check_can_fill("--save-probes", tmp_path / "heads", overwrite=False)
    tmp_path.chmod(0o700)


def test_an_extraction_that_could_not_be_written_reads_nothing(here, capsys):
    assert run(["extract", "no-such-model", "no-such-data.tsv", "--out", "/proc/c.h5"]) == 2
    assert "--out /proc/c.h5: must be a name that can be written to" in capsys.readouterr().err


def test_files_are_there_before_anything_is_printed(here, monkeypatch):
    class Gone:
        encoding = "utf-8"

        def write(self, _text):
            raise OSError(28, "No space left on device")

        def flush(self):
            pass

        def isatty(self):
            return False

    monkeypatch.setattr("sys.stdout", Gone())
    options = ["--out", "l.csv", "--plot", "l.png", "--save-probes", "new", "--per-class"]
    assert run([*PROBE, *options]) == 1
    assert json.loads(Path("l.json").read_text())["rows"]
    assert all(Path(name).stat().st_size for name in ("l.csv", "l.png", "l.classes.csv"))
    (probe,) = Path("new").glob("*.skops")
    assert card_path(probe).exists()
    assert load_probe(probe)


def test_a_long_name_of_a_target_gives_a_probe_file(tmp_path, monkeypatch, tiny_model):
    from probekit import extract

    long = "ü" * 300
    rows = [{"text": f"good film {i}" if i % 2 else f"bad plot {i}", long: str(i % 2)} for i in range(40)]
    (tmp_path / "d.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    extract(tiny_model, tmp_path / "d.jsonl", out=tmp_path / "c.h5").close()
    arguments = [str(tmp_path / "c.h5"), "--target", long, "--jobs", "1", "--save-probes", str(tmp_path / "heads")]
    assert run(["probe", *arguments]) == 0
    (probe,) = (tmp_path / "heads").glob("*.skops")
    assert load_probe(probe).card["target"] == long
