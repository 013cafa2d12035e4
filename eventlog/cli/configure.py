"""`config` and `trim`: what a log keeps."""

from __future__ import annotations

import dataclasses
from typing import Annotated, cast

import typer
from rich.table import Table

from eventlog import blocking
from eventlog.api.engines import is_directory
from eventlog.cli.address import Log, check_there
from eventlog.cli.app import EPILOG, app
from eventlog.cli.log_options import (
    KeepUnacked,
    MaxAge,
    MaxBytes,
    OnFull,
    changed_retention,
    option_fields,
    shown_options,
)
from eventlog.config import LogOptions
from eventlog.config import OnFull as OnFullOption
from eventlog.terminal.positions import moment_of
from eventlog.terminal.printing import cell, counted, print_table, say
from eventlog.terminal.show import to_json

AsJson = Annotated[bool, typer.Option("--json", help="Say it as JSON.")]

CONFIG_EXAMPLES = """
[bold]Examples[/]

  eventlog config orders                       (shows the options)

  eventlog config orders --max-bytes 10G --max-age 7d --keep-unacked no

  eventlog config orders --max-age none --json | jq .max_bytes
"""
TRIM_EXAMPLES = """
[bold]Examples[/]

  eventlog trim orders --before 1000000

  eventlog trim orders --before 30d

  eventlog trim orders --before 2026-01-31T12:00 --force
"""


@app.command(epilog=CONFIG_EXAMPLES + "\n\n" + EPILOG)
def config(
    log: Log,
    max_bytes: MaxBytes = None,
    max_age: MaxAge = None,
    keep_unacked: KeepUnacked = None,
    on_full: OnFull = None,
    as_json: AsJson = False,
) -> None:
    """Show the options of a log, or change some of them, for everybody and at once.

    Durability and the sizes of segments and events stay as the log was made.
    """
    check_there(log)
    known = _options_of(log)
    retention = changed_retention(known.retention, max_bytes, max_age, keep_unacked)
    if retention is not None or on_full is not None:
        with blocking.open(log) as opened:
            asked = cast("OnFullOption | None", on_full)
            known = opened.configure(retention=retention, on_full=asked)
    if as_json:
        say(to_json(option_fields(known)))
        return
    table = Table(show_header=False, box=None)
    for name, value in shown_options(known).items():
        table.add_row(cell(name, "bold"), cell(value))
    print_table(table)


def _options_of(log: str) -> LogOptions:
    """Those of a directory are read without its writer."""
    with blocking.open(log, start_writer=not is_directory(log)) as opened:
        return opened.configure()


@app.command(epilog=TRIM_EXAMPLES + "\n\n" + EPILOG)
def trim(
    log: Log,
    before: Annotated[
        str,
        typer.Option(
            metavar="N|TIME", help="A number, a time, or how long ago, such as 12h or 7d."
        ),
    ],
    force: Annotated[
        bool, typer.Option("--force", help="Also what a consumer has not acknowledged.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Delete events before a number or a time, in whole segments, and say how many.

    The segment that is written to stays. Nothing to delete is no error. What a consumer or a group
    has not acknowledged stays, with exit code 1, unless --force is given.
    """
    check_there(log)
    limit = int(before) if before.isascii() and before.isdecimal() else moment_of(before)
    with blocking.open(log) as opened:
        trimmed = opened.trim(limit, force=force)
    if as_json:
        say(to_json(dataclasses.asdict(trimmed)))
        return
    first = trimmed.first_available
    if trimmed.deleted:
        gone = f"the events {first - trimmed.deleted:,} to {first - 1:,}"
        say(f"deleted {counted(trimmed.deleted, 'event')}, {gone}; the first one is {first:,} now")
    else:
        say(f"nothing to delete: no whole segment is before {before}; the first event is {first:,}")
