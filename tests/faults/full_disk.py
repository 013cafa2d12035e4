"""A job on a disk of 50 MB: appends until it is full, makes room, and goes on. Run as a program."""

from __future__ import annotations

import os
import select
import signal
import sys
from pathlib import Path

from eventlog import SeekPosition, blocking
from eventlog.errors import LogFull

EVENT_BYTES = 500_000
BALLAST_BYTES = 12_000_000
SEGMENT_BYTES = 4 << 20


def event(number: int) -> bytes:
    """Bytes that say which event they belong to."""
    return number.to_bytes(4, "big") * (EVENT_BYTES // 4)


def fill(log: blocking.EventLog, stored: int) -> int:
    """Append until there is no room, twice; how many are stored."""
    for _ in range(2):
        try:
            while True:
                assert log.append(event(stored + 1)) == stored + 1
                stored += 1
        except LogFull:
            continue
    return stored


def main(place: Path) -> None:
    """Fill the disk, free some of it, fill it again, and look at every event."""
    ballast = place / "ballast"
    ballast.write_bytes(bytes(BALLAST_BYTES))
    with blocking.open(str(place / "log"), segment_bytes=SEGMENT_BYTES) as log:
        writer_pid = log.status().writer_pid
        assert writer_pid is not None
        writer = os.pidfd_open(writer_pid)
        stored = fill(log, 0)
        assert 40 <= stored <= 80, stored
        log.ack("reader", stored)
        ballast.unlink()
        more = fill(log, stored)
        assert more > stored, "the log did not go on when there was room again"
        assert log.status().writer_pid == writer_pid, "the writer died"
        with log.subscribe("reader", SeekPosition.BEGINNING, follow=False) as stream:
            for number, envelope in enumerate(stream, 1):
                assert (envelope.seq_no, envelope.event) == (number, event(number))
        assert number == more
    os.kill(writer_pid, signal.SIGTERM)
    select.select([writer], [], [])  # readable when the process has ended
    print(f"stored {stored}, then {more}")  # noqa: T201 - a program


if __name__ == "__main__":
    main(Path(sys.argv[1]))
