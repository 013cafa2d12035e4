"""Groups of the toy engine: the model of the memory engine, behind the calls of a driver."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

import anyio
from anyio.lowlevel import checkpoint

from eventlog.api.group import Exhausted, ExitReport, MemberReport
from eventlog.api.loops import call_in_this_loop
from eventlog.memory.groups import GroupModel, Seat
from eventlog.remote.driver import Delivery, Done, Failed, Outcome

if TYPE_CHECKING:
    from tests.conformance.engines.toy_engine import Server

T = TypeVar("T")


class ToyGroup:
    """See `GroupDriver`."""

    def __init__(self, server: Server, name: str) -> None:
        self._server = server
        self._groups = server.groups
        self._name = name

    @property
    def _model(self) -> GroupModel:
        return self._groups.get(self._name)

    async def _wait_for(self, look: Callable[[], T | None]) -> T:
        """What there is once there is something; it looks again after each change."""
        await checkpoint()
        while True:
            changed = anyio.Event()
            with self._server.lock:
                if found := look():
                    return found
                due_s = self._groups.wait_s(self._name)
                self._server.waiting.append(call_in_this_loop(changed.set))
            with anyio.move_on_after(due_s):
                await changed.wait()

    async def join(self, member_id: int, owner: int, pid: int) -> None:
        with self._groups._changing():
            self._model.members[member_id] = Seat(member_id, owner, pid)

    async def take(self, member_id: int, count: int, least: int) -> list[Delivery]:
        return await self._wait_for(lambda: self._take(member_id, count, least))

    def _take(self, member_id: int, count: int, least: int) -> list[Delivery]:
        held = self._groups.take(self._name, member_id, count, least)
        if held is None:
            return []
        numbers = list(held.todo)
        held.out.update(numbers)
        held.todo.clear()
        events = [self._server.read(number, 1)[0] for number in numbers]
        return [Delivery(one, self._model.attempt_of(one.seq_no)) for one in events]

    async def settle(self, member_id: int, outcomes: Sequence[Outcome]) -> set[int]:
        await checkpoint()
        with self._groups._changing():
            return {one.seq_no for one in outcomes if not self._settle(member_id, one)}

    def _settle(self, member_id: int, outcome: Outcome) -> bool:
        """Whether the event was the member's."""
        model, seq_no = self._model, outcome.seq_no
        held = model.holders.get(seq_no)
        if held is None or held.member_id != member_id:
            return False
        if isinstance(outcome, Failed):
            self._groups.failed(self._name, held, seq_no, outcome.failure)
        elif isinstance(outcome, Done):
            if outcome.results:
                first = self._server.store(outcome.results)
                model.note_done(first, first + len(outcome.results) - 1)
            model.finish(held, seq_no)
        else:
            held.out.discard(seq_no)
            model._put_back([seq_no])
        return True

    async def keep(self, member_ids: Sequence[int]) -> set[int]:
        return set(member_ids) - set(self._model.members)

    async def end(self, member_id: int, *, has_failed: bool) -> None:
        with self._groups._changing():
            model = self._groups._models.get(self._name)
            if model is None:
                return
            for held in set(model.holders.values()):
                if held.member_id == member_id and has_failed:
                    for number in held.open:
                        model.begin(held, number, 0)
            model.end(member_id)

    async def exhausted(self, owner: int) -> list[Exhausted]:
        return await self._wait_for(lambda: self._groups.exhausted(self._name, owner))

    async def reject(self, exhausted: Exhausted, report: ExitReport) -> None:
        self._groups.reject(self._name, exhausted, report)

    async def drained(self, seq_no: int) -> None:
        await self._wait_for(lambda: self._groups.is_drained(self._name, seq_no))

    async def members(self) -> list[MemberReport]:
        with self._server.lock:
            return self._model.member_reports()
