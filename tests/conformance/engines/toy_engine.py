"""An engine as somebody else would ship it: a driver, over a dict, found by its entry point.

Its "servers" are lists in this process, so what the suite tests here is the way from an address to
an engine, the shell around a driver, and the blocking log that is made over an asynchronous one.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, cast
from uuid import UUID, uuid4

import anyio

if TYPE_CHECKING:
    from tests.conformance.engines.toy_groups import ToyGroup
else:
    from toy_groups import ToyGroup

from eventlog.api.group import DeadLetter, GroupReport
from eventlog.api.loops import call_in_this_loop
from eventlog.api.refusals import full_by_retention, truncated
from eventlog.config import AskedOptions, GroupOrdering, LogOptions
from eventlog.event.envelope import EventEnvelope
from eventlog.memory.coordinator import Groups
from eventlog.remote.driver import Opened, OutOfTurn, Position, Reader, State, Stored
from eventlog.remote.log import RemoteEventLog
from eventlog.remote.record import readable

NAME: Final = "toy"
OPTIONS: Final = frozenset(
    {"durability", "retention", "on_full", "max_event_bytes", "retry_s", "lease_s"}
)


def open_log(address: str, asked: AskedOptions) -> RemoteEventLog:
    """A handle of the log that `toy://NAME` means."""
    return RemoteEventLog(address, asked, lambda: ToyDriver(address, asked))


class Server:
    """One log; any thread may call it, and none of its methods waits."""

    def __init__(self, path: str, options: LogOptions) -> None:
        self.path = path
        self.options = options
        self.log_id: UUID = uuid4()
        self.events: list[Stored] = []
        self.first = 1
        self.positions: dict[str, Position] = {}
        self.producers: dict[int, dict[int, int]] = {}
        self.lock = threading.RLock()
        self.waiting: list[Callable[[], object]] = []
        self.groups = Groups(cast("Any", self), self.lock)

    @property
    def last(self) -> int:
        return self.first + len(self.events) - 1

    @property
    def size(self) -> int:
        return sum(len(one.record) for one in self.events)

    def append(self, producer_id: int, producer_seq: int, records: Sequence[bytes]) -> int:
        stored = self.producers.setdefault(producer_id, {})
        if producer_seq in stored:
            return stored[producer_seq]
        if producer_seq != len(stored) + 1:
            raise OutOfTurn
        stored[producer_seq] = self.store(records)
        return stored[producer_seq]

    def store(self, records: Sequence[bytes]) -> int:
        self._make_room(sum(map(len, records)))
        first, now_ns = self.last + 1, time.time_ns()
        self.events += [Stored(n, now_ns, record) for n, record in enumerate(records, first)]
        self.wake()
        return first

    def _make_room(self, size: int) -> None:
        retention = self.options.retention
        while self.events and self._is_over(self.events[0], size):
            lowest = min((one.position for one in self.positions.values()), default=self.last)
            if retention.keep_unacked and lowest < self.first:
                if self._is_too_large(size):
                    raise full_by_retention(self.path, retention.max_bytes, lowest + 1)
                return
            del self.events[0]
            self.first += 1
            self.groups.pass_deleted()

    def _is_over(self, oldest: Stored, size: int) -> bool:
        age = self.options.retention.max_age
        is_old = age is not None and time.time_ns() - oldest.stored_ns > age.total_seconds() * 1e9
        return is_old or self._is_too_large(size)

    def _is_too_large(self, size: int) -> bool:
        limit = self.options.retention.max_bytes
        return limit is not None and self.size + size > limit

    def read(self, seq_no: int, count: int) -> list[Stored]:
        if seq_no < self.first:
            raise truncated(self.path, seq_no, self.first)
        return self.events[seq_no - self.first :][:count]

    @property
    def first_available(self) -> int:
        return self.first

    def next_batch(self, seq_no: int) -> list[EventEnvelope]:
        found = (readable(stored, self.path) for stored in self.read(seq_no, 1))
        return [envelope for envelope in found if envelope is not None]

    def note_position(self, consumer: str, position: int) -> None:
        known = self.positions.get(consumer)
        if known is None or known.position != position:
            self.positions[consumer] = Position(position, time.time_ns())

    def move(self, consumer: str, position: int, *, is_ack: bool) -> None:
        before = self.positions.get(consumer, Position(0, 0)).position
        moved = max(before, position) if is_ack else position
        moved = self.groups.skip(consumer, moved) if is_ack else moved
        self.positions[consumer] = Position(moved, time.time_ns())
        if not is_ack:
            self.groups.seek(consumer, moved)

    def wake(self) -> None:
        waiting, self.waiting = self.waiting, []
        for call in waiting:
            call()


_servers: dict[str, Server] = {}
_servers_lock = threading.Lock()


class ToyDriver:
    """See `Driver`."""

    def __init__(self, address: str, asked: AskedOptions) -> None:
        self.path = address
        self._asked = asked

    async def open(self) -> Opened:
        with _servers_lock:
            if self.path not in _servers:
                _servers[self.path] = Server(self.path, LogOptions.of(self._asked))
        self._server = server = _servers[self.path]
        return Opened(
            log_id=server.log_id,
            options=server.options,
            record_bytes_max=2 * server.options.max_event_bytes + 1024,
            atomic_events_max=1000,
            atomic_bytes_max=1 << 20,
        )

    async def aclose(self) -> None:
        """Nothing is to be given back."""

    async def append(self, producer_id: int, producer_seq: int, records: Sequence[bytes]) -> int:
        with self._server.lock:
            return self._server.append(producer_id, producer_seq, records)

    async def state(self) -> State:
        with self._server.lock:
            return State(self._server.first, self._server.last, self._server.size)

    async def read(self, seq_no: int, count: int) -> list[Stored]:
        with self._server.lock:
            return self._server.read(seq_no, count)

    def reader(self, seq_no: int) -> Reader:
        return ToyReader(self._server, seq_no)

    async def synced(self) -> None:
        """Nothing is ever on a disk, and a test cannot tell."""

    async def find_time(self, time_ns: int) -> int:
        with self._server.lock:
            found = (one.seq_no for one in self._server.events if one.stored_ns >= time_ns)
            return next(found, self._server.last + 1)

    async def positions(self) -> Mapping[str, Position]:
        with self._server.lock:
            return dict(self._server.positions)

    async def move(self, consumer: str, position: int, *, is_ack: bool) -> None:
        with self._server.lock:
            self._server.move(consumer, position, is_ack=is_ack)

    async def forget(self, consumer: str) -> None:
        with self._server.lock:
            self._server.positions.pop(consumer, None)
            self._server.groups.forget(consumer)

    async def group(
        self, name: str, ordering: GroupOrdering, max_deliveries: int, position: int
    ) -> ToyGroup:
        self._server.groups.open(name, ordering, max_deliveries, position)
        return ToyGroup(self._server, name)

    async def groups(self) -> list[GroupReport]:
        return self._server.groups.reports()

    async def dead_letters(self, group: str) -> list[DeadLetter]:
        return self._server.groups.dead_letters(group)

    async def retry_dead(self, group: str, seq_nos: Sequence[int]) -> int:
        return self._server.groups.retry_dead(group, set(seq_nos))

    async def drop_dead(self, group: str, seq_nos: Sequence[int]) -> int:
        return self._server.groups.drop_dead(group, set(seq_nos))


class ToyReader:
    """See `Reader`."""

    def __init__(self, server: Server, seq_no: int) -> None:
        self._server = server
        self._seq_no = seq_no

    async def next(self) -> list[Stored]:
        while True:
            changed = anyio.Event()
            with self._server.lock:
                if found := self._server.read(self._seq_no, 512):
                    self._seq_no += len(found)
                    return found
                self._server.waiting.append(call_in_this_loop(changed.set))
            await changed.wait()

    async def aclose(self) -> None:
        """Nothing is to be given back."""
