"""SIGTERM and SIGHUP end a command as Ctrl-C does: what was begun is put away, and one line says so."""

from __future__ import annotations

import os
import signal
import sys
import threading
from types import FrameType
from typing import TYPE_CHECKING, Never

if TYPE_CHECKING:
    from sys import UnraisableHookArgs

_AGAIN_AFTER = 0.05
"""Seconds."""


class Signalled(KeyboardInterrupt):
    """A signal that asks to end. ``exit_code``: as shells have it."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number
        self.exit_code = 128 + number


def end_on_signals() -> None:
    """Called once, by the process that is the command. What is ignored (``nohup``) stays so."""
    for number in (signal.SIGTERM, getattr(signal, "SIGHUP", None)):
        if number is not None and signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, _end)
    sys.unraisablehook = _again


def _end(number: int, _frame: FrameType | None) -> Never:
    raise Signalled(number)


def _again(lost: UnraisableHookArgs) -> None:
    """A signal that came where Python lets no error out (the end of a weak reference) comes once more."""
    error = lost.exc_value
    if isinstance(error, KeyboardInterrupt):
        number = error.number if isinstance(error, Signalled) else signal.SIGINT
        threading.Timer(_AGAIN_AFTER, os.kill, (os.getpid(), number)).start()
    else:
        sys.__unraisablehook__(lost)
