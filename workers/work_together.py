"""A worker that handles several events at a time: coroutines on trio, functions in its threads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import trio

from eventlog import EventEnvelope
from workers.calling import Called, awaited, called
from workers.handlers import is_async
from workers.worker import LOOK_S, Worker


def run_together(worker: Worker) -> None:
    """Work until told to stop."""
    trio.run(_Together(worker).run)


class _Together:
    """The worker's lease, shared by `concurrency` tasks."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._loop = worker.loop
        self._member = worker.member
        self._is_async = is_async(worker.handler)

    async def run(self) -> None:
        """Lease by lease."""
        loop = self._loop
        while (wanted := loop.wanted()) is not None:
            lease = await trio.to_thread.run_sync(self._member.lease, *wanted)
            if lease is None:
                break
            loop.take(lease)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._look_now_and_then, nursery.cancel_scope)
                async with trio.open_nursery() as tasks:
                    for _ in range(min(self._worker.spec.concurrency, lease.count)):
                        tasks.start_soon(self._handle_some)
                nursery.cancel_scope.cancel()
            loop.give_back()
        await trio.to_thread.run_sync(self._member.flush)

    async def _look_now_and_then(self, scope: trio.CancelScope) -> None:
        while not scope.cancel_called:
            await trio.sleep(LOOK_S)
            self._worker.look()

    async def _handle_some(self) -> None:
        """One of the tasks: event after event."""
        begin = self._loop.lease.begin
        for attempt, envelope in self._loop.deliveries():
            if begin(envelope):
                await self._handle(attempt, envelope)

    async def _handle(self, attempt: int, envelope: EventEnvelope) -> None:
        worker = self._worker
        result, error = await self._call(worker.argument(envelope))
        if isinstance(error, trio.Cancelled):
            raise error  # the worker ends, by no fault of this event
        if error is not None:
            self._loop.raised(envelope, attempt, error)
        else:
            self._loop.returned(envelope, attempt, result)
        worker.look_if_limited()

    async def _call(self, argument: Any) -> Called:
        handler: Callable[[Any], Any] = self._worker.handler
        if self._is_async:
            return await awaited(handler, argument)
        return await trio.to_thread.run_sync(called, handler, argument)
