"""Write the golden logs of today's format: python tests/golden/make.py DIRECTORY

The logs under `v1` were written once, by the first release that had what is in them (`causes`,
`due` and `states` came later than the others), and are never written again: whatever the code
becomes, it has to read them. A later format gets a directory of its own.

Everything that differs from run to run (clock, random numbers, process, boot) is fixed, so that a
test can hold what the code writes today against the files, byte for byte.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any, Final
from unittest import mock
from uuid import UUID

from eventlog.api.times import LogClock
from eventlog.event.batch_builder import BatchBuilder
from eventlog.event.cause import Cause
from eventlog.event.envelope import EventEnvelope
from eventlog.event.record_batch import PackedBatch
from eventlog.event.results import envelopes_of_results
from eventlog.local.groups import records
from eventlog.local.groups.store import GroupStore
from eventlog.local.storage.log.writable import WritableLog
from eventlog.testing import open_storage
from tests.groups.world import pack_letter

START_NS: Final = 1_700_000_000_000_000_000
BOOT: Final = "00000000-0000-4000-8000-000000000000"
PRODUCER: Final = 0x0123_4567_89AB_CDEF
MOMENT: Final = datetime(2024, 2, 29, 12, 30, 15, 123456, tzinfo=UTC)
OTHER_CAUSE: Final = Cause(UUID(int=2), 2**63 - 1, "группа/0")
DUE: Final = datetime(2030, 1, 1, tzinfo=UTC)
END: Final = datetime(2030, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
ODD: Final[list[Any]] = [
    None,
    True,
    -(2**63),
    2**64 - 1,
    1.5,
    "текст 🎈",
    b"\x00\xff",
    [1, [2, [3]]],
    {"a": {"b": [None]}, 7: "seven"},
    MOMENT,
    UUID("12345678-1234-5678-1234-567812345678"),
]
"""One event of every type that a log can carry."""


@contextmanager
def fixed_world() -> Iterator[None]:
    """No clock, no randomness, no process of its own."""
    with ExitStack() as stack:
        for target, replacement in {
            "time.time_ns": lambda: START_NS,
            "os.urandom": lambda size: bytes(range(1, size + 1)),
            "os.getpid": lambda: 4242,
            "eventlog.local.storage.starting.start.boot_id": lambda: BOOT,
            "eventlog.local.storage.starting.start.process_start": lambda _pid: 777,
        }.items():
            stack.enter_context(mock.patch(target, replacement))
        yield


def batch(*rows: tuple[Any, ...]) -> PackedBatch:
    """One batch; each row is an event, and perhaps a key and headers."""
    builder = BatchBuilder(4096)
    for row in rows:
        builder.add(*row)
    return builder.build()


def fill(log: WritableLog) -> None:
    """Events of all types, keys, headers, own ids; three segments; two consumers; a producer."""
    log.append(batch(*((event,) for event in ODD)))
    log.append(batch(("keyed", "key"), ("plain",), ("headed", None, {"h": "v"})), PRODUCER, 1)
    own = EventEnvelope("own id", id=UUID(int=5), timestamp=MOMENT, key="own key")
    log.append(batch((own,), ("made id",)), PRODUCER, 2)
    for n in range(8):
        log.append(batch((f"{n} " + "." * 1000,)), PRODUCER, 3 + n)
    log.ack("reader", 17)
    log.seek("читатель", 3)


def fill_groups(log: WritableLog) -> None:
    """A group in the middle of its work: events done, failed, given out, and a dead letter."""
    store = GroupStore(log, TickingClock(START_NS).now)
    state = store.open_group("группа", "key", 3, 0)
    store.pages.make(0)
    store.commit(records.Joined(state.name, 7, 4242, 777, 0))
    store.commit(records.Leased(state.name, 1, 7, [(1, 6)]))
    store.commit(records.Done(state.name, 1, [(1, 3)]))
    store.letters.reject(
        state, 1, 4, pack_letter(event="text", key="k", headers=None, error="ValueError: 1")
    )
    store.commit(records.Failed(state.name, 1, 5))
    store.sync()
    store.close()


def fill_causes(log: WritableLog) -> None:
    """Results of two groups among other events, and a batch that has none."""
    source = EventEnvelope("source", id=UUID(int=6), timestamp=MOMENT, key="ключ", seq_no=7)
    results = envelopes_of_results(source, ["first", "second"], UUID(int=1), "resize")
    other = EventEnvelope("own", id=UUID(int=7), timestamp=MOMENT, cause=OTHER_CAUSE)
    log.append(batch(("plain",), *((one,) for one in results), (other,), ("plain",)))
    log.append(batch(("without",)))


def fill_due(log: WritableLog) -> None:
    """Events that groups hand out later or not after a time, among others; and batches without."""
    log.append(batch(("before",)))
    later = EventEnvelope("later", id=UUID(int=8), timestamp=MOMENT, not_before=DUE)
    both = EventEnvelope("both", id=UUID(int=9), timestamp=MOMENT, not_before=DUE, expires=END)
    log.append(batch((later,), ("plain", "ключ"), (both, "ключ")))
    log.append(batch(("after",)))


def fill_states(log: WritableLog) -> None:
    """Consumers with a state, with one no more, with none, and one that had a position before."""
    log.append(batch(*((n,) for n in range(1, 11))))
    log.ack("читатель", 4, "состояние".encode())
    log.ack("reader", 3)
    log.ack("reader", 5, b"five")
    log.ack("reader", 7, bytes(range(256)))
    log.ack("moved on", 6, b"")
    log.ack("moved on", 8)
    log.ack("plain", 9)


def make(directory: Path) -> None:
    """The logs: ended in order, killed in the middle of a batch, with what came later, a group."""
    with fixed_world():
        log = open_storage(
            str(directory / "orderly"), segment_bytes=4096, clock=TickingClock(START_NS)
        )
        fill(log)
        log.close()
    with fixed_world():
        log = open_storage(
            str(directory / "killed"), segment_bytes=4096, clock=TickingClock(START_NS)
        )
        fill(log)
        log.abandon()
        *_, last = sorted((directory / "killed").glob("*.seg"))
        end = last.read_bytes().rstrip(b"\0")
        torn = end[64 : 64 + 500]
        with open(last, "r+b") as file:
            file.seek((len(end) + 7) // 8 * 8)
            file.write(torn)

    with fixed_world():
        log = open_storage(
            str(directory / "causes"), segment_bytes=4096, clock=TickingClock(START_NS)
        )
        fill_causes(log)
        log.close()

    with fixed_world():
        log = open_storage(
            str(directory / "states"), segment_bytes=4096, clock=TickingClock(START_NS)
        )
        fill_states(log)
        log.close()

    with fixed_world():
        log = open_storage(str(directory / "due"), segment_bytes=4096, clock=TickingClock(START_NS))
        fill_due(log)
        log.close()

    with fixed_world():
        log = open_storage(
            str(directory / "groups"), segment_bytes=4096, clock=TickingClock(START_NS)
        )
        log.append(batch(*((n, f"key {n % 2}") for n in range(1, 11))))
        fill_groups(log)
        log.abandon()


class TickingClock(LogClock):
    """A writer's clock that goes a second further whenever something is stored with its time."""

    def __init__(self, start_ns: int) -> None:
        ticks = count(start_ns, 1_000_000_000)
        super().__init__(lambda: next(ticks))

    def steady(self) -> int:
        """Ages: a look at them changes nothing."""
        return START_NS


if __name__ == "__main__":
    make(Path(sys.argv[1]))
