"""What runs in processes of its own, until it is killed; each writes down what it saw.

An event is `{"p": producer, "n": counter}`, with padding of some sizes; `"k"` says what its handler
does (see `handlers`). A result is `{"r": number of its event}`.
"""

from __future__ import annotations

import os
import random
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

from chaos.case import GROUPS, REJECTS
from chaos.handlers import LEAVE_NAME, handle, reject
from chaos.records import Record
from eventlog import (
    EventLogError,
    ForkedHandle,
    LogDeleted,
    LogFull,
    SeekPosition,
    blocking,
)
from eventlog.api.stream_options import OnTruncated
from workers import PoolFailed
from workers.blocking import Pool

PADDING: Final = (10, 10, 200, 3_000, 100_000)
KIND_EVERY: Final = {"poison": 2_000, "flaky": 40, "forks": 60, "slow": 6_000}
"""One of so many events is of a kind."""
MAX_DELIVERIES: Final = 10
"""Chaos kills workers at any time; nobody innocent is that unlucky."""
KEYS: Final = 20
BACKLOG_MAX: Final = 5_000
"""Producers wait while a group is further behind: the end of a soak handles all that is left."""
STAY_S: Final = 6.0
LEASE_S: Final = 5.0
"""Silence after which a host counts as dead, for pools on a server."""
STOP_S: Final = 0.05
LOOK_S: Final = 0.02
FORK_S: Final = 15.0
FORK_EVERY_S: Final = 1.0
MISUSED: Final = 4
"""Exit code of a forked child whose parent's handle did not refuse it."""


def produce(
    log_path: str, name: str, record_path: str, pause: str, padding_max: str = "100000"
) -> None:
    """Append singly, in lists and pipelined, and note what was acknowledged."""
    paddings = [size for size in PADDING if size <= int(padding_max)]
    record, chance, counter = Record(record_path), random.Random(name), 0

    def event() -> dict[str, Any]:
        nonlocal counter
        counter += 1
        made: dict[str, Any] = {"p": name, "n": counter, "x": bytes(chance.choice(paddings))}
        for kind, every in KIND_EVERY.items():
            if chance.randrange(every) == 0:
                return made | {"k": kind, "x": b""}
        return made

    with blocking.open(log_path) as log:
        while True:
            time.sleep(float(pause))
            wait_for_groups(log, BACKLOG_MAX, lambda: time.sleep(LOOK_S))
            try:
                _append_some(log, record, chance, event)
            except LogFull:
                # What was refused was not stored; the audit would find it if it was.
                time.sleep(0.05)


def wait_for_groups(log: blocking.EventLog, backlog_max: int, pause: Callable[[], None]) -> None:
    """Pause until no group has more events before it than that; other consumers do not count."""
    while any(
        state.lag > backlog_max and state.name in {*GROUPS, REJECTS} for state in log.consumers()
    ):
        pause()


def _append_some(log: blocking.EventLog, record: Record, chance: random.Random, event: Any) -> None:
    match chance.randrange(3):
        case 0:
            made = event()
            record.note("acked", made["n"], log.append(made, key=str(made["n"] % KEYS)))
        case 1:
            many = [event() for _ in range(chance.randrange(1, 30))]
            first, last = log.append_many(many)
            if last - first + 1 == len(many):  # else others came in between its batches
                pairs = enumerate(many, first)
                record.note_all([("acked", made["n"], seq_no) for seq_no, made in pairs])
        case 2:
            with log.publisher(max_batch_bytes=chance.choice([500, 20_000, 300_000])) as publisher:
                made_all = [event() for _ in range(chance.randrange(1, 60))]
                handles = [publisher.send(made, key=str(made["n"] % KEYS)) for made in made_all]
                for made, handle in zip(made_all, handles, strict=True):
                    record.note("acked", made["n"], handle.result())


def fork(log_path: str) -> None:
    """Fork while a thread opens the log; a child tries the handle that it has from its parent.

    Children live on for longer than a client waits for a writer: a lock that one of them keeps
    would be a client's error.
    """
    threading.Thread(target=_open_again_and_again, args=(log_path,), daemon=True).start()
    children: list[int] = []
    parent = os.getpid()
    with blocking.open(log_path) as log:
        while True:
            child = os.fork()
            if child == 0:
                _be_a_forked_child(log, parent)
            children.append(child)
            time.sleep(FORK_EVERY_S)
            _wait_for(children, at_most=int(FORK_S / FORK_EVERY_S))


def _open_again_and_again(log_path: str) -> None:
    while True:
        with blocking.open(log_path) as log:
            log.status()
        time.sleep(LOOK_S)


def _be_a_forked_child(log: blocking.EventLog, parent: int) -> None:
    code = MISUSED
    try:
        log.append({"p": "forked", "n": 0})
    except ForkedHandle:
        code = 0
    finally:
        until = time.monotonic() + FORK_S
        while time.monotonic() < until and os.getppid() == parent:
            time.sleep(LOOK_S)
        os._exit(code)


def _wait_for(children: list[int], at_most: int) -> None:
    """Wait for the oldest children, so that few live."""
    while len(children) > at_most:
        try:
            _, status = os.waitpid(children.pop(0), 0)
        except ChildProcessError:
            continue  # the surroundings have waited for it
        if os.waitstatus_to_exitcode(status) == MISUSED:
            raise RuntimeError("a forked handle was not refused")


