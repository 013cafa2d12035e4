"""Totals in PostgreSQL that count each event exactly once, wherever the program is killed."""

import os

import psycopg

from eventlog import SeekPosition, blocking

TABLES = """
create table if not exists totals (product text primary key, pieces bigint not null);
create table if not exists position (consumer text primary key, seq_no bigint not null);
insert into position values ('totals', 0) on conflict do nothing;
"""
ADD = """
insert into totals values (%(product)s, %(pieces)s)
on conflict (product) do update set pieces = totals.pieces + excluded.pieces
"""
MOVE = "update position set seq_no = %s where seq_no = %s and consumer = 'totals'"


def count(database, events):
    with database.transaction(), database.cursor() as cursor:
        cursor.execute(MOVE, (events[-1].seq_no, events[0].seq_no - 1))
        if cursor.rowcount != 1:
            raise RuntimeError("another copy of this program counts in the same database")
        cursor.executemany(ADD, [envelope.event for envelope in events])


def main():
    with blocking.open("sales") as log, psycopg.connect(os.environ["DATABASE"]) as database:
        database.execute(TABLES)
        (done,) = database.execute("select seq_no from position").fetchone()
        database.commit()
        with log.subscribe("totals", SeekPosition.sequence(done + 1)) as stream:
            for events in stream.batches():
                count(database, events)
                stream.ack(events[-1])  # tells retention, and `eventlog consumers`


main()
