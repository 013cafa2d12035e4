"""Groups for an engine whose server is this process: the memory engine's model does the work.

A driver that keeps its events in a `MemoryLog` has groups by deriving from `ModelledGroups`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import anyio
from anyio.lowlevel import checkpoint

from eventlog.api.group import DeadLetter, Exhausted, ExitReport, GroupReport, MemberReport
from eventlog.api.loops import call_in_this_loop
from eventlog.api.positions import SEQ_NO_MAX
from eventlog.config import GroupOrdering
from eventlog.errors import EventsTruncated
from eventlog.event.record_batch import PackedBatch
from eventlog.memory.coordinator import Groups
from eventlog.memory.groups import GroupModel
from eventlog.memory.model import MemoryLog
from eventlog.remote.driver import Delivery, Done, Failed, Outcome, Stored
from eventlog.remote.record import Limits, RecordBuilder

T = TypeVar("T")


def store(log: MemoryLog, records: Sequence[bytes]) -> int:
    """Store records, all or none, each as a batch of its own; the first one's number.

    Raises:
        LogFull: there is no room for all of them.
    """
    with log.groups.changing():
        log.make_room(sum(map(len, records)))
        first = log.last + 1
        for record in records:
            log.append(PackedBatch(1, 0, 0, record))
        return first


def stored_in(log: MemoryLog, seq_no: int, count: int) -> list[Stored]:
    """Up to `count` events from `seq_no` on, of a log whose batches are records.

    Raises:
        EventsTruncated: retention deleted the first one.
    """
    batches = map(log.batch_of, range(seq_no, min(seq_no + count, log.last + 1)))
    return [
        Stored(one.base_seq_no, one.append_time_ns, bytes(one.packed.payload))
        for one in batches
        if one is not None
    ]


async def wait_for(log: MemoryLog, look: Callable[[], T], group: str = "") -> T:
    """What there is once there is something; it looks after each change, and each backoff."""
    await checkpoint()
    while True:
        seen = log.version
        if found := look():
            return found
        changed = anyio.Event()
        log.call_when_changed(call_in_this_loop(changed.set), seen)
        with anyio.move_on_after(log.groups.wait_s(group)):
            await changed.wait()


class ModelledGroups:
    """What a driver has of groups; see `DriverOfGroups`."""

    log: MemoryLog

    async def group(
        self, name: str, ordering: GroupOrdering, max_deliveries: int, position: int
    ) -> ModelledGroup:
        self.log.groups.open(name, ordering, max_deliveries, position)
        return ModelledGroup(self.log, name)

    async def groups(self) -> list[GroupReport]:
        return self.log.groups.reports()

    async def dead_letters(self, group: str) -> list[DeadLetter]:
        return self.log.groups.dead_letters(group)

    async def retry_dead(self, group: str, seq_nos: Sequence[int]) -> int:
        return self.log.groups.retry_dead(group, set(seq_nos))

    async def drop_dead(self, group: str, seq_nos: Sequence[int]) -> int:
        return self.log.groups.drop_dead(group, set(seq_nos))


class ModelledGroup:
    """See `GroupDriver`."""

    def __init__(self, log: MemoryLog, name: str) -> None:
        self._log = log
        self._name = name

    @property
    def _groups(self) -> Groups:
        return self._log.groups

    @property
    def _model(self) -> GroupModel:
        return self._groups.get(self._name)

    async def join(self, member_id: int, owner: int, pid: int) -> None:
        self._groups.join(self._name, owner, member_id, pid)

    async def take(self, member_id: int, count: int, least: int) -> list[Delivery]:
        return await wait_for(self._log, lambda: self._take(member_id, count, least), self._name)

    def _take(self, member_id: int, count: int, least: int) -> list[Delivery]:
        with self._groups.lock:
            held = self._groups.take(self._name, member_id, count, least)
            numbers = [] if held is None else list(held.todo)
            if held is not None:
                held.out.update(numbers)
                held.todo.clear()
            events = [self._event(number) for number in numbers]
            return [Delivery(event, self._model.attempt_of(event.seq_no)) for event in events]

    def _event(self, seq_no: int) -> Stored:
        """The event; if retention has deleted it, the copy that its dead letter has."""
        try:
            return stored_in(self._log, seq_no, 1)[0]
        except EventsTruncated:
            copy = self._groups.envelope_of(self._name, seq_no)
            if copy is None:
                raise
            builder = RecordBuilder(Limits(SEQ_NO_MAX, SEQ_NO_MAX, 1, 1), self._log.path)
            return Stored(seq_no, copy.timestamp_ns, builder.pack(copy))

    async def settle(self, member_id: int, outcomes: Sequence[Outcome]) -> set[int]:
        with self._groups.changing():
            return {one.seq_no for one in outcomes if not self._settle(member_id, one)}

    def _settle(self, member_id: int, outcome: Outcome) -> bool:
        """Whether the event was the member's."""
        name, seq_no = self._name, outcome.seq_no
        held = self._model.holders.get(seq_no)
        if held is None or held.member_id != member_id:
            return False
        if isinstance(outcome, Failed):
            self._groups.failed(name, held, seq_no, outcome.failure)
        elif isinstance(outcome, Done):
            if outcome.results:
                first = store(self._log, outcome.results)
                self._model.note_done(first, self._log.last)
            self._groups.done(name, held, seq_no)
        else:
            held.out.discard(seq_no)
            del self._model.holders[seq_no]
        return True

    async def keep(self, member_ids: Sequence[int]) -> set[int]:
        return set(member_ids) - set(self._model.members)

    async def end(self, member_id: int, *, has_failed: bool) -> None:
        with self._groups.changing():
            held = self._model.holders.items() if self._groups.has(self._name) else ()
            for seq_no, lease in held:
                if lease.member_id == member_id and has_failed:
                    self._model.begin(lease, seq_no, 0)  # as far as the server knows
            self._groups.end(self._name, member_id)

    async def exhausted(self, owner: int) -> list[Exhausted]:
        return await wait_for(self._log, lambda: self._groups.exhausted(self._name, owner))

    async def reject(self, exhausted: Exhausted, report: ExitReport) -> None:
        self._groups.reject(self._name, exhausted, report)

    async def drained(self, seq_no: int) -> None:
        await wait_for(self._log, lambda: self._groups.is_drained(self._name, seq_no), self._name)

    async def members(self) -> list[MemberReport]:
        with self._groups.lock:
            return self._model.member_reports()
