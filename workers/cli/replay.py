"""`workers replay` and `workers compare`: handlers over stored events, without storing anything."""

from __future__ import annotations

import os
import re
import sys
import time
import traceback
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, suppress
from itertools import chain
from typing import Annotated, Any

import typer

from eventlog import EventEnvelope, EventLogError, InvalidArgument
from eventlog.cli.address import Log, Readable, readable
from eventlog.cli.bounds import bounds_of
from eventlog.cli.pace import SPEEDS, Pace, speed_of
from eventlog.cli.streams import utf8
from eventlog.terminal.positions import PLACES
from eventlog.terminal.printing import complain, counted, say
from eventlog.terminal.show import event_text, plain_event, to_json
from workers.cli.app import FAILED, app
from workers.failing import describe
from workers.foreground import Outcome, Running, in_foreground, outcome_of, run_all
from workers.handlers import Code
from workers.results import results_of

REPLAY_EXAMPLES = """
[bold]Examples[/]

  workers replay images --group resize --handler images.tasks:resize --event 1042

  workers replay images --group resize --handler images.tasks:resize --event 1042 --pdb

  workers replay images --handler images.tasks:resize --from 2h --to 1h --speed 10x

  workers replay images --handler images.tasks:resize --from beginning
"""
COMPARE_EXAMPLES = """
[bold]Examples[/]

  workers compare orders --handler old_billing:bill --handler billing:bill --from 3d

  workers compare orders --handler old:bill --handler new:bill --from 1000 --to 2000 --json
"""
REPLAY_EPILOG = (
    "Exit codes: 0 the handler returned, each time; 1 it failed, once or more often; 2 wrong usage,"
    " or no log or no such event there; 130 interrupted."
)
COMPARE_EPILOG = (
    "Exit codes: 0 they do the same; 1 they differ; 2 wrong usage or no log there; 130 interrupted."
)
Start = Annotated[
    str | None,
    typer.Option("--from", metavar="POSITION", help=f"The first event: {PLACES}"),
]
Stop = Annotated[
    str | None,
    typer.Option("--to", metavar="POSITION", help="The last event's number, or a time to stop at."),
]
EventType = Annotated[
    str | None,
    typer.Option("--type", metavar="MODULE:CLASS", help="What events are converted to."),
]


@app.command(epilog=REPLAY_EXAMPLES + "\n\n" + REPLAY_EPILOG)
def replay(  # noqa: PLR0917 - typer calls it by name; these are options of a command line
    log: Log,
    handler: Annotated[
        str, typer.Option(metavar="MODULE:FUNCTION", help="What is called with each event.")
    ],
    group: Annotated[
        str | None,
        typer.Option("--group", "-g", help="Whose attempts the events have.", callback=utf8),
    ] = None,
    event: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Only this event; its result is printed.")
    ] = None,
    start: Start = None,
    stop: Stop = None,
    speed: Annotated[str, typer.Option(help=f"{SPEEDS}; max does not wait.")] = "max",
    initializer: Annotated[
        str | None,
        typer.Option(metavar="MODULE:FUNCTION", help="What is called before the first event."),
    ] = None,
    event_type: EventType = None,
    debug: Annotated[
        bool, typer.Option("--pdb", help="Open the debugger where the handler has raised.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Say it as JSON.")] = False,
) -> None:
    """Call a handler with stored events, here and now. Nothing is stored: not even its results.

    It is given what a worker of the group would get: the envelope, with its number, cause and
    attempt. A directory is only read, whether or not a writer serves it.
    """
    if (event is None) == (start is None):
        raise InvalidArgument("give --event for one event, or --from for those from there on")
    pace = None if (factor := speed_of(speed)) is None else Pace(factor)
    code = Code(handler, initializer, type=event_type)
    with ExitStack() as stack:
        reading = stack.enter_context(readable(log))
        attempts = {} if group is None else reading.attempts(group)
        first, end = (event, event + 1) if event is not None else bounds_of(reading, start, stop)
        found = _with_attempts(reading.batches(first, end), attempts)
        if event is not None:
            check_stored(reading, log, event)
        running = stack.enter_context(_handler(code))
        if event is not None:
            [[envelope]] = found
            is_good = _show_one(running, envelope, debug=debug, as_json=as_json)
        else:
            found = found if pace is None else _paced(found, pace)
            is_good = _show_all(running, found, debug=debug, as_json=as_json)
    if not is_good:
        raise typer.Exit(FAILED)


