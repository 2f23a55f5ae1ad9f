"""Progress bars and notes on stderr."""

from __future__ import annotations

import time

from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from probekit.cli.screen import plain, say, screen

QUIET_SECONDS = 10.0  # between lines where stderr is no terminal


class _Rate(ProgressColumn):
    """Units per second."""

    def render(self, task: Task) -> Text:
        """The rate, once there is one."""
        unit = task.fields.get("unit", "")
        return Text(f"{task.speed:,.0f} {unit}/s" if task.speed and unit else "", style="dim")


class Bars:
    """A listener (``spec.Listener``): a bar per stage, or where stderr is no terminal a line now and then."""

    def __init__(self) -> None:
        self.console = screen(stderr=True)
        self._bars = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f}%"),
            _Rate(),
            TimeRemainingColumn(elapsed_when_finished=True),
            console=self.console,
            disable=not self.console.is_terminal,
        )
        self._task: TaskID | None = None
        self._stage, self._total, self._unit = "", 0, ""
        self._printed = time.monotonic()

    def __enter__(self) -> Bars:
        self._bars.start()
        return self

    def __exit__(self, _kind: type[BaseException] | None, error: BaseException | None, _trace: object) -> None:
        if error is not None and self._stage:
            error.add_note(f"while {self._stage}")  # for the line that says what went wrong
        if error is None:
            self._finish()
        self._bars.stop()

    def stage(self, name: str, *, total: int, unit: str) -> None:
        """A new bar; one without ``total`` spins."""
        self._finish()
        self._stage, self._total, self._unit = name, total, unit
        self._task = self._bars.add_task(plain(name), total=total or None, unit=unit)
        if self._bars.disable:
            say(f"{name} ...")
            self._printed = time.monotonic()

    def advance(self, done: int) -> None:
        """Move the bar."""
        if self._task is not None:
            self._bars.update(self._task, completed=done)
        if self._bars.disable and time.monotonic() - self._printed > QUIET_SECONDS:
            self._printed = time.monotonic()
            say(f"{self._stage}: {done:,} of {self._total:,} {self._unit}")

    def note(self, text: str) -> None:
        """A line above the bars."""
        if self._bars.disable:
            say(text)
        else:
            self.console.print(plain(text), style="dim", soft_wrap=True)

    def _finish(self) -> None:
        if self._task is not None:
            task = self._bars.tasks[-1]
            self._bars.update(self._task, total=task.total or 1, completed=task.total or 1)
            self._task = None
