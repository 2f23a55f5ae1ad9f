"""The command line: the only place that prints and wires."""

from __future__ import annotations

import os
import sys

import typer

import probekit
from probekit.cli.demo import demo
from probekit.cli.extract import extract
from probekit.cli.inspect import inspect, verify
from probekit.cli.predict import predict
from probekit.cli.probe import probe
from probekit.errors import ProbekitError

app = typer.Typer(
    name="probekit",
    help="Which layer of an open-source LLM knows X, and how well can a cheap head read it?",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (extract, probe, predict, inspect, verify, demo):
    app.command()(command)


@app.callback(invoke_without_command=True)
def options(
    context: typer.Context,
    debug: bool = typer.Option(False, "--debug", help="Show the traceback of an error."),  # noqa: ARG001  (see run)
    version: bool = typer.Option(False, "--version", help="Show the version and stop."),
) -> None:
    """Which layer of an open-source LLM knows X, and how well can a cheap head read it?"""
    if version:
        typer.echo(f"probekit {probekit.__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


_INTERRUPTED = 130

_USAGE_ERROR: type[typer.BadParameter] = typer.BadParameter.__bases__[0]
"""Base of all errors in the use of options; typer has a click of its own or not, depending on its version."""


def main() -> None:
    """Run a command: exit code 0, 2 for a mistake of the user's, 1 for a failure, 130 for an interruption."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """``main`` for given arguments, returning the exit code."""
    debug = "--debug" in arguments  # before or after the command's name
    try:
        code = app(
            [argument for argument in arguments if argument != "--debug"], standalone_mode=False, prog_name="probekit"
        )
        if code == _INTERRUPTED:  # how typer hands on a Ctrl-C
            return _fail("interrupted", _INTERRUPTED)
        return int(code or 0)
    except _USAGE_ERROR as error:
        return _fail(f"{error.format_message()} (see probekit {_command(arguments)}-h)", 2)
    except ProbekitError as error:
        if debug:
            raise
        return _fail(str(error), error.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        return _fail("interrupted", _INTERRUPTED)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # so that the last flush stays quiet too
        return 0


def _command(arguments: list[str]) -> str:
    """The command among ``arguments`` with a blank after it, if there is one."""
    names = [info.name or info.callback.__name__ for info in app.registered_commands if info.callback]
    return next((f"{name} " for name in arguments if name in names), "")


def _fail(message: str, code: int) -> int:
    typer.echo("error: " + " ".join(message.split()), err=True)
    return code
