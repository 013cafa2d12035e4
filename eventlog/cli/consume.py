"""`ack`, `seek`, `consumers`, `forget`: the positions in a log."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated, Final

import typer
from rich.table import Table

from eventlog import blocking
from eventlog.api.positions import ConsumerState
from eventlog.cli.address import Log, check_there, readable
from eventlog.cli.app import EPILOG, FAILED, app
from eventlog.cli.streams import standard_input, utf8
from eventlog.config import STATE_BYTES_MAX
from eventlog.errors import InvalidArgument
from eventlog.monitor.preview import preview_seek
from eventlog.terminal.positions import PLACES, position_of
from eventlog.terminal.printing import cell, complain, counted, is_terminal, print_table, say
from eventlog.terminal.show import to_json

RUNS_S: Final = 10
"""A consumer that has moved its position so many seconds ago may still run."""
Consumer = Annotated[str, typer.Argument(help="The consumer's name.", callback=utf8)]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object per line.")]

ACK_EXAMPLES = """
[bold]Examples[/]

  eventlog ack orders billing 1042

  eventlog ack orders billing 1042 --state-file totals.json
"""
SEEK_EXAMPLES = """
[bold]Examples[/]

  eventlog seek orders billing beginning

  eventlog seek orders billing 15m             (events of the last quarter of an hour again)

  eventlog seek orders billing 40000 --dry-run
"""
CONSUMERS_EXAMPLES = """
[bold]Examples[/]

  eventlog consumers orders --json

  eventlog consumers orders --max-lag 10000 > /dev/null || mail -s 'orders lag' ops
"""


@app.command(epilog=ACK_EXAMPLES + "\n\n" + EPILOG)
def ack(
    log: Log,
    consumer: Consumer,
    seq_no: Annotated[int, typer.Argument(help="The last event that is processed.")],
    state_file: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Store its content as the consumer's state; - is stdin."),
    ] = None,
) -> None:
    """Say that a consumer has processed everything up to and including an event.

    With --state-file the state is stored in the same step as the position. Without it, moving on
    drops the state that the consumer has.
    """
    check_there(log)
    state = None if state_file is None else _state_in(state_file)
    with blocking.open(log) as opened:
        opened.ack(consumer, seq_no, state)


def _state_in(path: str) -> bytes:
    """What is in the file, as far as it may be a state, and a byte more.

    Raises:
        InvalidArgument: it cannot be read.
    """
    if path == "-":
        return standard_input("give the state there, or a file").read(STATE_BYTES_MAX + 1)
    try:
        with open(path, "rb") as file:
            return file.read(STATE_BYTES_MAX + 1)
    except OSError as error:
        raise InvalidArgument(f"the file {path} cannot be read ({error.strerror})") from None


@app.command(epilog=SEEK_EXAMPLES + "\n\n" + EPILOG)
def seek(
    log: Log,
    consumer: Consumer,
    position: Annotated[str, typer.Argument(help=PLACES.capitalize())],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would change.")] = False,
) -> None:
    """Set where a consumer's next subscription from its position starts.

    Stop the consumer first: while it runs, its next acknowledgement moves the position again.
    On a terminal it says from where to where, and how many events come again.
    """
    check_there(log)
    target = position_of(position)
    with blocking.open(log) as opened:
        if dry_run or is_terminal():
            say(str(preview_seek(opened, consumer, target)))
        if dry_run:
            return
        runs = _ran_just_now(opened, consumer)
        opened.seek(consumer, target)
        last = opened.last_seq_no() or 0
    if runs:
        complain(
            f"note: {consumer} moved its position in the last {RUNS_S} seconds; if it still runs,"
            " its next acknowledgement moves it again: stop the consumer first, then seek"
        )
    if target.kind == "sequence" and target.value > last + 1:
        complain(f"note: the last event is {last}; {consumer} will wait for event {target.value}")


def _ran_just_now(log: blocking.EventLog, consumer: str) -> bool:
    since = datetime.now(UTC) - timedelta(seconds=RUNS_S)
    return any(one.name == consumer and one.last_seen > since for one in log.consumers())


@app.command(epilog="[bold]Example[/]\n\n  eventlog forget orders billing\n\n" + EPILOG)
def forget(log: Log, consumer: Consumer) -> None:
    """Remove a consumer, so that it holds no retention back."""
    check_there(log)
    with blocking.open(log) as opened:
        opened.forget(consumer)


@app.command(epilog=CONSUMERS_EXAMPLES + "\n\n" + EPILOG)
def consumers(
    log: Log,
    max_lag: Annotated[
        int | None,
        typer.Option(min=0, metavar="N", help="Exit code 1 if one is further behind than that."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List the consumers, their positions and their lag.

    For alerts: with --max-lag, a line on the standard error names each consumer that is too far
    behind.
    """
    with readable(log) as reading:
        states = reading.consumers()
    _print_consumers(states, as_json=as_json)
    late = [one for one in states if max_lag is not None and one.lag > max_lag]
    for one in late:
        complain(
            f"consumer {one.name} is {counted(one.lag, 'event')} behind, more than {max_lag:,}"
        )
    if late:
        raise typer.Exit(FAILED)


def _print_consumers(states: list[ConsumerState], *, as_json: bool) -> None:
    if as_json:
        for state in states:
            say(to_json(_fields(state)))
        return
    table = Table("consumer", "last acknowledged", "lag", "last seen", "state")
    for state in states:
        acked = "-" if state.last_acked is None else f"{state.last_acked:,}"
        seen = state.last_seen.astimezone().isoformat(" ", "seconds")
        kept = "-" if state.state is None else counted(len(state.state), "byte")
        table.add_row(cell(state.name), acked, f"{state.lag:,}", seen, kept)
    if states:
        print_table(table)
    else:
        say("no consumers")


def _fields(state: ConsumerState) -> dict[str, object]:
    return {
        "name": state.name,
        "last_acked": state.last_acked,
        "lag": state.lag,
        "last_seen": state.last_seen.isoformat(),
        "state_bytes": None if state.state is None else len(state.state),
    }
