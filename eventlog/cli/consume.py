"""`tail`, `ack`, `seek`, `consumers`, `forget`: reading a log, and the positions in it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import islice
from typing import Annotated

import typer
from rich.table import Table

from eventlog import blocking
from eventlog.api.positions import ConsumerState, SeekPosition, check_name
from eventlog.cli.address import Log, check_there, readable
from eventlog.cli.app import EPILOG, app
from eventlog.cli.printing import cell, complain, print_table, say
from eventlog.cli.show import envelope_line, position_of, to_json
from eventlog.cli.streams import check_output, utf8
from eventlog.errors import InvalidArgument
from eventlog.event.envelope import EventEnvelope

Consumer = Annotated[str, typer.Argument(help="The consumer's name.", callback=utf8)]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object per line.")]
ACK_EVERY = 100

TAIL_EXAMPLES = """
[bold]Examples[/]

  eventlog tail orders                         (the last 10 events)

  eventlog tail orders -n 100 --json | jq .event

  eventlog tail orders -f --from latest

  eventlog tail orders --from 2026-01-31T12:00:00+00:00 --format '{seq_no} {key} {event}'

  eventlog tail orders -f --consumer billing --from last-acknowledged
"""


@app.command(epilog=TAIL_EXAMPLES + "\n\n" + EPILOG)
def tail(  # noqa: PLR0917 - typer calls it by name; these are options of a command line
    log: Log,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Wait for new events.")] = False,
    count: Annotated[
        int | None,
        typer.Option("-n", min=0, help="At most so many: the last ones, or the first of --from."),
    ] = None,
    start: Annotated[
        str | None,
        typer.Option("--from", help="beginning, latest, last-acknowledged, a number, or a time."),
    ] = None,
    consumer: Annotated[
        str | None,
        typer.Option(help="Acknowledge what is printed, as this consumer.", callback=utf8),
    ] = None,
    as_json: AsJson = False,
    template: Annotated[
        str | None, typer.Option("--format", help="A line, such as '{seq_no} {event}'.")
    ] = None,
) -> None:
    """Print events: the last ones, or those from a position on; -f goes on with new ones.

    Nothing is acknowledged without --consumer. A directory needs a writer only for -f and
    --consumer.
    """
    check_there(log)
    check_output()
    if consumer is not None:
        check_name(consumer)
    position = _start(log, start, count, consumer)
    line = partial(envelope_line, as_json=as_json, template=template)
    limit = count if start is not None or consumer is not None else None
    if follow or consumer:
        with blocking.open(log) as opened:
            stream = opened.subscribe(
                consumer or "tail", position, follow=follow, on_truncated="skip"
            )
            with stream as events:
                _print_and_ack(opened, _limited(events, limit), line, consumer, at_once=follow)
        return
    with readable(log) as reading:
        for envelope in _limited(reading.stored_from(position), limit):
            _print(line(envelope))


def _start(log: str, start: str | None, count: int | None, consumer: str | None) -> SeekPosition:
    if start is not None:
        if start == "last-acknowledged" and consumer is None:
            raise InvalidArgument("--from last-acknowledged needs --consumer: whose position?")
        return position_of(start)
    if consumer is not None:
        return SeekPosition.LAST_ACKNOWLEDGED
    with readable(log) as reading:
        first, stop = reading.bounds()
    wanted = 10 if count is None else count
    return SeekPosition.sequence(max(stop - wanted, first))


def _print_and_ack(
    log: blocking.EventLog,
    events: Iterator[EventEnvelope],
    line: Callable[[EventEnvelope], str],
    consumer: str | None,
    *,
    at_once: bool,
) -> None:
    """Print, and acknowledge what has been printed: at once, or in groups."""
    printed = acked = 0
    try:
        for envelope in events:
            _print(line(envelope))
            if at_once:
                sys.stdout.flush()
            printed = envelope.seq_no or 0
            if consumer and (at_once or printed - acked >= ACK_EVERY):
                acked = _ack_printed(log, consumer, printed)
    finally:
        if consumer and printed != acked:
            _ack_printed(log, consumer, printed)


def _ack_printed(log: blocking.EventLog, consumer: str, seq_no: int) -> int:
    """Acknowledge, after the lines have left this process."""
    sys.stdout.flush()
    log.ack(consumer, seq_no)
    return seq_no


def _limited(events: Iterable[EventEnvelope], limit: int | None) -> Iterator[EventEnvelope]:
    """The first `limit` events, without waiting for one more."""
    return islice(iter(events), limit)


def _print(line: str) -> None:
    sys.stdout.write(line + "\n")


@app.command(epilog="[bold]Example[/]\n\n  eventlog ack orders billing 1042\n\n" + EPILOG)
def ack(
    log: Log,
    consumer: Consumer,
    seq_no: Annotated[int, typer.Argument(help="The last event that is processed.")],
) -> None:
    """Say that a consumer has processed everything up to and including an event."""
    check_there(log)
    with blocking.open(log) as opened:
        opened.ack(consumer, seq_no)


@app.command(epilog="[bold]Example[/]\n\n  eventlog seek orders billing beginning\n\n" + EPILOG)
def seek(
    log: Log,
    consumer: Consumer,
    position: Annotated[
        str, typer.Argument(help="beginning, latest, a sequence number, or an ISO time.")
    ],
) -> None:
    """Set where a consumer's next subscription from its position starts."""
    check_there(log)
    target = position_of(position)
    with blocking.open(log) as opened:
        opened.seek(consumer, target)
        last = opened.last_seq_no() or 0
    if target.kind == "sequence" and target.value > last + 1:
        complain(f"note: the last event is {last}; {consumer} will wait for event {target.value}")


@app.command(epilog="[bold]Example[/]\n\n  eventlog forget orders billing\n\n" + EPILOG)
def forget(log: Log, consumer: Consumer) -> None:
    """Remove a consumer, so that it holds no retention back."""
    check_there(log)
    with blocking.open(log) as opened:
        opened.forget(consumer)


@app.command(epilog="[bold]Example[/]\n\n  eventlog consumers orders --json\n\n" + EPILOG)
def consumers(log: Log, as_json: AsJson = False) -> None:
    """List the consumers, their positions and their lag."""
    with readable(log) as reading:
        states = reading.consumers()
    if as_json:
        for state in states:
            say(to_json(_fields(state)))
        return
    table = Table("consumer", "last acknowledged", "lag", "last seen")
    for state in states:
        acked = "-" if state.last_acked is None else f"{state.last_acked:,}"
        seen = state.last_seen.astimezone().isoformat(" ", "seconds")
        table.add_row(cell(state.name), acked, f"{state.lag:,}", seen)
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
    }
