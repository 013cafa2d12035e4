"""SQLite: a table of packed events in the order of its key, read with one SELECT, unpacked here."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import Any, Final

import msgpack

from benchmark import events
from benchmark.processes import Link
from benchmark.replays.base import Replay, Stopwatch, Stored

PAGE_CACHE: Final = "PRAGMA mmap_size=1073741824"
"""Reads from mapped pages, as the log does."""


def write(stored: Stored) -> None:
    """The table of that many events."""
    pack = msgpack.Packer().pack
    with closing(sqlite3.connect(stored.database)) as connection, connection:
        connection.execute("CREATE TABLE events (seq_no INTEGER PRIMARY KEY, event BLOB)")
        rows = ((pack(event),) for event in events.events(stored.events))
        connection.executemany("INSERT INTO events (event) VALUES (?)", rows)


class SqliteTable(Replay):
    """One SELECT, one `unpackb` for each event."""

    name = "SQLite"

    def read(self, stored: Stored, link: Link) -> None:
        """Every event with its number."""
        event: Any = None
        unpack = msgpack.unpackb
        with closing(sqlite3.connect(stored.database)) as connection:
            connection.execute(PAGE_CACHE)
            watch = Stopwatch()
            for _seq_no, data in connection.execute("SELECT * FROM events ORDER BY seq_no"):
                event = unpack(data)
            watch.stop(event, stored, link)
