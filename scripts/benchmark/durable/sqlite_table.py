"""SQLite: a table with an increasing key; a write-ahead log that is synced at each commit."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager

import msgpack

from benchmark.durable.base import Clock, Durable


class DurableSqlite(Durable):
    """A transaction for each event, or for each list of them."""

    name = "SQLite, WAL, synchronous=FULL"

    @contextmanager
    def opened(self) -> Iterator[list[int]]:
        """Make the table."""
        self.path = os.path.join(self.directory, "events.sqlite")
        with closing(self._connect()) as connection:
            connection.execute("CREATE TABLE events (seq_no INTEGER PRIMARY KEY, event BLOB)")
        yield []

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        return connection

    def one_at_a_time(self, clock: Clock) -> None:
        """`INSERT` and commit."""
        self.at_once(clock, 1)

    def at_once(self, clock: Clock, size: int) -> None:
        """`executemany` and commit."""
        pack = msgpack.Packer().pack
        with closing(self._connect()) as connection:
            for chunk in clock.chunks(size):
                rows = [(pack(event),) for event in chunk]
                with connection:
                    connection.executemany("INSERT INTO events (event) VALUES (?)", rows)
