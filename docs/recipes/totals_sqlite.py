"""Totals in SQLite that count each event exactly once, wherever the program is killed."""

import sqlite3
from contextlib import closing

from eventlog import SeekPosition, blocking

TABLES = """
create table if not exists totals (product text primary key, pieces integer not null);
create table if not exists position (seq_no integer not null);
insert into position select 0 where not exists (select * from position);
"""
ADD = """
insert into totals values (:product, :pieces)
on conflict (product) do update set pieces = pieces + excluded.pieces
"""
MOVE = "update position set seq_no = ? where seq_no = ?"


def count(database, events):
    with database:  # one transaction: the totals and the position, or neither
        database.executemany(ADD, [envelope.event for envelope in events])
        moved = database.execute(MOVE, (events[-1].seq_no, events[0].seq_no - 1))
        if moved.rowcount != 1:
            raise RuntimeError("another copy of this program counts in the same database")


def main():
    with blocking.open("sales") as log, closing(sqlite3.connect("totals.db")) as database:
        database.executescript(TABLES)
        (done,) = database.execute("select seq_no from position").fetchone()
        with log.subscribe("totals", SeekPosition.sequence(done + 1)) as stream:
            for events in stream.batches():
                count(database, events)
                stream.ack(events[-1])  # tells retention, and `eventlog consumers`


if __name__ == "__main__":
    main()
