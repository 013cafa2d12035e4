"""A worker that handles several events at a time: coroutines on trio, functions in its threads.

Events of one key are handled one after the other here too, where the group keeps key order.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import trio

from eventlog import EventEnvelope
from workers import forks
from workers.handlers import is_async
from workers.work import LOOK_S, Worker

if TYPE_CHECKING:
    from eventlog.blocking import Lease

Delivery = tuple[int, EventEnvelope]


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
        self._behind: dict[str, deque[Delivery]] = {}
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
                nursery.start_soon(self._look_now_and_then, nursery.cancel_scope)
                async with trio.open_nursery() as tasks:
                    deliveries = iter(lease)
                    for _ in range(min(worker.spec.concurrency, lease.count)):
                        tasks.start_soon(self._handle_some, lease, deliveries)
                nursery.cancel_scope.cancel()
            lease.give_back()
            worker.size.note(lease.count, time.monotonic() - started_s)
        await trio.to_thread.run_sync(self._member.flush)

    async def _look_now_and_then(self, scope: trio.CancelScope) -> None:
        while not scope.cancel_called:
            await trio.sleep(LOOK_S)
            self._worker.look()

    async def _handle_some(self, lease: Lease, deliveries: Iterator[Delivery]) -> None:
        """One of the tasks: event after event."""
        while not self._worker.is_stopping:
            delivery = next(deliveries, None)
            if delivery is None:
                return
            if self._in_order and delivery[1].key is not None:
                await self._handle_line(lease, delivery, delivery[1].key)
            else:
                await self._handle(lease, *delivery)

    async def _handle_line(self, lease: Lease, delivery: Delivery, key: str) -> None:
        """The event, and those of its key that come while it runs; not if one of them runs."""
        if key in self._behind:
            self._behind[key].append(delivery)
            return
        line = self._behind[key] = deque([delivery])
        try:
            while line and not self._worker.is_stopping:
                await self._handle(lease, *line.popleft())
        finally:
            del self._behind[key]  # what is left was not begun, so it is given back with the rest

    async def _handle(self, lease: Lease, attempt: int, envelope: EventEnvelope) -> None:
        """One event, unless it is somebody else's by now."""
        worker = self._worker
        if not lease.begin(envelope):
            return
        try:
            result = await self._call(worker.argument(envelope))
        except trio.Cancelled:
            raise  # the worker ends, by no fault of this event
        except BaseException as error:  # noqa: BLE001 - SystemExit too: the event failed
            worker.failed(lease, envelope, attempt, error)
        else:
            worker.succeeded(lease, envelope, attempt, result)
        worker.look_if_limited()

    async def _call(self, argument: Any) -> Any:
        handler: Callable[[Any], Any] = self._worker.handler
        if self._is_async:
            return await forks.wait_for(handler, argument)
        return await trio.to_thread.run_sync(forks.call, handler, argument)