def consume(log_path: str, name: str, record_path: str, on_truncated: OnTruncated) -> None:
    """Read from the last acknowledged on, and acknowledge now and then."""
    record = Record(record_path)
    position = SeekPosition.LAST_ACKNOWLEDGED
    with (
        blocking.open(log_path) as log,
        log.subscribe(name, position, on_truncated=on_truncated) as stream,
    ):
        record.note("begin")
        for envelope in stream:
            event = envelope.event
            seq_no = envelope.seq_no or 0
            record.note("saw", seq_no, event.get("p", "-"), event.get("n", 0))
            if seq_no % 17 == 0:
                record.note("acking", seq_no)
                log.ack(name, seq_no)
                record.note("acked", seq_no)


def work(
    log_path: str, group: str, record_folder: str, ordering: str, results: str, until: str = ""
) -> None:
    """A pool that handles what comes, left and entered again and again.

    With `until="drained"` it handles what there is, and ends.
    """
    options: dict[str, Any] = {"ordering": ordering or None, "max_deliveries": MAX_DELIVERIES}
    if results:
        options["output"] = log_path
    chance = random.Random()
    hurry = until == "drained"
    leave = Path(record_folder) / LEAVE_NAME
    with blocking.open(log_path, lease_s=LEASE_S if "://" in log_path else None) as log:
        while True:
            leave.unlink(missing_ok=True)
            with (
                _killed_at_its_start(hurry),
                Pool(
                    log,
                    group=group,
                    handler=partial(handle, record_folder, hurry),
                    processes=2,
                    concurrency=1 if ordering else chance.choice([1, 8]),
                    stop_s=10.0 if hurry else STOP_S,
                    **options,
                ) as pool,
            ):
                if hurry:
                    pool.drained()
                    return
                _stay(leave, chance.uniform(STAY_S / 2, STAY_S))


@contextmanager
def _killed_at_its_start(hurry: bool) -> Iterator[None]:
    """Go on if a pool failed because all its first workers were killed, as may be in bad times.

    Somebody else may have waited for them: then nobody knows that it was SIGKILL.
    """
    try:
        yield
    except PoolFailed as error:
        was_killed = "SIGKILL" in str(error) or "exit code unknown" in str(error)
        if hurry or not was_killed:
            raise


def _stay(leave: Path, seconds: float) -> None:
    """Wait until somebody asks to leave, or the time is over."""
    until = time.monotonic() + seconds
    while time.monotonic() < until and not leave.exists():
        time.sleep(LOOK_S)


def work_and_reject(log_path: str, group: str, record_folder: str, until: str = "") -> None:
    """A pool on a log with short retention, whose letters outlive their events."""
    hurry = until == "drained"
    with blocking.open(log_path) as log:
        while True:
            with (
                _killed_at_its_start(hurry),
                Pool(
                    log,
                    group=group,
                    handler=partial(reject, record_folder),
                    processes=1,
                    max_deliveries=1,
                ) as pool,
            ):
                if hurry:
                    pool.drained()
                    return
                pool.run_forever()


def follow(log_path: str, name: str, record_path: str) -> None:
    """Follow a log that is deleted and made anew; nobody else looks at it but followers."""
    record = Record(record_path)
    while True:
        try:
            with (
                blocking.open(log_path) as log,
                log.subscribe(name, SeekPosition.BEGINNING) as stream,
            ):
                record.note("opened", time.monotonic_ns())
                for envelope in stream:
                    record.note("saw", envelope.seq_no, envelope.event["p"], envelope.event["n"])
        except LogDeleted:
            record.note("deleted", time.monotonic_ns())
        except EventLogError as error:
            _wait_for_a_log(record, error)


def work_until_deleted(log_path: str, group: str, record_path: str) -> None:
    """A pool on a log that is deleted and made anew."""
    record = Record(record_path)
    while True:
        try:
            with (
                blocking.open(log_path) as log,
                Pool(log, group=group, handler=_ignore, processes=1) as pool,
            ):
                record.note("opened", time.monotonic_ns())
                pool.run_forever()
        except LogDeleted:
            record.note("deleted", time.monotonic_ns())
        except EventLogError as error:
            _wait_for_a_log(record, error)


def _ignore(_envelope: Any) -> None:
    """Handle an event that nobody looks for."""


def _wait_for_a_log(record: Record, error: EventLogError) -> None:
    """Try again soon: the directory is just being deleted or made."""
    record.note("refused", type(error).__name__)
    time.sleep(0.1)


def serve(log_path: str) -> None:
    """Be the writer, with a clock that jumps (whose module has to come before the log's)."""
    script = str(Path(__file__).parent / "jumping_clock.py")
    os.execv(sys.executable, [sys.executable, script, log_path])


ROLES: Final[dict[str, Any]] = {
    "produce": produce,
    "fork": fork,
    "consume": consume,
    "work": work,
    "work_and_reject": work_and_reject,
    "follow": follow,
    "work_until_deleted": work_until_deleted,
    "serve": serve,
}
