"""What runs in the processes that `test_kills` kills; each leaves a record of what it saw."""

from __future__ import annotations

import sys

from eventlog import SeekPosition, blocking


def produce(path: str, name: str, record: str) -> None:
    """Append for ever, singly and pipelined; note what was acknowledged."""
    with blocking.open(path) as log, open(record, "a", buffering=1) as notes:
        number = 0
        while True:
            with log.publisher(max_batch_bytes=400) as publisher:
                handles = [(n, publisher.send([name, n])) for n in range(number, number + 40)]
                number += 40
                notes.writelines(f"{handle.result()} {n}\n" for n, handle in handles)
            for _ in range(5):
                notes.write(f"{log.append([name, number])} {number}\n")
                number += 1


def consume(path: str, name: str, record: str) -> None:
    """Read for ever from the last acknowledged; note each event, and then acknowledge it."""
    with (
        blocking.open(path) as log,
        log.subscribe(name, SeekPosition.LAST_ACKNOWLEDGED) as stream,
        open(record, "a", buffering=1) as notes,
    ):
        notes.write("begin\n")
        for envelope in stream:
            producer, number = envelope.event
            notes.write(f"{envelope.seq_no} {producer} {number}\n")
            if envelope.seq_no is not None and envelope.seq_no % 7 == 0:
                log.ack(name, envelope.seq_no)
                notes.write(f"acked {envelope.seq_no}\n")


if __name__ == "__main__":
    {"produce": produce, "consume": consume}[sys.argv[1]](*sys.argv[2:])
