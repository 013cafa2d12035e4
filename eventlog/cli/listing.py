"""`ls`: the logs below a folder, and those that a writer serves now."""

from __future__ import annotations

import dataclasses
import os
from typing import Annotated

import typer
from rich.table import Table

from eventlog.cli.app import EPILOG, app
from eventlog.errors import InvalidArgument
from eventlog.terminal.printing import cell, print_table, say
from eventlog.terminal.show import to_json
from eventlog.tools.finding import FoundLog, find_logs

EXAMPLES = """
[bold]Examples[/]

  eventlog ls                                  (below this folder, and whatever is served)

  eventlog ls /var/lib --json | jq -r 'select(.is_served) | .path'
"""


@app.command("ls", epilog=EXAMPLES + "\n\n" + EPILOG)
def list_logs(
    folder: Annotated[
        str | None, typer.Argument(help="Where to look; else here, and for all that are served.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object per log.")] = False,
) -> None:
    """List the logs below a folder, and without one also all that a writer serves now.

    Logs of other users are listed as far as you may see them, and say so.
    """
    if folder is not None and not os.path.isdir(folder):
        raise InvalidArgument(f"{folder} is no folder; give one that logs lie in")
    found = find_logs("." if folder is None else folder, everywhere=folder is None)
    if as_json:
        for one in found:
            say(to_json(dataclasses.asdict(one)))
        return
    if found:
        print_table(_table(found))
    else:
        say("no logs")


def _table(found: list[FoundLog]) -> Table:
    table = Table("log", "served by")
    for name in ("first", "last", "bytes"):
        table.add_column(name, justify="right")
    has_problems = any(one.problem for one in found)
    if has_problems:
        table.add_column("note")
    for one in found:
        numbers = (one.first_seq_no, one.last_seq_no, one.bytes)
        served = "a writer" if one.writer_pid is None else f"process {one.writer_pid}"
        table.add_row(
            cell(one.path),
            served if one.is_served else "-",
            *("-" if number is None else f"{number:,}" for number in numbers),
            *[cell(one.problem or "")] * has_problems,
        )
    return table
