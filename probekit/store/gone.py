"""A cache that is not there any more, for whoever asks something of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from probekit.errors import CacheError


class Gone:
    """Stands for a cache that can't be opened again: the error comes when something is asked of it.

    (Raised while a task is unpickled, it would end the pool of processes, and nobody would see why.)
    """

    def __init__(self, error: CacheError) -> None:
        self._error = error

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("__"):
            raise AttributeError(name)

        def ask(*_arguments: Any, **_options: Any) -> Any:
            raise self._error

        return ask
