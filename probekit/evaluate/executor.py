"""Units of work and the processes that do them: none outlives the command, however that ends."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import closing, contextmanager
from functools import lru_cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

from probekit.errors import WorkerError
from probekit.spec import Listener

Result = TypeVar("Result")

_LOOK_EVERY = 0.5
"""Seconds between looks at whether the parent is still there."""

_ASK_TO_END = {getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)}


class Counter:
    """Collects results and tells the listener how many there are."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._done = 0

    def __call__(self, results: Generator[Result, None, None]) -> list[Result]:
        """All of ``results``, which is closed whatever happens."""
        collected = []
        with closing(results):
            for result in results:
                collected.append(result)
                self._done += 1
                self._listener.advance(self._done)
        return collected


def run_units(
    executor: Executor | None, function: Callable[[Any, Any], Result], shared: Any, items: Sequence[Any]
) -> Generator[Result, None, None]:
    """``function(shared, item)`` of every item, in the order of ``items``; an executor begins before they are read.

    ``shared`` is what all units need, however large: without an executor, and by threads, it is used as it is; to
    processes it goes once each, through a private file that is removed at the end. ``function``, ``items`` and results
    are pickled one by one and should be small.

    An error of a unit is raised when its turn comes, and the units that have not begun are cancelled. Close the
    generator where it is not read to its end.

    An executor whose workers see other temporary folders (other machines) needs another way for ``shared``: with Dask,
    ``client.scatter(shared, broadcast=True)``, whose future is then the first argument of every call.
    """
    if executor is None:
        return (function(shared, item) for item in items)
    if isinstance(executor, ThreadPoolExecutor):
        return _results(executor, partial(function, shared), items)
    from joblib.externals.loky.backend.reduction import dump  # takes along what stands in the user's own script

    folder = TemporaryDirectory(prefix="probekit-", ignore_cleanup_errors=True)
    path = Path(folder.name) / "shared"
    with path.open("wb") as file:
        dump(shared, file, protocol=pickle.HIGHEST_PROTOCOL)
    return _results(executor, partial(_with_shared, function, str(path)), items, folder)


def _results(
    executor: Executor,
    function: Callable[[Any], Result],
    items: Sequence[Any],
    folder: TemporaryDirectory[str] | None = None,
) -> Generator[Result, None, None]:
    """What the units give, in order; all begin at once, and ``folder`` is removed at the end, whatever that is."""
    found = _in_order(executor, function, items, folder)
    next(found)
    return found


def _in_order(
    executor: Executor, function: Callable[[Any], Any], items: Sequence[Any], folder: TemporaryDirectory[str] | None
) -> Generator[Any, None, None]:
    futures: list[Future[Any]] = []
    try:
        futures += (executor.submit(function, item) for item in items)
        yield  # all have begun
        for future in futures:
            yield future.result()
    finally:
        for future in futures:
            future.cancel()
        if folder is not None:
            folder.cleanup()


def _with_shared(function: Callable[[Any, Any], Result], path: str, item: Any) -> Result:
    return function(_load_shared(path), item)


@lru_cache(maxsize=1)
def _load_shared(path: str) -> Any:
    """What :func:`run_units` wrote, read once by each process; of several runs the last is kept."""
    with Path(path).open("rb") as file:
        return pickle.load(file)


@contextmanager
def workers(jobs: int, *, fork: bool = False) -> Iterator[Executor | None]:
    """Processes that do units of work; none for a single job.

    ``fork``: as copies of this process, which are there at once (0.02 s, against the 1.5 s of CPU that each other one
    needs for its imports). Only for a process that has started no threads (progress bars, torch, OpenMP) yet, as the
    command line is when its imports are done; and only on Linux, elsewhere it changes nothing. The others are joblib's
    kind, which needs no ``__main__`` guard in user code.

    Raises WorkerError if one is killed.
    """
    if jobs == 1:
        yield None
        return
    before = set(multiprocessing.active_children())
    executor = _forked(jobs) if fork and sys.platform == "linux" else _fresh(jobs)
    try:
        with _no_signals():
            executor.submit(os.getpid)  # which starts them all
        yield executor
    except BaseException as error:
        _kill(executor, before)
        if isinstance(error, BrokenExecutor):
            message = "every process must live to its end, and one was killed (too little memory?); try fewer"
            raise WorkerError(f"--jobs {jobs}", message) from error
        raise
    executor.shutdown(wait=True)


def _forked(jobs: int) -> Executor:
    context = multiprocessing.get_context("fork")
    return ProcessPoolExecutor(max_workers=jobs, mp_context=context, initializer=_begin, initargs=(os.getpid(),))


def _fresh(jobs: int) -> Executor:
    from multiprocessing import resource_tracker

    from joblib.externals.loky import ProcessPoolExecutor as LokyExecutor

    if hasattr(signal, "pthread_sigmask"):
        resource_tracker.ensure_running()  # its start, within that of the first process, would let Ctrl-C through
    executor: Executor = LokyExecutor(max_workers=jobs, initializer=_begin, initargs=(os.getpid(),))
    return executor


def _kill(executor: Executor, before: set[Any]) -> None:
    """End the processes in the midst of their work."""
    if isinstance(executor, ProcessPoolExecutor):
        for process in set(multiprocessing.active_children()) - before:
            process.kill()
        executor.shutdown(wait=True, cancel_futures=True)
    else:
        with warnings.catch_warnings(action="ignore"):
            executor.shutdown(wait=True, kill_workers=True)  # type: ignore[call-arg]  # loky's own


@contextmanager
def _no_signals() -> Iterator[None]:
    """Ctrl-C goes to every process of a terminal; those started here leave it to the parent, which then ends them.

    (The other signals wait until :func:`_begin`.)
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, *_ASK_TO_END})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _begin(parent: int) -> None:
    """In each process: what the libraries warn of is not for the user, and without the parent there is no work.

    A signal that asks to end does so at once: what the command does about it is not for its copies.
    """
    if hasattr(signal, "pthread_sigmask"):
        for number in _ASK_TO_END:
            if callable(signal.getsignal(number)):
                signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _ASK_TO_END)
    warnings.simplefilter("ignore")
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_LOOK_EVERY)
    os._exit(1)
