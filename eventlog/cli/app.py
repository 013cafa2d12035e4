"""The commands together: what ends how, and errors in words instead of tracebacks."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Annotated, Any, Final, NoReturn

import typer
from typer.core import TyperGroup

import eventlog
from eventlog.cli.streams import prepare_streams
from eventlog.errors import (
    EventLogError,
    InvalidArgument,
    InvalidArgumentType,
    InvalidConfig,
    InvalidName,
    LogInUse,
    LogNotFound,
    NotALog,
    NotSupported,
)
from eventlog.terminal.printing import clean_lines, fail_with, say

FAILED: Final = 1
USAGE: Final = 2
WRONG_USE: Final = (
    LogNotFound,
    NotALog,
    LogInUse,
    InvalidArgument,
    InvalidArgumentType,
    InvalidConfig,
    InvalidName,
    NotSupported,
)
COMMANDS: Final = {
    "backup": ["backup"],
    "bench": ["bench"],
    "configure": ["config", "trim"],
    "consume": ["ack", "seek", "forget", "consumers"],
    "demo": ["demo"],
    "doctor": ["doctor"],
    "inspect": ["status", "verify"],
    "listing": ["ls"],
    "mirror": ["mirror", "compare"],
    "operate": ["create", "delete", "stop", "restart"],
    "produce": ["append"],
    "query": ["query"],
    "serve": ["serve"],
    "tail": ["tail"],
    "top": ["top"],
    "ui": ["ui"],
    "export": ["export"],
    "transfer": ["import"],
}
"""The commands of each module, in the order of the help."""
NESTING_MAX: Final = 10_000
"""Frames of Python for payloads as deep as MessagePack allows."""
EPILOG: Final = "Exit codes: 0 done, 1 failed, 2 wrong usage or no log there, 130 interrupted."


class QuietInAPipe(TyperGroup):
    """Whoever reads our output may leave when he has seen enough: that is no failure."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        try:
            result = super().invoke(ctx)
            if sys.stdout is not None:  # as with `>&-`
                sys.stdout.flush()
        except BrokenPipeError:
            _drop_output()
            raise typer.Exit(0) from None
        except OSError as error:
            if error.filename is not None:
                raise
            _drop_output()
            fail_with(f"the output cannot be written: {error.strerror}")
            raise typer.Exit(FAILED) from None
        except Exception as error:
            _clean_usage_error(error)
            raise
        return result


def _clean_usage_error(error: Exception) -> None:
    """What typer prints of a wrong argument quotes it, which may hold anything."""
    message = getattr(error, "message", None)
    if hasattr(error, "format_message") and isinstance(message, str):
        error.message = clean_lines(message)  # type: ignore[attr-defined]  # it has one


def _drop_output() -> None:
    """What is still buffered must not be written at the end of the process."""
    if sys.stdout is not None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


app = typer.Typer(
    name="eventlog",
    cls=QuietInAPipe,
    help="A persistent, ordered, replayable event log for the processes of one machine.",
    epilog=EPILOG,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)


def _print_version(asked: bool) -> None:
    if asked:
        say(f"eventlog {eventlog.__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Say which.")
    ] = False,
) -> None:
    """What stands before a command."""


def register(first: Sequence[str]) -> None:
    """Import the module of the command, if `first` is one; else all of them, as for help."""
    modules = [module for module, names in COMMANDS.items() if {*first} & {*names}]
    for module in modules or COMMANDS:
        import_module(f"eventlog.cli.{module}")


def run() -> NoReturn:
    """Parse the arguments, run the command, and end the process with its exit code."""
    register(sys.argv[1:2])
    sys.setrecursionlimit(NESTING_MAX)
    prepare_streams()
    try:
        app(prog_name="eventlog")  # ends the process, also with 2 for wrong usage, 130 for Ctrl-C
    except EventLogError as error:
        fail_with(str(error))
        sys.exit(USAGE if isinstance(error, WRONG_USE) else FAILED)
    sys.exit(0)
