"""How a command ends early: one line and an exit code: 2 for a mistake, 1 for a failure, more for a signal."""

from __future__ import annotations

import errno
import os
import shlex
import signal
import sys
import threading
from collections.abc import Sequence
from types import FrameType
from typing import TYPE_CHECKING, Never

import typer

from probekit.errors import ProbekitError

if TYPE_CHECKING:
    from sys import UnraisableHookArgs

INTERRUPTED = 130
REPORT = "report it, with that, to the maintainers of probekit-layers"
_LONGEST = 200
"""Characters of the command line and of a stranger's message in a line."""

_USAGE_ERROR: type[typer.BadParameter] = typer.BadParameter.__bases__[0]
"""Base of all errors in the use of options; typer has a click of its own or not, depending on its version."""

_MISTAKES = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EACCES, errno.EPERM, errno.ENAMETOOLONG, errno.ELOOP)
"""What the system says no to because of a name that was given."""

_AGAIN_AFTER = 0.05
"""Seconds."""


class Signalled(KeyboardInterrupt):
    """A signal that asks to end. ``exit_code``: as shells have it."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number
        self.exit_code = 128 + number


def explain_error(error: BaseException, arguments: Sequence[str], commands: Sequence[str]) -> tuple[str, int]:
    """The line for ``error``, which ended the command ``arguments``, and the exit code."""
    if isinstance(error, _USAGE_ERROR):
        command = next((f"{name} " for name in arguments if name in commands), "")
        return f"{error.format_message()} (see probekit {command}-h)", 2
    if isinstance(error, ProbekitError):
        signalled = error.__context__
        return str(error), signalled.exit_code if isinstance(signalled, Signalled) else error.exit_code
    if isinstance(error, Signalled):
        return "ended by a signal", error.exit_code
    if isinstance(error, KeyboardInterrupt | typer.Abort):
        return "interrupted", INTERRUPTED
    if isinstance(error, OSError) and error.errno is not None:
        where = error.filename if isinstance(error.filename, str) else _doing(error, arguments)
        return f"{where}: {error.strerror}", 2 if error.errno in _MISTAKES else 1
    if isinstance(error, UnicodeEncodeError) and error.reason == "surrogates not allowed":
        return f"{_doing(error, arguments)}: text must be UTF-8; got {error.object[:40]!a}", 2
    if isinstance(error, MemoryError):
        return f"{_doing(error, arguments)}: there is not enough memory; read or fit less at once", 1
    what = f"{type(error).__name__}: {error}"[:_LONGEST]
    return f"{_doing(error, arguments)}: an unexpected {what}; --debug shows where it arose: please {REPORT}", 1


def _doing(error: BaseException, arguments: Sequence[str]) -> str:
    """Which command, and which of its steps (see ``progress.Bars``)."""
    steps = [note for note in getattr(error, "__notes__", []) if note.startswith("while ")]
    return ", ".join([f"probekit {shlex.join(arguments)}"[:_LONGEST], *steps[:1]])


def end_on_signals() -> None:
    """SIGTERM and SIGHUP end a command as Ctrl-C does: what was begun is put away, and one line says so.

    Called once, by the process that is the command. What is ignored (``nohup``) stays so.
    """
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