def check_stored(reading: Readable, log: str, seq_no: int) -> None:
    """Pass if the event is there.

    Raises:
        InvalidArgument: it is not, yet or any more.
    """
    first, end = reading.bounds()
    if not first <= seq_no < end:
        held = f"has the events {first} to {end - 1}" if first < end else "is empty"
        raise InvalidArgument(
            f"event {seq_no} cannot be replayed: the log {log} {held}", path=log, seq_no=seq_no
        )


def _handler(code: Code) -> Any:
    with suppress(FileNotFoundError):  # the folder was deleted
        if os.getcwd() not in sys.path:
            sys.path.insert(0, os.getcwd())
    return in_foreground(code)


def _with_attempts(
    batches: Iterable[list[EventEnvelope]], attempts: dict[int, int]
) -> Iterator[list[EventEnvelope]]:
    """The events as their next delivery hands them out; of dead letters, as the last one did."""
    if not attempts:
        yield from batches
        return
    for events in batches:
        for envelope in events:
            if (attempt := attempts.get(envelope.seq_no or 0, 1)) > 1:
                envelope.columns.note_attempt(envelope.seq_no or 0, attempt)
        yield events


def _paced(batches: Iterable[list[EventEnvelope]], pace: Pace) -> Iterator[list[EventEnvelope]]:
    for envelope in chain.from_iterable(batches):
        pace.wait_for(envelope)
        yield [envelope]


def _show_one(running: Running, envelope: EventEnvelope, *, debug: bool, as_json: bool) -> bool:
    """One event, with what its handler has returned or raised; whether it has returned."""
    failure: BaseException | None = None
    results: tuple[Any, ...] = ()
    try:
        results = results_of(running.handle(envelope))
    except KeyboardInterrupt:
        raise  # it ends the command
    except BaseException as error:  # noqa: BLE001 - SystemExit too: the event failed
        failure = error
    if as_json:
        outcome = Outcome(results, None if failure is None else describe(failure))
        fields = {"seq_no": envelope.seq_no, "attempt": envelope.attempt}
        say(to_json(fields | _outcome_fields(outcome)))
    elif failure is None:
        for result in results:
            say(_result_text(result))
    if failure is not None:
        _tell_failure(envelope, failure, debug=debug)
    return failure is None


def _show_all(
    running: Running, batches: Iterable[list[EventEnvelope]], *, debug: bool, as_json: bool
) -> bool:
    """Event after event; whether none has failed."""

    def on_failure(envelope: EventEnvelope, error: BaseException) -> None:
        if as_json:
            say(to_json({"seq_no": envelope.seq_no, "error": describe(error)}))
        else:
            say(f"event {envelope.seq_no} failed: {describe(error)}")
        if debug:
            _tell_failure(envelope, error, debug=True)

    began_s = time.monotonic()
    handled, failed = run_all(running, batches, on_failure)
    seconds = time.monotonic() - began_s
    if as_json:
        say(to_json({"events": handled, "failed": failed, "seconds": round(seconds, 3)}))
    else:
        rate = f"{handled / seconds:,.0f} a second" if seconds else "at once"
        say(f"{counted(handled, 'event')}, {failed:,} failed, {seconds:.3f} s ({rate})")
    return not failed


