"""A database in memory whose only table is `events`: it reads no file, and writes none."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import duckdb

from eventlog.arrow.tables import Stream
from eventlog.errors import EventLogError, InvalidArgument
from eventlog.sql.limits import TABLE, Limits, limits_of

ROWS_AT_ONCE: Final = 1000
CONFIG: Final = {
    "enable_external_access": "false",
    "python_enable_replacements": "false",
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
}


class Database:
    """DuckDB for one statement."""

    def __init__(self, statement: str) -> None:
        """Parse the statement.

        Raises:
            InvalidArgument: it is none, or another than a SELECT, or there are several.
        """
        self._duckdb = duckdb.connect(":memory:", config=CONFIG)
        self._duckdb.execute("SET lock_configuration = true")
        self._statement = statement
        try:
            found = self._duckdb.extract_statements(statement)
        except duckdb.Error as error:
            raise InvalidArgument(str(error)) from None
        if [one.type for one in found] != [duckdb.StatementType.SELECT]:
            raise InvalidArgument("give one statement that reads: a SELECT from the table events")

    def close(self) -> None:
        """Give its memory back."""
        self._duckdb.close()

    def limits(self) -> Limits:
        """The range of events that the statement needs at most."""
        try:
            parsed = self._one("SELECT json_serialize_sql(?::VARCHAR)", self._statement)
            return limits_of(json.loads(parsed), self._value_of)
        except (duckdb.Error, ValueError):
            return Limits()  # it only makes reading shorter

    def _one(self, query: str, value: str) -> Any:
        ((found,),) = self._duckdb.execute(query, [value]).fetchall()
        return found

    def _value_of(self, expression: Any) -> Any:
        """What an expression is worth; a text as the time that it is, if it is one."""
        parsed = json.loads(self._one("SELECT json_serialize_sql(?::VARCHAR)", "SELECT 1"))
        parsed["statements"][0]["node"]["select_list"] = [expression]
        query = self._one("SELECT json_deserialize_sql(?::JSON)", json.dumps(parsed))
        ((value,),) = self._duckdb.execute(query).fetchall()
        if isinstance(value, int):
            return value
        ((moment,),) = self._duckdb.execute(f"SELECT CAST(({query}) AS TIMESTAMPTZ)").fetchall()
        return moment if moment is None or moment.tzinfo else None  # infinity has no zone

    def run(self, events: Stream) -> tuple[list[str], Iterator[Sequence[Any]]]:
        """The names of the columns, and the rows, which are worked out as they are taken.

        Raises (also from the rows):
            InvalidArgument: the statement is wrong; it says where.
            EventLogError: what reading the log says; or there is too little memory.
        """
        with _told(events):
            self._duckdb.register(TABLE, events)
            result = self._duckdb.execute(self._statement)
        return [column[0] for column in result.description or ()], self._rows(result, events)

    def _rows(self, result: Any, events: Stream) -> Iterator[Sequence[Any]]:
        while True:
            with _told(events):
                rows = result.fetchmany(ROWS_AT_ONCE)
            if not rows:
                return
            yield from rows


@contextmanager
def _told(events: Stream) -> Iterator[None]:
    """Errors as a user meets them: of the log, of the machine, or of the statement."""
    try:
        yield
    except duckdb.Error as error:
        if events.error is not None:
            raise events.error from None
        if isinstance(error, duckdb.OutOfMemoryException):
            raise EventLogError(f"there is too little memory for this statement: {error}") from None
        raise InvalidArgument(str(error)) from None
