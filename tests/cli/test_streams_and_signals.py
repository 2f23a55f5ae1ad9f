"""A full, closed or unread stdout costs the printing and nothing else; a signal leaves no process and no half file."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

OLD = Path(__file__).parent.parent / "old"
ENVIRONMENT = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"}
PROBEKIT = [sys.executable, "-m", "probekit"]
PROBE = [*PROBEKIT, "probe", "cache.h5", "--target", "label", "--jobs", "1", "--out", "l.csv"]
LONG = [*PROBEKIT, "probe", "cache.h5", "--target", "label", "--seeds", "400", "--jobs", "2", "--out", "l.csv"]

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc and /dev/full are Linux's")


@pytest.fixture
def here(tmp_path):
    shutil.copytree(OLD, tmp_path / "old")
    (tmp_path / "old" / "layers.csv").unlink()
    return tmp_path / "old"


def shell(folder, redirection, command=PROBE, **more):
    script = f'"$@" {redirection}'
    return subprocess.run(
        ["bash", "-c", script, "bash", *command],
        cwd=folder,
        env=ENVIRONMENT | more,
        capture_output=True,
        check=False,
        timeout=120,
    )


def test_a_full_stdout(here):
    done = shell(here, "> /dev/full")
    assert done.returncode == 1
    assert done.stderr.decode().splitlines()[-1].startswith("error: standard output: can't be written to: No space")
    assert (here / "l.csv").exists()


@pytest.mark.parametrize("redirection", [">&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_closed_streams(here, redirection):
    done = shell(here, redirection)
    assert done.returncode == 1
    assert b"Traceback" not in done.stderr
    assert (here / "l.csv").exists()


@pytest.mark.slow
def test_a_cache_never_gets_the_number_of_a_closed_stderr(here):
    command = [*PROBEKIT, "extract", "model", "train.tsv", "--out", "new.h5", "--dtype", "float32"]
    assert shell(here, "2>&-", command).returncode == 0
    done = shell(here, "", [*PROBEKIT, "verify", "new.h5"])
    assert b"all as they were sealed" in done.stdout


def test_a_reader_that_goes_away(here):
    done = shell(here, "| true; exit ${PIPESTATUS[0]}")
    assert done.returncode == 0
    assert b"error" not in done.stderr
    assert (here / "l.csv").exists()
    assert shell(here, "| true; exit ${PIPESTATUS[0]}", [*PROBEKIT, "-h"]).returncode == 0


def test_a_stderr_that_is_full_stops_nothing(here):
    done = shell(here, "2> /dev/full")
    assert done.returncode == 0
    assert b"layer" in done.stdout


@pytest.mark.parametrize(
    "variables",
    [
        {"PYTHONIOENCODING": "ascii"},
        pytest.param({"PYTHONIOENCODING": "cp1252"}, marks=pytest.mark.slow),
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    ],
)
def test_terminals_with_few_characters(here, variables):
    done = shell(here, "", [*PROBE[:-2], "--target", "score"], **variables)
    assert done.returncode == 0, done.stderr
    assert b"layer" in done.stdout
    assert b"\\u25" not in done.stdout
    done = shell(here, "", [*PROBEKIT, "inspect", "日本.h5"], **variables)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1


def test_a_working_folder_that_was_removed(here):
    done = shell(
        here, "", ["bash", "-c", 'mkdir gone; cd gone; rmdir ../gone; "$@"', "x", *PROBEKIT, "inspect", "c.h5"]
    )
    assert done.returncode == 2
    assert b"error: the working folder: must exist, but was removed" in done.stderr


@pytest.mark.slow
def test_arguments_that_are_no_utf8(here):
    heads = "heads/old_model-label-mean-000-logistic.skops"
    for command, code in {
        ("predict", heads, "--model", "model", "--text", b"caf\xe9"): 2,
        ("extract", "model", b"caf\xe9.tsv", "--out", "n.h5"): 2,
        ("extract", "model", "train.tsv", "--prompt", b"\xe9 {text}", "--out", "n.h5"): 2,
        ("probe", "cache.h5", "--target", b"\xff"): 2,
        ("inspect", b"\xff.h5"): 2,
    }.items():
        done = shell(here, "", [*PROBEKIT, *command])
        assert done.returncode == code, done.stderr
        last = done.stderr.decode().splitlines()[-1]
        assert last.startswith("error: ")
        assert "unexpected" not in last


# --- signals


def children(pid):
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            state, parent = (folder / "stat").read_text().rsplit(")", 1)[1].split()[:2]
        except OSError:
            continue
        if int(parent) == pid and state != "Z":
            found.append(int(folder.name))
    return found


def is_alive(pid):
    try:
        return (Path("/proc") / str(pid) / "stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def poll(condition, seconds=60.0):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := condition():
            return found
        time.sleep(0.02)
    raise AssertionError("waited in vain")


def workers_of(pid):
    """Its copies: processes of the same command."""
    found = []
    command = (Path("/proc") / str(pid) / "cmdline").read_bytes()
    for child in children(pid):
        try:
            if command == (Path("/proc") / str(child) / "cmdline").read_bytes():
                found.append(child)
        except OSError:
            continue
    return found


@pytest.fixture
def running(here):
    """A long job with two workers at work."""
    with subprocess.Popen(
        LONG,
        cwd=here,
        env=ENVIRONMENT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as job:
        poll(lambda: len(workers_of(job.pid)) == 2)
        processes = children(job.pid)
        yield job
        for pid in (job.pid, *processes):
            if is_alive(pid):
                os.kill(pid, signal.SIGKILL)
        job.stderr.read()


@pytest.mark.parametrize(
    ("number", "whole_group", "code", "line"),
    [
        (signal.SIGINT, False, 130, "error: interrupted"),
        (signal.SIGINT, True, 130, "error: interrupted"),
        (signal.SIGTERM, False, 143, "error: ended by a signal"),
        (signal.SIGHUP, False, 129, "error: ended by a signal"),
        (signal.SIGKILL, False, -9, None),
    ],
)
def test_no_process_outlives_the_command(here, running, number, whole_group, code, line):
    processes = children(running.pid)
    (os.killpg if whole_group else os.kill)(running.pid, number)
    assert running.wait(timeout=30) == code
    poll(lambda: not any(is_alive(pid) for pid in processes), seconds=20)
    said = [said for said in running.stderr.read().splitlines() if said != "probing ..."]
    assert said == ([line] if line else [])
    assert not list(here.glob("l.*"))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_worker_is_one_line(running, number):
    processes = children(running.pid)
    os.kill(workers_of(running.pid)[0], number)
    assert running.wait(timeout=30) == 1
    *_, line = running.stderr.read().splitlines()
    assert line.startswith("error: --jobs 2: every process must live to its end")
    poll(lambda: not any(is_alive(pid) for pid in processes), seconds=20)


def test_a_ctrl_c_is_for_the_command_alone(running):
    """From its first moment on a worker keeps it waiting: taken while it starts, it would print a traceback."""
    for worker in workers_of(running.pid):
        os.kill(worker, signal.SIGINT)
        status = (Path("/proc") / str(worker) / "status").read_text()
        (pending,) = (line.split()[1] for line in status.splitlines() if line.startswith("ShdPnd"))
        assert int(pending, 16) & (1 << (signal.SIGINT - 1))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_that_meets_the_end_of_a_weak_reference(number):
    """Python ignores what is raised there: the signal must not be lost."""
    script = (
        "import signal, sys, time, weakref\n"
        "from probekit.cli.boundary import end_on_signals\n"
        "end_on_signals()\n"
        "class Thing: pass\n"
        "thing = Thing()\n"
        f"reference = weakref.ref(thing, lambda _: signal.raise_signal({int(number)}))\n"
        "try:\n    del thing\n    time.sleep(20)\n"
        "except KeyboardInterrupt as error:\n    print(repr(error))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], env=ENVIRONMENT, capture_output=True, text=True, check=True, timeout=15
    )
    assert done.stdout == {signal.SIGINT: "KeyboardInterrupt()\n", signal.SIGTERM: "Signalled(15)\n"}[number]
    assert done.stderr == ""
