"""Ctrl-C at every line of a blocking append: the handle stays usable, and nothing comes twice."""

from __future__ import annotations

import linecache
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from types import FrameType
from typing import Any, Final

import pytest

import eventlog.blocking

TRACED: Final = (
    "outbox.py",
    "threads.py",
    "conversations.py",
    "local_blocking.py",
)
LARGE: Final = b"x" * 300_000
"""Goes through the staging ring."""


def interrupted_at(line: int, call: Callable[[], Any]) -> bool:
    """Call it, with Ctrl-C before the n-th line of a client's code; whether it came so far."""
    lines = count(1)

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        path = frame.f_code.co_filename
        if not path.endswith(TRACED):
            return None
        # At these the interpreter never handles a signal, and the block is not, or not any more,
        # protected by its end.
        is_block = linecache.getline(path, frame.f_lineno).lstrip().startswith(("with ", "try:"))
        if event == "line" and not is_block and next(lines) == line:
            raise KeyboardInterrupt
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(before)
    return False


def in_time(call: Callable[[], Any]) -> Any:
    """What it gives, in a thread that is left behind if that takes for ever."""
    results: list[Any] = []
    thread = threading.Thread(target=lambda: results.append(call()), daemon=True)
    thread.start()
    thread.join(10)
    assert results, "it hangs"
    return results[0]


@pytest.fixture
def log(tmp_path: Path) -> Iterator[eventlog.blocking.EventLog]:
    """A log with its writer, which ends with the test."""
    log = eventlog.blocking.open(tmp_path / "log", durability="memory")
    yield log
    pid = log.status().writer_pid
    log.close()
    assert pid is not None
    os.kill(pid, signal.SIGTERM)


@pytest.mark.parametrize("blob", [b"", LARGE], ids=["pipe", "ring"])
def test_an_append_that_is_interrupted_anywhere_leaves_the_log_usable(
    log: eventlog.blocking.EventLog, blob: bytes
) -> None:
    # The batch could get lost between queue and pipe, or its answer on the way back: the next
    # append waited for ever.
    answered = {}
    for line in count(1):
        was_interrupted = interrupted_at(line, lambda n=line: log.append([n, "interrupted", blob]))  # type: ignore[misc]
        answered[line] = in_time(lambda n=line: log.append([n, "next", blob]))  # type: ignore[misc]
        if not was_interrupted:
            break
    assert line > 50
    envelopes = list(log.read(1))
    events = [envelope.event[:2] for envelope in envelopes]
    assert events == sorted(events), "in order"
    assert len(events) == len(set(map(tuple, events))), "each once"
    assert [e.seq_no for e in envelopes if e.event[1] == "next"] == list(answered.values())
