"""Handlers that misbehave; each is partial over the record that it leaves its lines in."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys
import time
from typing import Any, NoReturn

from eventlog import EventEnvelope
from tests.pools.records import Record

POISON = 5


def do(record: Record, event: int) -> None:
    record.note("did", event, os.getpid())


def do_keyed(record: Record, envelope: EventEnvelope) -> None:
    time.sleep(0.001)  # so that one worker alone would take long
    record.note("did", envelope.event, envelope.key)


def double(event: Any) -> Any:
    return {"double": event * 2} if isinstance(event, int) else sys.exit("handed its own result")


def spin(record: Record, seconds: float, event: int) -> None:
    record.note("began", event)
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass
    record.note("did", event)


def kill_myself(record: Record, event: int) -> None:
    record.note("began", event)
    if event == POISON:
        os.kill(os.getpid(), signal.SIGKILL)


def exit_hard(record: Record, event: int) -> None:
    record.note("began", event)
    if event == POISON:
        os._exit(7)


def crash(record: Record, event: int) -> None:
    record.note("began", event)
    if event == POISON:
        ctypes.string_at(0)


def never_return(record: Record, event: int) -> None:
    record.note("began", event)
    while event == POISON:
        signal.pause()


def exit_softly(record: Record, event: int) -> None:
    record.note("began", event)
    if event == POISON:
        sys.exit("enough")


def eat_memory(record: Record, event: int) -> None:
    record.note("began", event)
    if event == POISON:
        soft, hard = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (1 << 30, hard))
        try:
            bytearray(1 << 32)
        finally:
            resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def return_nonsense(record: Record, event: int) -> Any:
    record.note("began", event)
    return object() if event == POISON else event


def fail_once(record: Record, event: int) -> None:
    is_first = str(event) not in [line[1] for line in record.lines() if line[0] == "began"]
    record.note("began", event)
    if is_first:
        raise ValueError(f"no {event} yet")
    record.note("did", event)


def fail(record: Record, event: int) -> NoReturn:
    record.note("began", event)
    raise ValueError(f"no {event}\never")


async def sleep_together(record: Record, event: int) -> None:
    import trio

    record.note("began", event)
    await trio.sleep(0.2)
    record.note("did", event)


def sleep_in_a_thread(record: Record, event: int) -> None:
    record.note("began", event)
    time.sleep(0.2)
    record.note("did", event)


def initialize_badly() -> NoReturn:
    raise RuntimeError("no database here")


def die_at_start() -> NoReturn:
    os._exit(9)
