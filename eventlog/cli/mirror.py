"""`mirror` and `compare`: one log as a copy of another, on whichever engines they are."""

from __future__ import annotations

import signal
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from types import FrameType
from typing import Annotated, Final
from uuid import UUID

import msgspec
import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from eventlog import blocking
from eventlog.api.engines import is_directory
from eventlog.api.positions import SeekPosition, check_name
from eventlog.api.status import LogStatus
from eventlog.api.stream_options import StreamOptions
from eventlog.cli.address import Log, check_there, check_usable
from eventlog.cli.app import EPILOG, FAILED, app
from eventlog.cli.streams import utf8
from eventlog.config import AskedOptions
from eventlog.errors import InvalidArgument
from eventlog.event.envelope import EventEnvelope
from eventlog.local.client.feed import Feed
from eventlog.local.client.handle import LocalHandle
from eventlog.local.client.launch import prepare
from eventlog.system import absolute_path
from eventlog.terminal.printing import say
from eventlog.terminal.show import to_json
from eventlog.tools.compare import first_difference
from eventlog.tools.mirror import Mirror, alone

NAME: Final = "mirror"
AsJson = Annotated[bool, typer.Option("--json", help="Say it as JSON.")]

EXAMPLES = """
[bold]Examples[/]

  eventlog mirror orders copy

  eventlog mirror orders nats://host:4222/orders --follow --consumer uplink

  eventlog mirror kafka://host:9092/orders here && eventlog compare kafka://host:9092/orders here

[bold]What is kept[/]

  Payload bytes, ids, times, keys, headers, causes and numbers. The time of storing is the target's.
  Consumers, groups and dead letters stay where they are.
"""


