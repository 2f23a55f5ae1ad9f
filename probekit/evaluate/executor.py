"""Small units of work, here or on an executor, counted as they are done."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future
from typing import Any, TypeVar

from probekit.spec import Listener

Result = TypeVar("Result")


class Counter:
    """Collects results and tells the listener how many there are."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._done = 0

    def __call__(self, results: Iterator[Result]) -> list[Result]:
        """All of ``results``."""
        collected = []
        for result in results:
            collected.append(result)
            self._done += 1
            self._listener.advance(self._done)
        return collected


def run_tasks(executor: Executor | None, function: Callable[[Any], Any], tasks: Sequence[Any]) -> Iterator[Any]:
    """Results in the order of ``tasks``."""
    if executor is None:
        yield from map(function, tasks)
        return
    futures: list[Future[Any]] = [executor.submit(function, task) for task in tasks]
    try:
        for future in futures:
            yield future.result()
    finally:
        for future in futures:
            future.cancel()


def run_units(
    executor: Executor | None, function: Callable[[Any, Any], Any], shared: Any, items: Sequence[Any]
) -> Iterator[Any]:
    """Stand-in."""
    from functools import partial

    yield from run_tasks(executor, partial(function, shared), items)
