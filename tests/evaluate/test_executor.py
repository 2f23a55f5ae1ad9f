"""Units of work come back in order from any executor, and nothing of them is left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest

from probekit.errors import WorkerError
from probekit.evaluate.executor import Counter, run_units, workers
from probekit.spec import Silent

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")

EXECUTORS = {
    "none": lambda: nullcontext(None),
    "threads": lambda: ThreadPoolExecutor(2),
    "forked": lambda: workers(2, fork=True),
    "fresh": lambda: workers(2),
}


class Shared:
    """Tells how often it was unpickled in this process."""

    loads = 0

    def __init__(self, numbers):
        self.numbers = numbers

    def __setstate__(self, state):
        type(self).loads += 1
        self.__dict__ = state


def scaled(shared, item):
    return shared * item


def added(shared, item):
    return float(shared.numbers.sum()) + item


def loads_here(shared, item):
    time.sleep(0.02)
    return os.getpid(), type(shared).loads


def failing_at_three(_shared, item):
    if item == 3:
        raise ZeroDivisionError("at three")
    return item


def marking(folder, item):
    if item == 0:
        raise ZeroDivisionError("at once")
    (folder / str(item)).touch()
    time.sleep(0.1)


def dying(_shared, item):
    if item == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return item


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    """The folder of temporary files, to see what is left in it."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.mark.parametrize("kind", EXECUTORS)
def test_results_in_order_and_nothing_left(temporary, kind):
    with EXECUTORS[kind]() as executor:
        assert list(run_units(executor, scaled, 7, range(20))) == [7 * i for i in range(20)]
        assert list(run_units(executor, scaled, "ab", range(3))) == ["", "ab", "abab"]  # not what was shared before
        assert list(run_units(executor, scaled, 7, [])) == []
    assert not list(temporary.iterdir())


@pytest.mark.parametrize("kind", ["forked", "fresh"])
def test_what_is_shared_is_sent_once_to_each_process(kind):
    with EXECUTORS[kind]() as executor:
        found = list(run_units(executor, loads_here, Shared(np.ones(100_000)), range(20)))
    assert {loads for _, loads in found} == {1}
    assert len({pid for pid, _ in found}) <= 2


def test_what_is_shared_is_not_in_the_items(monkeypatch):
    sizes = []
    with ProcessPoolExecutor(1) as executor:
        submit = executor.submit

        def measured(function, item):
            import pickle

            sizes.append(len(pickle.dumps((function, item))))
            return submit(function, item)

        monkeypatch.setattr(executor, "submit", measured)
        assert list(run_units(executor, added, Shared(np.ones(100_000)), [1, 2])) == [100_001, 100_002]
    assert max(sizes) < 1000


@pytest.mark.parametrize("kind", ["none", "threads"])
def test_here_it_is_the_very_object(kind):
    shared = object()
    with EXECUTORS[kind]() as executor:
        assert list(run_units(executor, lambda given, _: given is shared, shared, [1])) == [True]


@pytest.mark.parametrize("kind", EXECUTORS)
def test_an_error_in_the_middle(temporary, kind):
    done = []
    with EXECUTORS[kind]() as executor:
        with pytest.raises(ZeroDivisionError, match="at three"):
            done += run_units(executor, failing_at_three, None, range(6))
        results = run_units(executor, failing_at_three, None, range(6))
        assert [next(results) for _ in range(3)] == [0, 1, 2]
        with pytest.raises(ZeroDivisionError):
            next(results)
        assert not list(temporary.iterdir())


@pytest.mark.parametrize("kind", ["threads", "forked"])
def test_after_an_error_the_rest_is_cancelled(tmp_path, kind):
    with EXECUTORS[kind]() as executor, pytest.raises(ZeroDivisionError):
        list(run_units(executor, marking, tmp_path, range(40)))
    assert len(list(tmp_path.iterdir())) < 20


@pytest.mark.parametrize("kind", ["forked", "fresh"])
def test_a_killed_worker(temporary, kind):
    before = threading.active_count()
    with pytest.raises(WorkerError, match="--jobs 2: every process must live"), EXECUTORS[kind]() as executor:
        list(run_units(executor, dying, None, range(6)))
    assert not list(temporary.iterdir())
    assert threading.active_count() <= before


def test_a_listener_that_fails_leaves_nothing(temporary):
    class Failing(Silent):
        def advance(self, done: int) -> None:
            if done == 2:
                raise KeyboardInterrupt

    with ThreadPoolExecutor(1) as threads, ProcessPoolExecutor(1) as executor:
        for pool in (None, threads, executor):
            results = run_units(pool, scaled, 2, range(100))
            with pytest.raises(KeyboardInterrupt):
                Counter(Failing())(results)
            assert not list(temporary.iterdir())
            assert next(results, "closed") == "closed"


def test_a_single_job_needs_no_process():
    with workers(1) as executor:
        assert executor is None


def test_a_script_without_a_main_guard(tmp_path):
    """And what stands in the script itself goes along."""
    script = tmp_path / "script.py"
    script.write_text(
        "from probekit.evaluate.executor import run_units, workers\n"
        "def double(shared, item):\n    return shared + 2 * item\n"
        "with workers(2) as executor:\n    print(list(run_units(executor, double, 1, [1, 2, 3])))\n"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run([sys.executable, script], env=environment, capture_output=True, text=True, check=False)
    assert done.stdout == "[3, 5, 7]\n", done.stderr
