"""`export`: the events of a log as JSON lines or MessagePack, or as a table."""

from __future__ import annotations

import codecs
import os
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from enum import StrEnum
from typing import Annotated, BinaryIO, Final

import typer

from eventlog.api.engines import is_directory
from eventlog.api.extras import check_extra
from eventlog.cli.address import Log, Readable, check_directory, check_there, readable
from eventlog.cli.app import EPILOG, FAILED, app
from eventlog.cli.bounds import From, Key, Since, To, Until, begin_of, range_between
from eventlog.cli.progress import shown
from eventlog.cli.streams import check_output, utf8
from eventlog.errors import CorruptLog, EventLogError, InvalidArgument
from eventlog.event.envelope import EventEnvelope
from eventlog.event.record_batch import Decode, decode_any
from eventlog.event.texts import check_key
from eventlog.system import absolute_path
from eventlog.terminal.printing import clean_lines, complain
from eventlog.terminal.show import JSON_FORMS
from eventlog.tools.transfer.json_lines import line_of
from eventlog.tools.transfer.packed import new_record_packer

Batches = Iterator[list[EventEnvelope]]


class Format(StrEnum):
    """How events are written."""

    JSONL = "jsonl"
    MSGPACK = "msgpack"
    CSV = "csv"
    PARQUET = "parquet"
    ARROW = "arrow"


TABLES: Final = (Format.CSV, Format.PARQUET, Format.ARROW)
BINARY: Final = (Format.MSGPACK, Format.PARQUET, Format.ARROW)
"""Nothing for a terminal."""

EXAMPLES = """
[bold]Examples[/]

  eventlog export orders orders.jsonl

  eventlog export orders --from 1000 --to 1999 | jq .event

  eventlog export orders yesterday.jsonl --since 1d

  eventlog export orders orders.csv --format csv --fields seq_no,order,total --key customer-7

  eventlog export orders orders.parquet --format parquet --since 2026-01-01 --until 2026-02-01

  eventlog export orders --format msgpack | ssh elsewhere eventlog import orders

  eventlog export orders saved.jsonl --skip-damaged

[bold]JSON lines[/]

  {"seq_no": 7, "id": "0190...", "timestamp": "2026-01-31T12:00:00.5Z", "key": "k", "event": ...}

[bold]Tables (csv, parquet, arrow)[/]

  Columns: seq_no, timestamp, stored_at, key, headers, and the fields of the events. They need
  pip install 'eventlog\\[arrow]', and cannot be imported again.
"""


@app.command(epilog=f"{EXAMPLES}\n\n{JSON_FORMS}\n\n{EPILOG}")
def export(  # noqa: PLR0917 - typer calls it by name; these are options of a command line
    log: Log,
    file: Annotated[str, typer.Argument(help="Where to; the standard output without it.")] = "-",
    form: Annotated[Format, typer.Option("--format", help="How to write events.")] = Format.JSONL,
    start: From = None,
    last: To = None,
    since: Since = None,
    until: Until = None,
    key: Key = None,
    fields: Annotated[
        str | None,
        typer.Option(metavar="A,B,...", help="The columns of a table; all of them without it."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace FILE if it is there.")] = False,
    skip_damaged: Annotated[
        bool, typer.Option("--skip-damaged", help="Leave out what is damaged; exit code 1.")
    ] = False,
) -> None:
    """Write the events of a log: whole and without loss (jsonl, msgpack), or as a table.

    A directory needs no writer. Ends with the last event that was stored when it began. A file
    appears under its name when it is complete. Positions of consumers are not exported.
    """
    check_there(log)
    if skip_damaged:
        check_directory(log, "export --skip-damaged")
    position = begin_of(start, last, since)
    _check_form(form, file, fields)
    wanted = None if key is None else check_key(utf8(key))
    skipped: dict[int, CorruptLog] = {}
    with readable(absolute_path(log) if is_directory(log) else log) as reading:
        first, stop = range_between(reading, position, last, until)

        def read(decode: Decode) -> Batches:
            found = _batches(
                reading, first, stop, wanted, decode, skipped if skip_damaged else None
            )
            return shown(found, max(stop - first, 0), is_quiet=file == "-" and sys.stdout.isatty())

        with _output(file, force=force) as output:
            _write(output, read, form, utf8(fields))
    if skipped:
        for error in skipped.values():
            complain(f"left out: {error}")
        raise typer.Exit(FAILED)


def _check_form(form: Format, file: str, fields: str | None) -> None:
    if fields is not None and form not in TABLES:
        raise InvalidArgument(
            f"--fields is about the columns of a table, and {form.value} writes whole events; give"
            " --format csv, parquet or arrow"
        )
    if form in TABLES:
        check_extra("arrow", f"--format {form.value} needs")
    if file == "-":
        check_output()
        if form in BINARY and sys.stdout.isatty():
            name = "MessagePack" if form == Format.MSGPACK else form.value
            raise InvalidArgument(f"{name} is nothing for a terminal: give a FILE, or a pipe")


def _batches(
    reading: Readable,
    start: int,
    stop: int,
    key: str | None,
    decode: Decode,
    skipped: dict[int, CorruptLog] | None,
) -> Batches:
    """The events of a range; what is damaged goes to `skipped`, or ends it."""
    while start < stop:
        try:
            yield from reading.batches(start, stop, key, decode)
        except CorruptLog as error:
            if skipped is None or error.seq_no is None or error.last_seq_no is None:
                raise
            skipped[error.seq_no] = error
            start = error.last_seq_no + 1
            continue
        return


def _write(
    output: BinaryIO, read: Callable[[Decode], Batches], form: Format, fields: str | None
) -> None:
    if form in TABLES:
        from eventlog.arrow.files import table_pieces

        columns = None if fields is None else fields.split(",")
        pieces: Iterable[bytes] = table_pieces(read, form.value, columns)
        if form == Format.CSV and output.isatty():
            pieces = _cleaned(pieces)
    elif form == Format.JSONL:
        pieces = (
            "".join(f"{line_of(one)}\n" for one in batch).encode() for batch in read(decode_any)
        )
    else:
        pack = new_record_packer()
        pieces = (b"".join(map(pack, batch)) for batch in read(decode_any))
    output.writelines(pieces)


def _cleaned(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """The text with nothing in it that a terminal obeys."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    return (clean_lines(decoder.decode(piece)).encode() for piece in pieces)


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