@app.command(epilog=EXAMPLES + "\n\n" + EPILOG)
def mirror(
    source: Annotated[str, typer.Argument(help="The log to copy: a directory, or an address.")],
    target: Annotated[str, typer.Argument(help="Where to, the same; made if there is none.")],
    follow: Annotated[
        bool, typer.Option("-f", "--follow", help="Go on with new events until interrupted.")
    ] = False,
    renumber: Annotated[
        bool, typer.Option("--renumber", help="Let events get other numbers in the target.")
    ] = False,
    consumer: Annotated[
        str | None,
        typer.Option(
            help="Acknowledge what is copied, as this consumer of the source, so that retention"
            " with keep_unacked keeps what is not.",
            callback=utf8,
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Copy a log into another one, each event once, also when it is killed and started again.

    It goes on where an earlier run ended, which the target itself says. Ends with the last event
    stored when it gets there, or never with --follow. One mirror at a time copies one log into
    another.
    """
    if consumer is not None:
        check_name(consumer)
    check_there(source)
    check_usable(target)
    signal.signal(signal.SIGTERM, _end)
    with ExitStack() as stack:
        copied = stack.enter_context(_opened_source(source, follow=follow, consumer=consumer))
        opened = stack.enter_context(_opened_target(target, copied))
        stack.enter_context(alone(copied.log_id, opened.status().log_id))
        work = Mirror(copied, opened, renumber=renumber)
        before = work.begin().copied
        try:
            with _progress("copied", copied.bounds()[1] - 1 - before) as advance:
                work.run(lambda last: advance(last - before))
        finally:
            done = work.place
            if as_json:
                said = {"events": done.copied - before, "last": done.copied, "stored": done.stored}
                say(to_json(said))
            else:
                say(f"{done.copied - before:,} events copied, up to {done.copied:,}")


COMPARE_EXAMPLES = """
[bold]Examples[/]

  eventlog compare orders copy

  eventlog compare orders nats://host:4222/orders --from 1000 --by-order
"""


@app.command(epilog=COMPARE_EXAMPLES + "\n\n" + EPILOG)
def compare(
    first: Log,
    second: Log,
    start: Annotated[
        int, typer.Option("--from", min=0, help="The first number to compare; 0 is the oldest.")
    ] = 0,
    by_order: Annotated[
        bool, typer.Option("--by-order", help="Numbers may differ, and the first ones too.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Say whether two logs hold the same events; exit code 1 if they differ, with the first place.

    Payload bytes, ids, times, keys, headers, causes and numbers are compared, up to the last event
    that is stored in each. A directory needs no writer.
    """
    for log in (first, second):
        check_there(log)
    with ExitStack() as stack:
        logs = [stack.enter_context(_opened_source(log)) for log in (first, second)]
        total = max(one.bounds()[1] - max(one.bounds()[0], start) for one in logs)
        with _progress("compared", total) as advance:
            one, other = (each.batches(max(start, each.bounds()[0])) for each in logs)
            found = first_difference(one, other, advance, by_order=by_order)
    if as_json:
        say(to_json({"same": found is None, "difference": found and msgspec.to_builtins(found)}))
    elif found is None:
        say("the same events")
    else:
        say(f"{found.what}: {_event(found.first)} in {first}, {_event(found.second)} in {second}")
    if found is not None:
        raise typer.Exit(FAILED)


def _event(seq_no: int | None) -> str:
    return "no event" if seq_no is None else f"event {seq_no}"


def _end(number: int, _frame: FrameType | None) -> None:
    """So that how far it is gets noted."""
    sys.exit(128 + number)


# --- the logs -----------------------------------------------------------------------------------


class _Source(ABC):
    """A log whose events are read as they are stored."""

    def __init__(self, status: LogStatus) -> None:
        self.path: str = status.path
        self.log_id: UUID = status.log_id
        self.event_bytes_max: int = status.max_event_bytes

    @abstractmethod
    def bounds(self) -> tuple[int, int]:
        """The first event that is stored, and the one after the last."""

    @abstractmethod
    def batches(self, start: int) -> Iterator[list[EventEnvelope]]:
        """The events from a number on."""

    @abstractmethod
    def acknowledge(self, seq_no: int) -> None:
        """Everything up to that event is copied."""


class _StoredSource(_Source):
    """A directory as it lies there: no writer is asked, and none is started."""

    def __init__(self, handle: LocalHandle) -> None:
        super().__init__(handle.status(0))
        self._reader = handle.reader

    def bounds(self) -> tuple[int, int]:
        return self._reader.first_available, self._reader.last_seq_no + 1

    def batches(self, start: int) -> Iterator[list[EventEnvelope]]:
        options = StreamOptions(follow=False, type=msgspec.Raw)
        feed = Feed(self._reader, "", SeekPosition.sequence(start), options)
        try:
            while (events := feed.next_batch()) is not None:
                yield events
        finally:
            feed.close()

    def acknowledge(self, seq_no: int) -> None:
        """Nobody: that would take a writer."""


class _OpenedSource(_Source):
    """A log of any engine, opened as any program opens it."""

    def __init__(self, log: blocking.EventLog, *, follow: bool, consumer: str | None) -> None:
        super().__init__(log.status())
        self._log = log
        self._follow = follow
        self._consumer = consumer

    def bounds(self) -> tuple[int, int]:
        status = self._log.status()
        stop = (status.last_seq_no or 0) + 1
        return status.first_seq_no or stop, stop

    def batches(self, start: int) -> Iterator[list[EventEnvelope]]:
        position = SeekPosition.sequence(start)
        stream = self._log.subscribe(NAME, position, follow=self._follow, type=msgspec.Raw)
        with stream as events:
            yield from events.batches()

    def acknowledge(self, seq_no: int) -> None:
        if self._consumer is not None and seq_no:
            self._log.ack(self._consumer, seq_no)


@contextmanager
def _opened_source(
    log: str, *, follow: bool = False, consumer: str | None = None
) -> Iterator[_Source]:
    if is_directory(log) and not follow and consumer is None:
        handle = LocalHandle(log, AskedOptions())
        handle.open()
        with closing(handle):
            yield _StoredSource(handle)
        return
    with blocking.open(log) as opened:
        yield _OpenedSource(opened, follow=follow, consumer=consumer)


@contextmanager
def _opened_target(log: str, source: _Source) -> Iterator[blocking.EventLog]:
    if is_directory(log):
        if absolute_path(log) == absolute_path(source.path):
            raise InvalidArgument(f"{log} is the source itself; give another log", path=log)
        asked = AskedOptions(max_event_bytes=source.event_bytes_max)
        prepare(absolute_path(log), asked, source.bounds()[0])
    with blocking.open(log) as opened:
        yield opened


# --- progress -----------------------------------------------------------------------------------


class _Rate(ProgressColumn):
    """Events per second, lately."""

    def render(self, task: Task) -> Text:
        return Text(f"{task.finished_speed or task.speed or 0:,.0f}/s")


@contextmanager
def _progress(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """A bar on a terminal; its block gets a function that says how many are done."""
    console = Console(stderr=True)
    columns = (
        SpinnerColumn(),
        TextColumn(f"{{task.completed:,}} of {{task.total:,}} {what}"),
        BarColumn(),
        _Rate(),
        TimeRemainingColumn(),
    )
    shown = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
    with shown as progress:
        task = progress.add_task(what, total=max(total, 0))

        def advance(done: int) -> None:
            progress.update(task, completed=done, total=max(total, done))

        yield advance
