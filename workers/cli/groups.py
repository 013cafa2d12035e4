"""`workers groups`: how far the groups of a log are. A directory needs no writer."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Annotated

import typer

from eventlog import GroupReport
from eventlog.cli.address import Log, readable
from eventlog.terminal.printing import complain, counted, print_table, say
from eventlog.terminal.show import to_json
from workers.cli.app import EPILOG, FAILED, app
from workers.cli.show import groups_table

EXAMPLES = """
[bold]Examples[/]

  workers groups images

  workers groups images --json | jq 'select(.dead_letters > 0) | .name'

  workers groups images --max-lag 10000 --max-dead 0 > /dev/null || mail -s 'images' ops
"""


@app.command(epilog=EXAMPLES + "\n\n" + EPILOG)
def groups(
    log: Log,
    max_lag: Annotated[
        int | None,
        typer.Option(min=0, metavar="N", help="Exit code 1 if one is further behind than that."),
    ] = None,
    max_dead: Annotated[
        int | None,
        typer.Option(min=0, metavar="N", help="Exit code 1 if one has more dead letters."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object per group.")] = False,
) -> None:
    """List the groups: position, lag, in flight, members, redeliveries, dead letters.

    For alerts: with --max-lag or --max-dead, a line on the standard error names each group that is
    beyond it.
    """
    with readable(log) as reading:
        reports = reading.groups()
    _print_groups(reports, as_json=as_json)
    beyond = [*_beyond(reports, max_lag, max_dead)]
    for line in beyond:
        complain(line)
    if beyond:
        raise typer.Exit(FAILED)


def _beyond(reports: list[GroupReport], max_lag: int | None, max_dead: int | None) -> Iterator[str]:
    for one in reports:
        if max_lag is not None and one.lag > max_lag:
            lag = counted(one.lag, "event")
            yield f"group {one.name} is {lag} behind, more than {max_lag:,}"
        if max_dead is not None and one.dead_letters > max_dead:
            letters = counted(one.dead_letters, "dead letter")
            yield f"group {one.name} has {letters}, more than {max_dead:,}"


def _print_groups(reports: list[GroupReport], *, as_json: bool) -> None:
    if as_json:
        for report in reports:
            say(to_json(dataclasses.asdict(report)))
        return
    if reports:
        print_table(groups_table(reports))
    else:
        say("no groups")
