"""Small jobs, each run by a forked process that kills itself at a given line of `eventlog`.

Run as a program: `PATH JOB`. For each number read from standard input it forks a process that dies
at that line (0: at none); what was acknowledged before, and the number of lines that it came to, go
to standard output, and a last line `over` when it is gone.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any

import eventlog
from eventlog import SeekPosition, blocking

HOME = os.path.dirname(eventlog.__file__)
LARGE = 100_000
"""Bytes of a payload that goes through the staging ring."""


def report(*words: object) -> None:
    """Say it now: the process may be dead in the next line."""
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


def append(path: str) -> None:
    with blocking.open(path) as log:
        for n in range(3):
            report("appended", log.append({"n": n}, key="k"))
        first, last = log.append_many(range(10))
        report("appended", first, last)


def publish(path: str) -> None:
    with blocking.open(path) as log, log.publisher() as publisher:
        handles = [publisher.send(bytes(LARGE)) for _ in range(4)]
        for handle in handles:
            report("appended", handle.result())


def consume(path: str) -> None:
    with (
        blocking.open(path) as log,
        log.subscribe("c", SeekPosition.BEGINNING, follow=False) as stream,
    ):
        for envelope in stream:
            assert envelope.seq_no is not None
            log.ack("c", envelope.seq_no)
            report("acked", envelope.seq_no)
            if envelope.seq_no % 5 == 0:
                break


def total(path: str) -> None:
    """Keep a sum of the numbers that were seen as the consumer's state."""
    with blocking.open(path) as log, log.subscribe("t", follow=False) as stream:
        seen = int(stream.state or 0)
        for envelope in stream:
            assert envelope.seq_no is not None
            seen += envelope.seq_no
            stream.ack(envelope, state=b"%d" % seen)
            report("acked", envelope.seq_no)
            if envelope.seq_no % 5 == 0:
                break


def work(path: str) -> None:
    with (
        blocking.open(path) as log,
        log.group("g", position=SeekPosition.BEGINNING) as group,
        group.open_member(os.getpid()) as member,
    ):
        lease = member.lease(5)
        assert lease is not None
        for _, envelope in lease:
            lease.begin(envelope)
            lease.done(envelope)
        member.flush()
        report("settled")


JOBS: dict[str, Callable[[str], None]] = {
    "append": append,
    "publish": publish,
    "consume": consume,
    "total": total,
    "work": work,
}


def killed_at(line: int, job: Callable[[str], None], path: str) -> None:
    """Do the job, and die before that line, in whatever thread it is."""
    lines = 0

    def trace(frame: Any, event: str, _argument: Any) -> Any:
        nonlocal lines
        if not frame.f_code.co_filename.startswith(HOME):
            return None
        if event == "line":
            lines += 1
            if lines == line:
                os.kill(os.getpid(), signal.SIGKILL)
        return trace

    threading.settrace(trace)
    sys.settrace(trace)
    job(path)
    sys.settrace(None)
    report("lines", lines)


def main() -> None:
    """See the module."""
    path, job = sys.argv[1], JOBS[sys.argv[2]]
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                killed_at(int(line), job, path)
                code = 0
            finally:
                os._exit(code)
        _, status = os.waitpid(pid, 0)
        report("over", os.waitstatus_to_exitcode(status))


if __name__ == "__main__":
    main()
