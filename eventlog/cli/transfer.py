"""`import`: events as JSON lines or MessagePack, into a log."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from typing import Annotated, Final, NamedTuple, cast

import typer

from eventlog import blocking
from eventlog.api.engines import is_directory
from eventlog.cli.address import MadeLog, check_usable
from eventlog.cli.app import EPILOG, app
from eventlog.cli.progress import shown
from eventlog.cli.streams import standard_input
from eventlog.config import KIB, MAX_EVENT_BYTES_DEFAULT
from eventlog.errors import (
    EventLogError,
    EventTooLarge,
    InvalidArgument,
    InvalidEvent,
)
from eventlog.event.batch_builder import BatchBuilder
from eventlog.event.envelope import EventEnvelope
from eventlog.local.storage.reading.reader import LogReader
from eventlog.terminal.printing import say
from eventlog.terminal.show import to_json
from eventlog.tools.transfer.json_lines import envelope_of_line
from eventlog.tools.transfer.packed import RecordReader, envelope_of_record

BATCH_EVENTS: Final = 1000
BATCH_BYTES: Final = 256 * KIB
PIECE_BYTES: Final = 64 * KIB


class Format(StrEnum):
    """How events are written."""

    JSONL = "jsonl"
    MSGPACK = "msgpack"


class Given(NamedTuple):
    """One event of the input."""

    place: str
    """Where it stands, for a person: `line 7`."""
    envelope: EventEnvelope


IMPORT_EXAMPLES = """
[bold]Examples[/]

  eventlog import orders orders.jsonl

  eventlog export old | eventlog import new

  zstdcat orders.msgpack.zst | eventlog import orders

[bold]Lines by hand[/]

  Only "event" is needed; an id and a timestamp are made where there is none:

  echo '{"event": {"order": 7}, "key": "7"}' | eventlog import orders
"""


@app.command("import", epilog=IMPORT_EXAMPLES + "\n\n" + EPILOG)
def import_(
    log: MadeLog,
    file: Annotated[str, typer.Argument(help="What to read; the standard input without it.")] = "-",
    form: Annotated[
        Format | None, typer.Option("--format", help="How events are written; seen by itself.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Say the numbers as JSON.")] = False,
) -> None:
    """Append what `eventlog export` has written; id, timestamp, key, headers, cause and event stay.

    Events get new numbers, after those that the log has. They are appended in batches: a line that
    is wrong is named, and nothing of its batch is stored.
    """
    target = _Target(check_usable(log))
    with _input(file) as source, target:
        for batch in shown(_read_batches(source, form, target), None, is_quiet=False):
            target.append(batch)
        target.open()
    if as_json:
        say(to_json({"first": target.first, "last": target.last, "events": target.count}))
    elif target.count:
        say(f"{target.first}" + (f"..{target.last}" if target.count > 1 else ""))


class _Target:
    """The log that takes the events; it is opened, and made, once the first of them are read."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._log: blocking.EventLog | None = None
        self._place = ""
        self.first: int | None = None
        self.last: int | None = None
        self.count = 0

    def __enter__(self) -> _Target:
        return self

    def __exit__(self, *_: object) -> None:
        if self._log is not None:
            self._log.close()

    def open(self) -> blocking.EventLog:
        """The log, made if there is none: of an input without events it is empty."""
        if self._log is None:
            self._log = blocking.open(self._path)
        return self._log

    def append(self, batch: list[Given]) -> None:
        """Append a batch; an error says what of the input is stored."""
        log = self.open()
        try:
            first, self.last = log.append_many(one.envelope for one in batch)
        except (InvalidEvent, EventTooLarge) as error:
            raise self._told_of_the_wrong_one(batch, error) from None
        except EventLogError as error:
            raise self.told(error, batch[0].place) from None
        self.first = self.first or first
        self.count += len(batch)
        self._place = batch[-1].place

    def _told_of_the_wrong_one(self, batch: list[Given], error: EventLogError) -> EventLogError:
        builder = BatchBuilder(_max_event_bytes(self._path), self._path)
        for one in batch:
            try:
                builder.add(one.envelope)
            except EventLogError as wrong:
                return self.told(wrong, one.place)
        return self.told(error, batch[0].place)

    def told(self, error: EventLogError, place: str) -> EventLogError:
        """The error, with its place in the input and how much of that is in the log."""
        stored = f"{self.count:,} events are stored, up to {self._place}"
        error.args = (f"{place}: {error}; {stored if self.count else 'nothing is stored'}",)
        return error


def _max_event_bytes(log: str) -> int:
    """The largest event of the log; of another engine's, what most take."""
    if not is_directory(log):
        return MAX_EVENT_BYTES_DEFAULT
    reader = LogReader(log)
    reader.close()
    return reader.options.max_event_bytes


@contextmanager
def _input(file: str) -> Iterator[io.BufferedReader]:
    if file == "-":
        yield cast("io.BufferedReader", standard_input("give a FILE, or events on it"))
        return
    try:
        source = open(file, "rb")  # noqa: SIM115 - closed below; only opening it may fail so
    except OSError as error:
        raise InvalidArgument(f"cannot read the file {file}: {error.strerror}") from error
    with source:
        yield source


def _read_batches(
    source: io.BufferedReader, form: Format | None, target: _Target
) -> Iterator[list[Given]]:
    """The events of the input in batches; whatever is wrong, before anything of its batch."""
    batch: list[Given] = []
    size = 0
    for place, data, envelope_of in _pieces(source, form):
        try:
            batch.append(Given(place, envelope_of(data)))
        except InvalidEvent as error:
            raise target.told(error, place) from None
        size += len(data)
        if size >= BATCH_BYTES or len(batch) >= BATCH_EVENTS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _pieces(
    source: io.BufferedReader, form: Format | None
) -> Iterator[tuple[str, bytes, Callable[[bytes], EventEnvelope]]]:
    """The input in pieces of one event each: where it stands, its bytes, and what reads them."""
    start = source.read1(PIECE_BYTES)
    if form is None:
        form = Format.JSONL if start.lstrip()[:1] in (b"{", b"") else Format.MSGPACK
    if form == Format.JSONL:
        for number, line in enumerate(_lines(start, source), 1):
            if line.strip():
                yield f"line {number}", line, envelope_of_line
        return
    for number, record in enumerate(_records(start, source), 1):
        yield f"event {number}", record, envelope_of_record


def _lines(start: bytes, source: io.BufferedReader) -> Iterator[bytes]:
    *whole, begun = start.split(b"\n")
    yield from whole
    yield begun + source.readline()
    yield from source


def _records(start: bytes, source: io.BufferedReader) -> Iterator[bytes]:
    reader = RecordReader()
    while start:
        reader.feed(start)
        yield from reader.records()
        start = source.read1(PIECE_BYTES)
    yield from reader.rest()
