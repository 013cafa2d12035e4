"""`backup`: a consistent copy of a log that may be at work."""

from __future__ import annotations

import dataclasses
import signal
import sys
from types import FrameType
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from eventlog.cli.address import LogFiles, check_directory
from eventlog.cli.app import EPILOG, app
from eventlog.local.storage.control import check_is_log
from eventlog.terminal.printing import say
from eventlog.terminal.show import to_json
from eventlog.tools.backup import back_up

EXAMPLES = """
[bold]Examples[/]

  eventlog backup orders /backups/orders-2026-01-31

  eventlog backup orders copy && eventlog verify copy

[bold]What is in it[/]

  All events up to the last one that was stored when it began, or a little later; the positions of
  consumers, groups and dead letters, none of them ahead of the events. Not the members of groups:
  what they have in their hands is handed out again in the copy. The copy is a log of its own.
"""


@app.command(epilog=EXAMPLES + "\n\n" + EPILOG)
def backup(
    log: LogFiles,
    target: Annotated[str, typer.Argument(help="Where to; a directory that is made now.")],
    as_json: Annotated[bool, typer.Option("--json", help="Say it as JSON.")] = False,
) -> None:
    """Copy a log, also while it is written, so that the copy opens as a log.

    Nothing has to be stopped, and a writer is not asked. The target must not be there, or be empty;
    it gets its name when the copy is whole and on the disk, so an interrupted one leaves nothing.
    """
    check_directory(log, "backup")
    check_directory(target, "backup")
    check_is_log(log)
    signal.signal(signal.SIGTERM, _end)
    console = Console(stderr=True, highlight=False)
    columns = (TextColumn("copying"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task("copying", total=None)
        made = back_up(log, target, lambda done, all_: bar.update(task, completed=done, total=all_))
    if as_json:
        say(to_json(dataclasses.asdict(made)))
        return
    what = "no events"
    if made.first_seq_no is not None:
        what = f"the events {made.first_seq_no:,} to {made.last_seq_no:,}"
    say(f"{target}: {what} in {made.segments:,} segments, {made.bytes:,} bytes")


def _end(number: int, _frame: FrameType | None) -> None:
    """So that what is half-made is removed."""
    sys.exit(128 + number)
