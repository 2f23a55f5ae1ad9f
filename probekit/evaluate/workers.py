"""The processes that fit layers: none outlives the command, however that ends."""

from __future__ import annotations

import os
import signal
import threading
import time
import warnings
from collections.abc import Iterator
from concurrent.futures import BrokenExecutor, Executor
from contextlib import contextmanager

from joblib.externals.loky import ProcessPoolExecutor

from probekit.errors import WorkerError

_LOOK_EVERY = 0.5
"""Seconds between looks at whether the parent is still there."""


@contextmanager
def workers(jobs: int) -> Iterator[Executor | None]:
    """Processes that fit layers; none for a single job. (joblib's kind: needs no ``__main__`` guard in user code.)

    Raises WorkerError if one is killed.
    """
    if jobs == 1:
        yield None
        return
    executor = ProcessPoolExecutor(max_workers=jobs, initializer=_begin, initargs=(os.getpid(),))
    try:
        with _no_interrupt():
            executor.submit(os.getpid)  # which starts them all
        yield executor
    except BaseException as error:
        with warnings.catch_warnings(action="ignore"):
            executor.shutdown(wait=True, kill_workers=True)
        if isinstance(error, BrokenExecutor):
            message = "every process must live to its end, and one was killed (too little memory?); try fewer"
            raise WorkerError(f"--jobs {jobs}", message) from error
        raise
    executor.shutdown(wait=True)


@contextmanager
def _no_interrupt() -> Iterator[None]:
    """Ctrl-C goes to every process of a terminal; those started here leave it to the parent, which then ends them."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    from multiprocessing import resource_tracker

    resource_tracker.ensure_running()  # its start, which comes with that of the first process, would let Ctrl-C through
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _begin(parent: int) -> None:
    """In each process: what the libraries warn of is not for the user, and without the parent there is no work."""
    warnings.simplefilter("ignore")
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_LOOK_EVERY)
    os._exit(1)
