"""A worker that handles several events at a time: coroutines on trio, functions in its threads.

Events of one key are handled one after the other here too, where the group keeps key order.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import trio

from eventlog import EventEnvelope
from workers import forks
from workers.child import now_ns
from workers.handlers import is_async
from workers.work import LOOK_S, Worker

if TYPE_CHECKING:
    from eventlog.blocking import Lease


def run_together(worker: Worker) -> None:
    """Work until told to stop."""
    trio.run(_Together(worker).run)


class _Together:
    """The worker's lease, shared by `concurrency` tasks."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._member = worker.member
        self._is_async = is_async(worker.handler)
        self._in_order = worker.spec.ordering == "key"
        self._running: dict[int, int] = {}
        self._behind: dict[str, deque[tuple[int, EventEnvelope]]] = {}
        """By key: events that wait for one of theirs that runs."""

    async def run(self) -> None:
        """Lease by lease."""
        worker = self._worker
        while not worker.is_stopping:
            count, least = worker.lease_count(), worker.spec.concurrency
            lease = await trio.to_thread.run_sync(self._member.lease, count, least)
            if lease is None:
                break
            started_s = time.monotonic()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._settle_now_and_then, lease, nursery.cancel_scope)
                async with trio.open_nursery() as tasks:
                    for _ in range(min(worker.spec.concurrency, lease.count)):
                        tasks.start_soon(self._handle_some, lease)
                nursery.cancel_scope.cancel()
            worker.settle(lease)
            self._member.release(lease)
            worker.size.note(lease.count, time.monotonic() - started_s)
        await trio.to_thread.run_sync(self._member.flush)

    async def _settle_now_and_then(self, lease: Lease, scope: trio.CancelScope) -> None:
        while not scope.cancel_called:
            await trio.sleep(LOOK_S)
            self._worker.look(lease)

    async def _handle_some(self, lease: Lease) -> None:
        """One of the tasks: event after event."""
        worker = self._worker
        while not worker.is_stopping:
            try:
                row, seq_no = lease.todo.popleft()
            except IndexError:
                return
            envelope = worker.envelope_of(lease, seq_no)
            if envelope is None:
                continue
            if self._in_order and envelope.key is not None:
                await self._handle_line(lease, row, envelope, envelope.key)
            else:
                await self._handle(lease, row, envelope)

    async def _handle_line(self, lease: Lease, row: int, envelope: EventEnvelope, key: str) -> None:
        """The event, and those of its key that come while it runs; not if one of them runs."""
        if key in self._behind:
            self._behind[key].append((row, envelope))
            return
        line = self._behind[key] = deque([(row, envelope)])
        try:
            while line and not self._worker.is_stopping:
                if not await self._handle(lease, *line.popleft()):
                    self._put_back(lease, line)
                    self._member.release_key(lease, envelope)
                    return
            self._put_back(lease, line)
        finally:
            del self._behind[key]

    @staticmethod
    def _put_back(lease: Lease, line: deque[tuple[int, EventEnvelope]]) -> None:
        """What was not begun is among the lease's again, so that it is given back with the rest."""
        lease.todo.extendleft((row, one.seq_no or 0) for row, one in reversed(line))
        line.clear()

    async def _handle(self, lease: Lease, row: int, envelope: EventEnvelope) -> bool:
        """One event; whether its handler returned."""
        worker, seq_no = self._worker, envelope.seq_no or 0
        if not worker.keep_order(lease, row, envelope):
            return False
        begun_ns = now_ns()
        self._running[seq_no] = begun_ns
        self._member.begin(row, seq_no, begun_ns)
        self._show()
        try:
            result = await self._call(worker.argument(envelope))
        except trio.Cancelled:
            raise  # the worker ends, by no fault of this event
        except BaseException as error:  # noqa: BLE001 - SystemExit too: the event failed
            worker.failed(lease, envelope, error)
            return False
        else:
            worker.succeeded(lease, row, envelope, result)
            return True
        finally:
            del self._running[seq_no]
            self._show()

    async def _call(self, argument: Any) -> Any:
        handler: Callable[[Any], Any] = self._worker.handler
        if self._is_async:
            return await forks.wait_for(handler, argument)
        return await trio.to_thread.run_sync(forks.call, handler, argument)

    def _show(self) -> None:
        """The oldest of what runs: a time limit is about that one."""
        if not self._running:
            self._member.show(0, 0, 0)
            return
        seq_no, begun_ns = next(iter(self._running.items()))  # in the order in which they began
        self._member.show(seq_no, begun_ns, len(self._running))
