"""Where text leaves the program: nothing of the data's can steer a terminal, and none is lost on one that knows little.

Everything that the commands print goes through here. Names, labels, texts and messages may hold control characters
(an escape sequence can recolour, overwrite or retitle a terminal) or ones that reorder a line; they are shown as
escapes. Only what a program reads (CSV, JSON) keeps its bytes, where it goes to a file or a pipe.
"""

from __future__ import annotations

import csv
import io
import json
import os
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TextIO

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from probekit.plain import plain, plain_lines

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "Screen",
    "UnprintedError",
    "finish",
    "on_terminal",
    "plain",
    "plain_table",
    "prepare_streams",
    "say",
    "screen",
    "show",
    "show_csv",
    "show_json",
]

_INSTEAD = {"→": ">", "²": "2", "…": "~", "×": "x", "±": "~", "–": "-", "│": "|", "┃": "|"}
"""On a terminal that has no such characters; as wide, so that columns stay columns."""


def plain_table(table: pd.DataFrame) -> pd.DataFrame:
    """A table for people: every text in it in one line and plain."""
    import pandas as pd

    texts = [name for name in table.columns if not pd.api.types.is_numeric_dtype(table[name].dtype)]
    shown = {name: [plain(v) if isinstance(v, str) else v for v in table[name]] for name in texts}
    return table.assign(**{n: pd.Series(v, index=table.index, dtype=table[n].dtype) for n, v in shown.items()})


class UnprintedError(OSError):
    """Standard output does not take what is printed: it is full or closed, or its reader is gone."""


class _Stdout(io.FileIO):
    """Whoever prints (rich, typer, csv), a failure can be told from that of another file."""

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data) or 0
        except OSError as error:
            raise UnprintedError(error.errno, error.strerror) from error


class Screen(Console):
    """rich's console for text that may be anybody's: rich's own colours are let through, the text's are not."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """What is to be printed, piece by piece."""
        for text, style, control in super().render(renderable, options):
            shown = text if control else _encodable(plain_lines(text), self.encoding)
            yield Segment(shown, style, control)

    def on_broken_pipe(self) -> None:
        """Nobody reads on: the error is for the boundary, as that of every other way to print."""
        raise  # noqa: PLE0704  (rich calls this while it handles the error)


def screen(*, stderr: bool = False, width: int | None = None) -> Screen:
    """A console on which brackets are brackets and not markup."""
    return Screen(stderr=stderr, width=width, highlight=False, markup=False, emoji=False)


def show(text: str) -> None:
    """A line on stdout, for people."""
    _write(plain_lines(text) + "\n")


def show_json(value: Any, *, indent: int | None = None) -> None:
    """JSON on stdout. (JSON has escapes of its own for most control characters, and for letters that can't be said.)"""
    encoding = str(getattr(sys.stdout, "encoding", None) or "utf-8").lower()
    text = json.dumps(value, indent=indent, ensure_ascii=not encoding.startswith("utf"))
    _write((plain_lines(text) if on_terminal() else text) + "\n")


def show_csv(rows: Iterable[Sequence[Any]]) -> None:
    """CSV on stdout; None is an empty cell."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    for row in rows:
        writer.writerow([plain(v) if isinstance(v, str) else v for v in row] if on_terminal() else row)
    _write(text.getvalue())


def say(text: str) -> None:
    """A line on stderr. Where stderr is full or closed nobody can be told, and the work goes on."""
    if sys.stderr is None:
        return
    try:
        print(plain(text), file=sys.stderr, flush=True)
    except OSError:
        _discard(sys.stderr)


def on_terminal() -> bool:
    """Whether somebody looks at stdout."""
    return sys.stdout is not None and sys.stdout.isatty()


def prepare_streams() -> None:
    """Make stdin, stdout and stderr safe to use: called once, by the process that is the command.

    Where one is closed, the next file to be opened (a cache) would get its number, and a library's warning would be
    written into it: the number is given to something that holds nothing and takes nothing. What a terminal can't show
    is shown as an escape.
    """
    for fd, name in ((0, "stdin"), (1, "stdout"), (2, "stderr")):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDONLY)  # the lowest free number: this one
            setattr(sys, name, open(fd, "r" if fd == 0 else "w", encoding="utf-8", closefd=False))  # noqa: SIM115
    raw = _Stdout(1, "w", closefd=False)
    buffer = io.BufferedWriter(raw)
    sys.stdout = io.TextIOWrapper(buffer, sys.stdout.encoding, "backslashreplace", line_buffering=raw.isatty())
    if isinstance(sys.stderr, io.TextIOWrapper):
        sys.stderr.reconfigure(errors="backslashreplace")


def finish(failed: BaseException | None) -> OSError | None:
    """Hand everything that was printed to the system; what it said if it would not take it, now or before."""
    unprinted: OSError | None = failed if isinstance(failed, UnprintedError) else None
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError as error:
        unprinted = unprinted or error
    if unprinted is not None:
        _discard(sys.stdout)
    return unprinted


def _write(text: str) -> None:
    if sys.stdout is not None:
        sys.stdout.write(text)
        sys.stdout.flush()


def _discard(stream: TextIO) -> None:
    """So that what is left in the stream makes no error of its own when Python ends."""
    with suppress(OSError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)


def _encodable(text: str, encoding: str) -> str:
    if text.isascii() or encoding.startswith("utf"):
        return text
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return "".join(_instead(c, encoding) for c in text)
    except LookupError:
        return text
    return text


def _instead(character: str, encoding: str) -> str:
    try:
        character.encode(encoding)
    except UnicodeEncodeError:
        code = ord(character)
        drawn = "#" if 0x2580 <= code < 0x25A0 else "-" if 0x2500 <= code < 0x2580 else "*"
        return _INSTEAD.get(character, drawn if 0x2500 <= code < 0x2900 else character)
    return character
