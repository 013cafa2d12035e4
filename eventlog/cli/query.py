"""`query`: a statement of SQL about the events of a log."""

from __future__ import annotations

import base64
import csv
import io
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from decimal import Decimal
from types import NoneType
from typing import Annotated, Any, Final

import typer
from rich.table import Table

from eventlog.api.engines import is_directory
from eventlog.api.extras import check_extra
from eventlog.api.positions import SeekPosition
from eventlog.cli.address import Log, Readable, check_there, readable
from eventlog.cli.app import EPILOG, app
from eventlog.cli.bounds import From, Key, Since, To, Until, begin_of, range_between
from eventlog.cli.progress import shown
from eventlog.cli.streams import check_output, utf8
from eventlog.errors import InvalidArgument
from eventlog.event.envelope import EventEnvelope
from eventlog.event.record_batch import Decode
from eventlog.event.texts import check_key
from eventlog.system import absolute_path
from eventlog.terminal.printing import cell, is_terminal, print_table, say
from eventlog.terminal.show import to_json

EXAMPLES = """
[bold]Examples[/]

  eventlog query orders "select city, count(*), sum(total) from events group by city"

  eventlog query orders "select * from events where seq_no > 1000 limit 10" --json

  eventlog query orders "select avg(total) from events where stored_at > now() - interval 1 day"

  eventlog query orders "describe events"

[bold]The table[/]

  Columns: seq_no, timestamp, stored_at, key, headers, and the fields of the events. The statement
  can only read, and only this. It needs pip install 'eventlog\\[query]'.

  Of a log with many events, less is read with --from, --to, --since, --until and --key, and where
  the WHERE of a statement about events alone compares seq_no, or stored_at with an earliest time.
"""
Row = Sequence[Any]
NUMBERS: Final = {int, float, Decimal, NoneType}


@app.command(epilog=EXAMPLES + "\n\n" + EPILOG)
def query(  # noqa: PLR0917 - typer calls it by name; these are options of a command line
    log: Log,
    statement: Annotated[str, typer.Argument(help="A SELECT from the table events.")],
    start: From = None,
    last: To = None,
    since: Since = None,
    until: Until = None,
    key: Key = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object per row.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="CSV, with the names first.")] = False,
) -> None:
    """Ask a log a question in SQL: its events are the table events, for DuckDB.

    A directory needs no writer. The log stays as it is. Exit code 2: the statement is wrong; it is
    said where.
    """
    check_there(log)
    if as_json and as_csv:
        raise InvalidArgument("--json and --csv are two forms; give one of them")
    check_output()
    check_extra("query", "`eventlog query` needs")
    from eventlog.arrow.tables import Stream
    from eventlog.sql.database import Database

    position = begin_of(start, last, since)
    wanted = None if key is None else check_key(utf8(key))
    with (
        closing(Database(utf8(statement))) as database,
        readable(absolute_path(log) if is_directory(log) else log) as reading,
    ):
        asked = range_between(reading, position, last, until)
        needed = _within(reading, *asked, database.limits())
        try:
            names, rows = database.run(Stream(_reading(reading, *needed, wanted)))
        except InvalidArgument:
            if needed == asked:
                raise
            # A field may be one of the events that the statement leaves out.
            names, rows = database.run(Stream(_reading(reading, *asked, wanted)))
        _print_as(as_json, as_csv)(names, rows)


def _reading(
    reading: Readable, first: int, stop: int, key: str | None
) -> Callable[[Decode], Iterator[list[EventEnvelope]]]:
    def read(decode: Decode) -> Iterator[list[EventEnvelope]]:
        if first >= stop:
            return iter(())
        return shown(reading.batches(first, stop, key, decode), stop - first, is_quiet=False)

    return read


def _within(reading: Readable, first: int, stop: int, limits: Any) -> tuple[int, int]:
    """The range without what the statement cannot need."""
    if limits.start is not None:
        first = max(first, limits.start)
    if limits.stop is not None:
        stop = min(stop, limits.stop)
    if limits.since is not None and first < stop:
        with suppress(InvalidArgument):  # a time that no event can have: it shortens nothing
            number = reading.number_at(SeekPosition.timestamp(limits.since))
            first = stop if number is None else max(first, number)
    return first, stop


def _print_as(as_json: bool, as_csv: bool) -> Callable[[list[str], Iterator[Row]], None]:
    return _print_json if as_json else _print_csv if as_csv else _print_table


def _print_json(names: list[str], rows: Iterator[Row]) -> None:
    names = _told_apart(names)
    for row in rows:
        say(to_json(dict(zip(names, map(_plain, row), strict=True))))


def _print_csv(names: list[str], rows: Iterator[Row]) -> None:
    line = io.StringIO()
    writer = csv.writer(line, lineterminator="")
    for row in _with_names(names, rows):
        writer.writerow(["" if one is None else _text(one) for one in row])
        _say_csv(line.getvalue())
        line.seek(0)
        line.truncate()


def _say_csv(line: str) -> None:
    if is_terminal():
        say(line)
    else:
        sys.stdout.write(line + "\n")


def _with_names(names: list[str], rows: Iterator[Row]) -> Iterator[Row]:
    yield names
    yield from rows


def _print_table(names: list[str], rows: Iterator[Row]) -> None:
    table = Table()
    all_rows = [*rows]
    for place, name in enumerate(names):
        is_number = all(type(row[place]) in NUMBERS for row in all_rows)
        table.add_column(cell(name), justify="right" if is_number else "left")
    for row in all_rows:
        table.add_row(*("" if one is None else cell(_text(one)) for one in row))
    print_table(table)


def _told_apart(names: list[str]) -> list[str]:
    """The names, each once: a second `total` is `total_2`."""
    found: dict[str, None] = {}
    for name in names:
        other, number = name, 1
        while other in found:
            number += 1
            other = f"{name}_{number}"
        found[other] = None
    return [*found]


def _text(value: Any) -> str:
    plain = _plain(value)
    return plain if isinstance(plain, str) else to_json(plain)


def _plain(value: Any) -> Any:
    """A value of DuckDB as JSON has it; what is no number, text, list or map is its text."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, dict):
        return {str(name): _plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [*map(_plain, value)]
    if isinstance(value, bytes | bytearray):
        return base64.b64encode(value).decode()
    return value.isoformat() if hasattr(value, "isoformat") else str(value)
