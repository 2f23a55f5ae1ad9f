"""The command line: the only place that prints and wires."""

from __future__ import annotations

import errno
import os
import sys
import traceback
import warnings

import typer

import probekit
from probekit.cli.attention import attention
from probekit.cli.boundary import end_on_signals, explain_error
from probekit.cli.demo import demo
from probekit.cli.explain import explain
from probekit.cli.extract import extract
from probekit.cli.inspect import inspect, verify
from probekit.cli.intervene import intervene
from probekit.cli.predict import predict
from probekit.cli.probe import probe
from probekit.cli.screen import finish, prepare_streams, say
from probekit.cli.train import train

app = typer.Typer(
    name="probekit",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (extract, probe, train, predict, explain, attention, intervene, inspect, verify, demo):
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


_SIGNALS = 128
"""Exit codes above are those of signals."""


def main() -> None:
    """Run a command: exit code 0, 2 for a mistake of the user's, 1 for a failure, 130 for an interruption."""
    prepare_streams()
    end_on_signals()
    if not sys.warnoptions:
        warnings.simplefilter("ignore")  # what a user must know is said in probekit's own words
        os.environ["PYTHONWARNINGS"] = "ignore"  # in the processes that it starts, too
    try:
        code = run(sys.argv[1:])
    except (Exception, KeyboardInterrupt, SystemExit) as error:  # noqa: BLE001  (with --debug)
        for line in "".join(traceback.format_exception(error)).splitlines():
            say(line)
        _, code = explain_error(error, sys.argv[1:], _names())
    if code > _SIGNALS:
        os._exit(code)  # at once: what Python does at its end would take a second Ctrl-C for an error of its own
    sys.exit(code)


def run(arguments: list[str]) -> int:
    """``main`` for given arguments, returning the exit code: whatever happens, it is one line.

    With ``--debug`` what happened is raised.
    """
    debug = "--debug" in arguments  # before or after the command's name
    arguments = [argument for argument in arguments if argument != "--debug"]
    code, failed = 0, None
    try:
        code = _invoke(arguments)
    except (Exception, KeyboardInterrupt, SystemExit) as error:  # noqa: BLE001  (the one boundary)
        failed = error
    unprinted = finish(failed)
    if unprinted is not None and failed in (None, unprinted):
        if unprinted.errno == errno.EPIPE:  # the reader has seen enough
            return 0
        message, code = f"standard output: can't be written to: {unprinted.strerror}", 1
    elif failed is None:
        return code
    elif debug:
        raise failed
    else:
        message, code = explain_error(failed, arguments, _names())
    say("error: " + " ".join(message.split()))
    return code


def _invoke(arguments: list[str]) -> int:
    """Click's own ``main`` would take an EOFError of any library for a Ctrl-C."""
    try:
        os.getcwd()
    except OSError as error:
        raise OSError(error.errno, "must exist, but was removed", "the working folder") from error
    group = typer.main.get_command(app)
    try:
        with group.make_context("probekit", arguments) as context:
            group.invoke(context)
    except typer.Exit as end:
        return end.exit_code
    return 0


def _names() -> list[str]:
    return [info.callback.__name__ for info in app.registered_commands if info.callback]
