"""`tail`: the last events of a log, or those of a range of numbers or times, and what follows.

Every event in the range is passed, and those that `--key` and `--where` choose are printed.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from typing import Annotated, Final

import typer

from eventlog import blocking
from eventlog.api.positions import SeekPosition, check_name
from eventlog.cli.address import Log, Readable, check_there, readable
from eventlog.cli.app import EPILOG, app
from eventlog.cli.bounds import stop_of
from eventlog.cli.lines import Line, line_for
from eventlog.cli.pace import SPEEDS, Pace, speed_of
from eventlog.cli.streams import check_output, utf8
from eventlog.errors import InvalidArgument
from eventlog.event.envelope import EventEnvelope
from eventlog.terminal.positions import PLACES, moment_of, position_of
from eventlog.terminal.show import JSON_FORMS
from eventlog.terminal.where import where_of

Chosen = Callable[[EventEnvelope], bool]
Passed = Iterator[tuple[int, EventEnvelope | None]]
"""Every event that is passed: its number, and itself if it is to be printed."""

COUNT_DEFAULT: Final = 10
LOOK_BACK: Final = 512
"""So many events are searched first for the last ones that are chosen, then twice as many."""
ACK_EVERY: Final = 100

TAIL_EXAMPLES = """
[bold]Examples[/]

  eventlog tail orders                         (the last 10 events)

  eventlog tail orders -n 100 --json | jq .event

  eventlog tail orders -f --from latest

  eventlog tail orders --since 15m --key customer-7 --key customer-8

  eventlog tail orders --since 2h --until 1h --where 'event.total > 100 and headers.source == "web"'

  eventlog tail orders --where 'startswith(key, "eu-") or event.items\\[0].sku in \\["a", "b"]'

  eventlog tail orders --from 2026-01-31T12:00:00+00:00 --format '{seq_no} {key} {event}'

  eventlog tail orders --format '{stored_at:%H:%M:%S} {event.total}'

  eventlog tail orders --at 2h --until 1h --speed 10x     (an hour again, in six minutes)

  eventlog tail orders -n 1 --full             (whole on a terminal, too)

  eventlog tail orders --latest-per-key        (what each key is now)

  eventlog tail orders -f --consumer billing --from last-acknowledged

[bold]Expressions of --where[/]

  The fields are seq_no, id, timestamp, stored_at, key, headers, cause, not_before, expires and
  event. Names after a dot or in brackets look into them, as event.a, headers\\["content-type"] and
  event\\[0]; what is not there is null. There are == != < <= > >=, in, and, or, not, parentheses,
  numbers, "texts", \\[lists], true, false, null, len(...) and startswith(VALUE, TEXT). A time is
  compared with a text such as "2026-01-31T12:00" or "15m".
