"""The commands together: what ends how, and errors in words instead of tracebacks."""

from __future__ import annotations

import sys
from typing import Annotated, Final, NoReturn

import typer

import eventlog
from eventlog import EventLogError
from eventlog.cli.app import (
    EPILOG,
    FAILED,
    NESTING_MAX,
    USAGE,
    WRONG_USE,
    QuietInAPipe,
)
from eventlog.cli.streams import prepare_streams
from eventlog.terminal.printing import complain, fail_with, say
from workers.errors import InvalidHandler, PoolFailed

__all__ = ["EPILOG", "FAILED", "app", "dead", "fail_with", "run"]

POOL_FAILED: Final = 3

app = typer.Typer(
    name="workers",
    cls=QuietInAPipe,
    help="Worker processes that share the events of a log.",
    epilog="Exit codes: 0 done, 1 failed, 2 wrong usage or no log there, 3 the pool failed.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)
dead = typer.Typer(
    help="Dead letters: events that used up their deliveries.",
    epilog=EPILOG,
    no_args_is_help=True,
    rich_markup_mode="rich",
)
app.add_typer(dead, name="dead")


def _print_version(asked: bool) -> None:
    if asked:
        say(f"workers {eventlog.__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Say which.")
    ] = False,
) -> None:
    """What stands before a command."""


def run() -> NoReturn:
    """Parse the arguments, run the command, and end the process with its exit code."""
    from workers.cli import dead, groups, replay, run  # noqa: F401 - they register their commands

    sys.setrecursionlimit(NESTING_MAX)
    prepare_streams()
    try:
        app(prog_name="workers")  # ends the process, also with 2 for wrong usage, 130 for Ctrl-C
    except EventLogError as error:
        fail_with(str(error))
        if isinstance(error, PoolFailed) and error.worker_traceback:
            complain(error.worker_traceback.rstrip("\n"))
        sys.exit(exit_code_of(error))
    sys.exit(0)


def exit_code_of(error: EventLogError) -> int:
    """The number by which a supervisor knows who has to act."""
    if isinstance(error, PoolFailed):
        return POOL_FAILED
    return USAGE if isinstance(error, (*WRONG_USE, InvalidHandler)) else FAILED
