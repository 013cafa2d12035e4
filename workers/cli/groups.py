"""`workers groups`: how far the groups of a log are. A directory needs no writer."""

from __future__ import annotations

import dataclasses
from typing import Annotated

import typer

from eventlog.cli.address import Log, readable
from eventlog.cli.printing import print_table, say
from eventlog.cli.show import to_json
from workers.cli.app import EPILOG, app
from workers.cli.show import groups_table

EXAMPLES = """
[bold]Examples[/]

  workers groups images

  workers groups images --json | jq 'select(.dead_letters > 0) | .name'
"""


@app.command(epilog=EXAMPLES + "\n\n" + EPILOG)
def groups(
    log: Log,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object per group.")] = False,
) -> None:
    """List the groups: position, lag, in flight, members, redeliveries, dead letters."""
    with readable(log) as reading:
        reports = reading.groups()
    if as_json:
        for report in reports:
            say(to_json(dataclasses.asdict(report)))
        return
    if reports:
        print_table(groups_table(reports))
    else:
        say("no groups")