"""


@app.command(epilog=f"{TAIL_EXAMPLES}\n\n{JSON_FORMS}\n\n{EPILOG}")
def tail(  # noqa: PLR0917 - typer calls it by name; these are options of a command line
    log: Log,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Wait for new events.")] = False,
    count: Annotated[
        int | None,
        typer.Option("-n", min=0, help="At most so many: the last ones, or the first of --from."),
    ] = None,
    start: Annotated[
        str | None,
        typer.Option(
            "--from", metavar="POSITION", help=f"The first one: last-acknowledged, {PLACES}"
        ),
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="Those since a time, or since 15m, 2h or 3d ago."),
    ] = None,
    until: Annotated[
        str | None,
        typer.Option(
            metavar="POSITION",
            help="Those from before a time (or 15m, 2h, 3d ago), or up to a number.",
        ),
    ] = None,
    keys: Annotated[
        list[str] | None,
        typer.Option("--key", help="Those of this key; may be given several times.", callback=utf8),
    ] = None,
    where: Annotated[
        str | None,
        typer.Option(
            metavar="EXPR", help="Those for which this is true: see below.", callback=utf8
        ),
    ] = None,
    consumer: Annotated[
        str | None,
        typer.Option(
            help="Acknowledge what is printed or passed over, as this consumer.", callback=utf8
        ),
    ] = None,
    latest_per_key: Annotated[
        bool,
        typer.Option(
            "--latest-per-key", help="The latest event of each key, but of those deleted since."
        ),
    ] = False,
    at: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="Those since a time, again at the pace of then."),
    ] = None,
    speed: Annotated[str | None, typer.Option(help=f"{SPEEDS}; for --at, by default 1x.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object per line.")] = False,
    template: Annotated[
        str | None,
        typer.Option("--format", help="A line, such as '{seq_no} {stored_at:%H:%M} {event.a}'."),
    ] = None,
    full: Annotated[
        bool, typer.Option("--full", help="Whole events on a terminal, too, as in a pipe.")
    ] = False,
) -> None:
    """Print events: the last ones, or those from a position on; -f goes on with new ones.

    A terminal gets number, time, key and event, cut to its width; a pipe gets number, tab and
    event, whole, but of arrays only dtype and sizes: --json has their values. Nothing is
    acknowledged without --consumer. A directory needs a writer only for -f and --consumer.
    """
    check_there(log)
    check_output()
    _check_together(consumer, until, follow=follow, latest_per_key=latest_per_key)
    chosen = _chosen(keys, where)
    if as_json and template is not None:
        raise InvalidArgument("--json and --format both say how a line looks: give one of them")
    line = line_for(as_json=as_json, template=template, full=full)
    pace = _pace(at, speed)
    if at is not None and (follow or start or since or consumer):
        raise InvalidArgument(
            "--at replays what is stored: leave out -f, --from, --since, --consumer"
        )
    asked = _asked(start, at or since, consumer)
    stop = None if until is None else _stop(log, until)
    if latest_per_key:
        latest = _latest_per_key(log, asked or SeekPosition.BEGINNING, chosen, stop, count)
        sys.stdout.writelines(line(one) + "\n" for one in latest)
        return
    position = asked or _start_of_last(log, COUNT_DEFAULT if count is None else count, chosen, stop)
    limit = count if asked else None
    if follow or consumer:
        with blocking.open(log) as opened:
            stream = opened.subscribe(
                consumer or "tail", position, follow=follow, on_truncated="skip"
            )
            with stream as events:
                passed = _passed(events, chosen, limit, stop)
                _print_and_ack(opened, passed, line, consumer, at_once=follow)
        return
    with readable(log) as reading:
        for _, envelope in _passed(reading.stored_from(position), chosen, limit, stop):
            if envelope is not None:
                if pace is not None:
                    pace.wait_for(envelope)
                _print(line(envelope))
                if pace is not None:
                    sys.stdout.flush()


def _pace(at: str | None, speed: str | None) -> Pace | None:
    """The pace at which stored events come again; `None` if they come as they are read.

    Raises:
        InvalidArgument: there is a speed, and nothing that comes again; or it is none.
    """
    if at is None and speed is not None:
        raise InvalidArgument("--speed is how fast events come again from --at on: give both")
    factor = speed_of(speed or "1x")
    return None if at is None or factor is None else Pace(factor)


def _check_together(
    consumer: str | None, until: str | None, *, follow: bool, latest_per_key: bool
) -> None:
    """Pass if these options go together.

    Raises:
        InvalidArgument, InvalidName: they do not, or the consumer's name is none.
    """
    if consumer is not None:
        check_name(consumer)
    if follow and until is not None:
        raise InvalidArgument("--until ends at a place and -f never ends: give one of them")
    if latest_per_key and (follow or consumer is not None):
        raise InvalidArgument(
            "--latest-per-key prints what is stored by now: leave out -f and --consumer"
        )


def _latest_per_key(
    log: str, position: SeekPosition, chosen: Chosen | None, stop: int | None, count: int | None
) -> list[EventEnvelope]:
    """The latest event of each key in the range; of these the last ones that are chosen."""
    latest: dict[str, EventEnvelope] = {}
    with readable(log) as reading:
        for _, envelope in _passed(reading.stored_from(position), None, None, stop):
            if envelope is None or envelope.key is None:
                continue
            latest.pop(envelope.key, None)  # the order is that of the numbers
            if not envelope.is_deletion:
                latest[envelope.key] = envelope
    found = [one for one in latest.values() if chosen is None or chosen(one)]
    return found if count is None else found[max(len(found) - count, 0) :]


def _chosen(keys: list[str] | None, where: str | None) -> Chosen | None:
    """What `--key` and `--where` choose; `None` if that is every event."""
    is_meant = None if where is None else where_of(where)
    if not keys:
        return is_meant
    wanted = frozenset(keys)
    if is_meant is None:
        return lambda envelope: envelope.key in wanted
    return lambda envelope: envelope.key in wanted and is_meant(envelope)


def _asked(start: str | None, since: str | None, consumer: str | None) -> SeekPosition | None:
    """Where to begin, if an option says it."""
    if start is not None and since is not None:
        raise InvalidArgument("--from and --since both say where to begin: give one of them")
    if since is not None:
        return SeekPosition.timestamp(moment_of(since))
    if start == "last-acknowledged" and consumer is None:
        raise InvalidArgument("--from last-acknowledged needs --consumer: whose position?")
    if start is not None:
        return position_of(start)
    return None if consumer is None else SeekPosition.LAST_ACKNOWLEDGED


def _stop(log: str, until: str) -> int | None:
    """The number after the last event; `None` if all that are stored are meant."""
    with readable(log) as reading:
        return stop_of(reading, until, "--until")


def _start_of_last(log: str, count: int, chosen: Chosen | None, stop: int | None) -> SeekPosition:
    """Where the last `count` events begin, of those that are chosen."""
    with readable(log) as reading:
        first, end = reading.bounds()
        stop = end if stop is None else min(stop, end)
        if chosen is None:
            return SeekPosition.sequence(max(stop - count, first))
        return SeekPosition.sequence(_look_back(reading, count, chosen, first, stop))


def _look_back(reading: Readable, count: int, chosen: Chosen, first: int, stop: int) -> int:
    """The number of the `count`th last event that is chosen, or of the first one that there is."""
    number, window = stop, LOOK_BACK
    while count > 0 and stop > first:
        start = max(stop - window, first)
        found: deque[int] = deque(maxlen=count)
        with closing(reading.stored_from(SeekPosition.sequence(start))) as events:
            passed = _passed(events, chosen, None, stop)
            found.extend(seq_no for seq_no, envelope in passed if envelope is not None)
        number = found[0] if found else number
        count -= len(found)
        stop, window = start, 2 * window
    return number


def _passed(
    events: Iterable[EventEnvelope], chosen: Chosen | None, limit: int | None, stop: int | None
) -> Passed:
    """The events before `stop`, until `limit` of them are chosen, without waiting for one more."""
    left = limit
    if left == 0:
        return
    for envelope in events:
        seq_no = envelope.seq_no or 0
        if stop is not None and seq_no >= stop:
            return
        is_chosen = chosen is None or chosen(envelope)
        yield seq_no, envelope if is_chosen else None
        if is_chosen and left is not None:
            left -= 1
            if left == 0:
                return


def _print_and_ack(
    log: blocking.EventLog, passed: Passed, line: Line, consumer: str | None, *, at_once: bool
) -> None:
    """Print, and acknowledge what has been passed: with each line, or in groups."""
    done = acked = 0
    try:
        for seq_no, envelope in passed:
            if envelope is not None:
                _print(line(envelope))
                if at_once:
                    sys.stdout.flush()
            done = seq_no
            is_due = (at_once and envelope is not None) or done - acked >= ACK_EVERY
            if consumer and is_due:
                acked = _ack_passed(log, consumer, done)
    finally:
        if consumer and done != acked:
            _ack_passed(log, consumer, done)


def _ack_passed(log: blocking.EventLog, consumer: str, seq_no: int) -> int:
    """Acknowledge, after the lines have left this process."""
    sys.stdout.flush()
    log.ack(consumer, seq_no)
    return seq_no


def _print(line: str) -> None:
    sys.stdout.write(line + "\n")
