"""SIGTERM and SIGHUP end a command as Ctrl-C does: what was begun is put away, and one line says so."""

from __future__ import annotations

import signal
from types import FrameType
from typing import Never


class Signalled(KeyboardInterrupt):
    """A signal that asks to end. ``exit_code``: as shells have it."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.exit_code = 128 + number


def end_on_signals() -> None:
    """Called once, by the process that is the command. What is ignored (``nohup``) stays so."""
    for number in (signal.SIGTERM, getattr(signal, "SIGHUP", None)):
        if number is not None and signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, _end)


def _end(number: int, _frame: FrameType | None) -> Never:
    raise Signalled(number)
