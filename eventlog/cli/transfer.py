"""`export` and `import`: events as JSON lines or MessagePack, out of a log and into one."""

from __future__ import annotations

import io
import os
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from enum import StrEnum
from typing import Annotated, BinaryIO, Final, NamedTuple, TypeVar, cast

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from eventlog import blocking
from eventlog.api.engines import is_directory
from eventlog.api.positions import SeekPosition
from eventlog.cli.address import (
    Log,
    MadeLog,
    Readable,
    check_directory,
    check_there,
    check_usable,
    readable,
)
from eventlog.cli.app import EPILOG, FAILED, app
from eventlog.cli.streams import check_output, standard_input
from eventlog.config import KIB, MAX_EVENT_BYTES_DEFAULT
from eventlog.errors import (
    CorruptLog,
    EventLogError,
    EventTooLarge,
    InvalidArgument,
    InvalidEvent,
)
from eventlog.event.batch_builder import BatchBuilder
from eventlog.event.envelope import EventEnvelope
from eventlog.local.storage.reading.reader import LogReader
from eventlog.system import absolute_path
from eventlog.terminal.positions import PLACES, position_of
from eventlog.terminal.printing import complain, say
from eventlog.terminal.show import to_json
from eventlog.tools.transfer.json_lines import envelope_of_line, line_of
from eventlog.tools.transfer.packed import RecordReader, envelope_of_record, new_record_packer

BATCH_EVENTS: Final = 1000
BATCH_BYTES: Final = 256 * KIB
PIECE_BYTES: Final = 64 * KIB

T = TypeVar("T")


class Format(StrEnum):
    """How events are written."""

    JSONL = "jsonl"
    MSGPACK = "msgpack"


EXPORT_EXAMPLES = """
[bold]Examples[/]

  eventlog export orders orders.jsonl

  eventlog export orders --from 1000 --to 1999 | jq .event

  eventlog export orders yesterday.jsonl --from 1d

  eventlog export orders --format msgpack | ssh elsewhere eventlog import orders

  eventlog export orders saved.jsonl --skip-damaged

[bold]JSON lines[/]

  {"seq_no": 7, "id": "0190...", "timestamp": "2026-01-31T12:00:00.5Z", "key": "k", "event": ...}

  What JSON lacks is written as {"$bytes": base64}, {"$datetime": time}, {"$uuid": id},
  {"$float": "nan"}, or {"$map": pairs} for keys that are not strings or begin with $.
"""


@app.command(epilog=EXPORT_EXAMPLES + "\n\n" + EPILOG)
def export(  # noqa: PLR0917 - typer calls it by name; these are options of a command line
    log: Log,
    file: Annotated[str, typer.Argument(help="Where to; the standard output without it.")] = "-",
    form: Annotated[Format, typer.Option("--format", help="How to write events.")] = Format.JSONL,
    start: Annotated[
        str, typer.Option("--from", metavar="POSITION", help=f"The first event: {PLACES}")
    ] = "beginning",
    last: Annotated[
        int | None, typer.Option("--to", min=1, help="The number of the last event.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace FILE if it is there.")] = False,
    skip_damaged: Annotated[
        bool, typer.Option("--skip-damaged", help="Leave out what is damaged; exit code 1.")
    ] = False,
) -> None:
    """Write the events of a log, whole and without loss, as JSON lines or MessagePack.

    A directory needs no writer. Ends with the last event that was stored when it began. A file
    appears under its name when it is complete. Positions of consumers are not exported.
    """
    check_there(log)
    if skip_damaged:
        check_directory(log, "export --skip-damaged")
    position = _exported_from(start, last)
    if file == "-":
        check_output()
    if file == "-" and form == Format.MSGPACK and sys.stdout.isatty():
        raise InvalidArgument("MessagePack is nothing for a terminal: give a FILE, or a pipe")
    skipped: list[CorruptLog] = []
    with readable(absolute_path(log) if is_directory(log) else log) as reading:
        oldest, end = reading.bounds()
        first, stop = _first(reading, position, oldest, end), min(last + 1 if last else end, end)
        batches = _batches(reading, first, stop, skipped if skip_damaged else None)
        with _output(file, force=force) as output:
            shown = _shown(batches, max(stop - first, 0), is_quiet=_is_terminal(output))
            _write(output, shown, form)
    if skipped:
        for error in skipped:
            complain(f"left out: {error}")
        raise typer.Exit(FAILED)


def _exported_from(start: str, last: int | None) -> SeekPosition:
    position = position_of(start)
    if position.kind == "last_acknowledged":
        raise InvalidArgument("--from last-acknowledged is about a consumer, and export has none")
    if position.kind == "sequence" and last is not None and position.value > last:
        raise InvalidArgument(f"--from {start} is after --to {last}")
    return position


def _first(reading: Readable, position: SeekPosition, oldest: int, end: int) -> int:
    """The number of the first event; `end` if there is none."""
    if position.kind == "sequence":
        return position.value or oldest
    if position.kind == "beginning":
        return oldest
    return reading.number_at(position) or end


def _batches(
    reading: Readable, start: int, stop: int, skipped: list[CorruptLog] | None
) -> Iterator[list[EventEnvelope]]:
    """The events of a range; what is damaged goes to `skipped`, or ends it."""
    while True:
        try:
            yield from reading.batches(start, stop)
        except CorruptLog as error:
            if skipped is None or error.last_seq_no is None:
                raise
            skipped.append(error)
            start = error.last_seq_no + 1
            if start < stop:
                continue
        return


def _write(output: BinaryIO, batches: Iterable[list[EventEnvelope]], form: Format) -> None:
    pack = new_record_packer()
    for batch in batches:
        if form == Format.JSONL:
            output.write("".join(f"{line_of(one)}\n" for one in batch).encode())
        else:
            output.write(b"".join(map(pack, batch)))


@contextmanager
def _output(file: str, *, force: bool) -> Iterator[BinaryIO]:
    """Where to write; a regular file gets its name when all is in it."""
    if file == "-":
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    if os.path.exists(file) and not os.path.isfile(file):
        with _file_errors(file), open(file, "wb") as special:
            yield special
        return
    if os.path.lexists(file) and not force:
        raise InvalidArgument(f"{file} is there already; give --force to replace it")
    folder, name = os.path.split(absolute_path(file))
    with _file_errors(file):
        descriptor, temporary = tempfile.mkstemp(prefix=f".{name}.", dir=folder)
        try:
            with open(descriptor, "wb") as output:
                yield output
                output.flush()
                os.fsync(descriptor)
            os.replace(temporary, file)
        except BaseException:
            with suppress(FileNotFoundError):
                os.unlink(temporary)
            raise


@contextmanager
def _file_errors(file: str) -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise EventLogError(f"cannot use the file {file}: {error.strerror or error}") from error


def _is_terminal(output: BinaryIO) -> bool:
    return output.isatty()


def _shown(batches: Iterator[list[T]], total: int | None, *, is_quiet: bool) -> Iterator[list[T]]:
    """The same batches; a terminal sees how far it is."""
    console = Console(stderr=True)
    if not console.is_terminal or is_quiet:
        yield from batches
        return
    columns = (
        SpinnerColumn(),
        TextColumn("{task.completed:,} events"),
        *((BarColumn(),) if total else ()),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("events", total=total)
        for batch in batches:
            yield batch
            progress.advance(task, len(batch))


# --- import -------------------------------------------------------------------------------------


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
        for batch in _shown(_read_batches(source, form, target), None, is_quiet=False):
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