def _tell_failure(envelope: EventEnvelope, error: BaseException, *, debug: bool) -> None:
    """The traceback, from the handler on; with the debugger, at the place of the exception."""
    place = error.__traceback__ and error.__traceback__.tb_next
    complain(f"event {envelope.seq_no}, attempt {envelope.attempt}:")
    complain("".join(traceback.format_exception(type(error), error, place)).rstrip("\n"))
    if debug:
        import pdb  # it takes a while

        pdb.post_mortem(error.__traceback__)


def _result_text(result: Any) -> str:
    event = result.event if isinstance(result, EventEnvelope) else result
    with suppress(EventLogError):  # nothing that a log could store
        return event_text(event)
    return repr(event)


@app.command(epilog=COMPARE_EXAMPLES + "\n\n" + COMPARE_EPILOG)
def compare(
    log: Log,
    handlers: Annotated[
        list[str],
        typer.Option("--handler", metavar="MODULE:FUNCTION", help="The old one, then the new one."),
    ],
    start: Start = "beginning",
    stop: Stop = None,
    event_type: EventType = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON object for each event, and one at the end.")
    ] = False,
) -> None:
    """Call two handlers with the same stored events, and show where they differ. Nothing is stored.

    They differ where one has raised and the other has not, or another error; and in what a pool
    would store of their results, but for ids and times. Each is given an event of its own.
    """
    if len(handlers) != 2:
        raise InvalidArgument(f"{len(handlers)} handlers are given; give --handler twice")
    with ExitStack() as stack:
        reading = stack.enter_context(readable(log))
        bounds = bounds_of(reading, start, stop)
        old, new = (stack.enter_context(_handler(Code(one, type=event_type))) for one in handlers)
        mine, others = (chain.from_iterable(reading.batches(*bounds)) for _ in handlers)
        events = differ = 0
        for one, other in zip(mine, others, strict=True):
            events += 1
            before, after = outcome_of(old, one), outcome_of(new, other)
            if not _are_same(before, after):
                differ += 1
                _show_difference(one, before, after, as_json=as_json)
    if as_json:
        say(to_json({"events": events, "differ": differ}))
    else:
        say(f"{counted(events, 'event')}, {differ:,} differ")
    if differ:
        raise typer.Exit(FAILED)


def _are_same(one: Outcome, other: Outcome) -> bool:
    """Whether both have raised the same, or returned the same, by value or as it is written."""
    if one.error != other.error or len(one.results) != len(other.results):
        return False
    return all(map(_are_equal, one.results, other.results))


def _are_equal(one: Any, other: Any) -> bool:
    with suppress(Exception):  # values that cannot be compared, such as arrays
        if one == other:
            return True
    return _written(one) == _written(other)


def _written(value: Any) -> str:
    with suppress(Exception):
        return to_json(plain_event(value))
    return re.sub(r" at 0x[0-9a-f]+", "", repr(value))  # an address differs from call to call


def _show_difference(
    envelope: EventEnvelope, before: Outcome, after: Outcome, *, as_json: bool
) -> None:
    if as_json:
        fields = {"old": _outcome_fields(before), "new": _outcome_fields(after)}
        say(to_json({"seq_no": envelope.seq_no, "key": envelope.key} | fields))
        return
    key = "" if envelope.key is None else f" ({envelope.key})"
    say(f"event {envelope.seq_no}{key}\n  old: {_text_of(before)}\n  new: {_text_of(after)}")


def _outcome_fields(outcome: Outcome) -> dict[str, Any]:
    if outcome.error is not None:
        return {"error": outcome.error}
    return {"results": [_plain(one) for one in outcome.results]}


def _plain(result: Any) -> Any:
    with suppress(Exception):  # nothing that a log could store
        return plain_event(result.event if isinstance(result, EventEnvelope) else result)
    return repr(result)


def _text_of(outcome: Outcome) -> str:
    if outcome.error is not None:
        return f"raised {outcome.error}"
    return "returned " + (", ".join(map(_written, outcome.results)) or "nothing")
