"""The one error tree: every error says which input, what is allowed, and what it got."""

from __future__ import annotations


class ProbekitError(Exception):
    """Base of all errors that probekit raises on purpose.

    The message has three parts: ``source`` (which input: a file and row, a flag, a column), ``allowed``
    (what would have been right) and ``got`` (what was there instead; left out where ``source`` shows it).

    >>> str(ProbekitError("--layers 40", "this cache has layers 0..12"))
    '--layers 40: this cache has layers 0..12'
    >>> str(ProbekitError("train.csv, row 3, column 'text'", "text must not be empty", "''"))
    "train.csv, row 3, column 'text': text must not be empty; got ''"
    """

    exit_code = 1

    def __init__(self, source: str, allowed: str, got: str = "") -> None:
        super().__init__(source, allowed, got)
        self.source = source
        self.allowed = allowed
        self.got = got

    def __str__(self) -> str:
        message = f"{self.source}: {self.allowed}"
        return f"{message}; got {self.got}" if self.got else message


class UserError(ProbekitError):
    """A mistake in what the user asked for or handed in; the command line exits with 2."""

    exit_code = 2


class InputError(UserError):
    """A data file, a row or a column is not usable."""


class SpecError(UserError):
    """An option or argument has a value that is not allowed."""


def missing_package(source: str, package: str, extra: str) -> SpecError:
    """``source`` needs a package that is not there; ``extra``: of ours that has it."""
    return SpecError(source, f"needs the package {package}: in the clone, pip install -c constraints.txt '.[{extra}]'")


class ModelError(UserError):
    """The model or tokenizer can't be found, loaded or used as asked."""


class CacheError(UserError):
    """A cache file is missing, foreign, damaged or unfinished."""


class StaleCacheError(CacheError):
    """A cache exists under this name, made from something else; ``source`` names the field that differs."""


class DiskError(ProbekitError):
    """The disk is full or a write failed."""


class NonFiniteError(ProbekitError):
    """A hidden state is NaN or infinite, or does not fit the storage dtype."""


class OutOfMemoryError(ProbekitError):
    """A single row does not fit into the device's memory."""


class WorkerError(ProbekitError):
    """A process that fitted layers was killed."""


class StoppedError(ProbekitError):
    """Ctrl-C in the middle of a run; says what is kept and how to go on."""

    exit_code = 130  # 128 + SIGINT, as shells have it
