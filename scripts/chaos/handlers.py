"""What pools run: handlers that note what they are given, and do to it what handlers do.

The kind of an event says what becomes of it; `KINDS` has them all.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from chaos.records import Record
from eventlog import EventEnvelope

SLOW_TIMES: Final = 14
"""A slow event ends when it was begun so often: more often than it may be delivered."""
SLOW_S: Final = 30.0
REJECTED: Final = {"poison", "flaky"}
"""What `reject` fails with, until it is healed."""
LEAVE_NAME: Final = "leave"
HOST: Final = "SOAK_HOST"
"""In the environment: the host on which a pool runs, if that is not this machine."""
HEALED_NAME: Final = "healed"


def handle(folder: str, hurry: bool, envelope: EventEnvelope) -> dict[str, int] | None:
    """Note the event, spoil it, and do what its kind says."""
    event: dict[str, Any] = envelope.event
    if "r" in event:
        return None
    record, number, pid = _record_in(folder), envelope.seq_no or 0, os.getpid()
    record.note("got", number, event["p"], event["n"], pid)
    kind = event.get("k", "")
    _spoil(event)
    if kind in KINDS and not (hurry and kind == "slow"):
        KINDS[kind](folder, envelope)
    if os.getpid() != pid:
        return {"r": number}  # the forked child of a handler: nobody may store what it returns
    record.note("did", number, envelope.key or "-", time.monotonic_ns(), os.getpid())
    return {"r": number}


def reject(folder: str, envelope: EventEnvelope) -> None:
    """Fail until the handler is healed: the event is a dead letter meanwhile."""
    event: dict[str, Any] = envelope.event
    record = _record_in(folder)
    producer, counter, number = event["p"], event["n"], envelope.seq_no
    kind = event.get("k", "")
    _spoil(event)
    if kind in REJECTED and not (Path(folder) / HEALED_NAME).exists():
        raise ValueError("not healed yet")
    record.note("got", number, producer, counter, os.getpid())
    record.note("did", number, envelope.key or "-", time.monotonic_ns(), os.getpid())


_RECORDS: dict[str, Record] = {}


def _record_in(folder: str) -> Record:
    """The record of this worker; a forked child writes into its parent's, where it is found."""
    if folder not in _RECORDS:
        # Processes of several hosts may have the same number.
        name = f"worker-{os.environ.get(HOST, '')}-{os.getpid()}"
        _RECORDS[folder] = Record(Path(folder) / name)
    return _RECORDS[folder]


def _spoil(event: dict[str, Any]) -> None:
    """Change the event in place, in the end to something that cannot be stored."""
    event.clear()
    event.update(p="spoiled", n=-1, x=object())


def _poison(_folder: str, _envelope: EventEnvelope) -> None:
    os._exit(3)


def _flaky(folder: str, envelope: EventEnvelope) -> None:
    """Fail once; the next delivery has to get the event as it was."""
    try:
        (Path(folder) / f"flaky-{envelope.seq_no}").touch(exist_ok=False)
    except FileExistsError:
        return
    raise ConnectionError("a first attempt fails")


def _slow(folder: str, envelope: EventEnvelope) -> None:
    """Ask the pool's owner to leave, and wait to be killed for that."""
    begun = Path(folder) / f"slow-{envelope.seq_no}"
    with begun.open("a") as file:
        file.write(".")
    if begun.stat().st_size < SLOW_TIMES:
        (Path(folder) / LEAVE_NAME).touch()
        time.sleep(SLOW_S)


def _forks(_folder: str, envelope: EventEnvelope) -> None:
    """Fork; the child ends in one of the ways in which the handler itself could."""
    child = os.fork()
    if child == 0:
        match (envelope.seq_no or 0) % 3:
            case 0:
                sys.exit(0)
            case 1:
                raise RuntimeError("the child of a handler ends with this")
            case _:
                return
    with suppress(ChildProcessError):  # SIGCHLD may be ignored: then it has ended
        os.waitpid(child, 0)


KINDS: Final[dict[str, Callable[[str, EventEnvelope], None]]] = {
    "poison": _poison,
    "flaky": _flaky,
    "slow": _slow,
    "forks": _forks,
}
