"""A pool's worker without a process: handlers run where the pool does, for tests and debuggers.

It has a process's place in the pool (see `place`), and works on the same leases: deliveries,
retries, dead letters, results and order are the group's. Coroutines run in the pool's event loop,
other handlers in threads of it. What nobody can do to a thread is to end it: a handler that still
runs when the pool has waited for it is left behind, and what it returns does not count.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from contextvars import copy_context
from typing import Any

import anyio
import anyio.to_thread
import sniffio

from eventlog import EventEnvelope, Failure, Group, Member
from workers.calling import Called, awaited, called
from workers.child import WorkerSpec
from workers.errors import PoolFailed
from workers.failing import Failing, describe, traceback_of
from workers.handlers import Code, Handler, is_async, wants_envelope
from workers.loop import WorkerLoop
from workers.place import Counts


class InProcessPlace:
    """One worker in the pool's own process; used in its event loop, but for its handlers."""

    restarts = 0
    _failing: Failing
    """Set when the handler is there."""

    def __init__(
        self,
        spec: WorkerSpec,
        group: Group,
        code: Code,
        on_failure: Callable[[PoolFailed], None],
    ) -> None:
        self._spec = spec
        self._group = group
        self._code = code
        self._on_failure = on_failure
        self._threads = anyio.CapacityLimiter(spec.concurrency)
        is_ordered = spec.ordering == "key"
        self._loop = WorkerLoop(
            spec.concurrency, self._failure_of, time.monotonic, in_order=is_ordered
        )
        self._member: Member | None = None
        self._final_counts = Counts(0, 0, 0, 0, 0)
        """What it has done when it left the group."""
        self._scope = anyio.CancelScope()
        self._has_ended = anyio.Event()
        self.ready = anyio.Event()
        self.pid = os.getpid()

    def __repr__(self) -> str:
        """Which group, and whether it works."""
        state = "ended" if self._has_ended.is_set() else "working"
        return f"<InProcessPlace of {self._group.name!r} {state}>"

    # --- as a place of a pool ----------------------------------------------------------------

    @property
    def has_workers(self) -> bool:
        """Whether there is anything to end."""
        return not self._has_ended.is_set()

    @property
    def has_unready(self) -> bool:
        """Whether it has not begun."""
        return not self.ready.is_set()

    def hear(self) -> None:
        """Nothing is said here that `counts` would not know."""

    def counts(self) -> Counts:
        """What it has done."""
        report = None if self._member is None else self._group.member(self._member.member_id)
        if report is None:
            return self._final_counts
        return Counts(
            report.handled, report.handled, report.failed, report.retried, report.in_flight
        )

    async def stop(self) -> None:
        """Begin nothing more, and wait for the handlers that run."""
        self._loop.stop()
        if self._member is None:
            self._scope.cancel()
        else:
            self._member.stop()
        await self.gone()

    def kill(self) -> None:
        """Leave the handlers that run behind."""
        self._loop.stop()
        self._scope.cancel()

    async def gone(self) -> None:
        """Wait for the end."""
        await self._has_ended.wait()

    async def run(self) -> None:
        """Work until told to stop."""
        try:
            with self._scope:
                handler = await self._prepared()
                if handler is not None:
                    await self._work(handler)
        finally:
            self._has_ended.set()

    async def _prepared(self) -> Handler | None:
        found: Code | None
        found, error = called(self._code.found)
        if found is not None:
            self._code = found
            if found.initializer is not None:
                _, error = await self._in_thread(found.initializer)
        if error is not None:
            text = traceback_of(error)
            message = f"a worker cannot start: {describe(error)}\n{text}"
            self._on_failure(PoolFailed(message, worker_traceback=text))
            return None
        handler: Handler = self._code.handler
        return handler

    # --- working -----------------------------------------------------------------------------

    def _failure_of(self, envelope: EventEnvelope, attempt: int, error: BaseException) -> Failure:
        return self._failing.failure_of(envelope, attempt, error)

    async def _work(self, handler: Handler) -> None:
        spec = self._spec
        self._failing = Failing(
            self._group.name, spec.max_deliveries, spec.backoff, self._code.retry_on
        )
        self._member = await self._group.open_member(spec.pool_id, spec.output, self._failure_of)
        async with self._member as member:
            self.ready.set()
            try:
                await self._work_with(member, handler)
            finally:
                self._final_counts = self.counts()._replace(in_flight=0)

    async def _work_with(self, member: Member, handler: Handler) -> None:
        loop = self._loop
        while (wanted := loop.wanted()) is not None:
            lease = await member.lease(*wanted)
            if lease is None:
                break
            loop.take(lease)
            async with anyio.create_task_group() as tasks:
                for _ in range(min(self._spec.concurrency, lease.count)):
                    tasks.start_soon(self._handle_some, member, handler)
            loop.give_back()
        await member.flush()

    async def _handle_some(self, member: Member, handler: Handler) -> None:
        """One task of several: event after event."""
        begin = self._loop.lease.begin
        for attempt, envelope in self._loop.deliveries():
            if not begin(envelope):
                continue
            result, error = await self._call(handler, envelope)
            if error is not None:
                self._loop.raised(envelope, attempt, error)
                continue
            self._loop.returned(envelope, attempt, result)
            if result is not None:
                await member.flush()  # its result is there before the next event of its key

    async def _call(self, handler: Handler, envelope: EventEnvelope) -> Called:
        argument = envelope if wants_envelope(handler) else envelope.event
        if not is_async(handler):
            return await self._in_thread(handler, argument)
        ended = await awaited(handler, argument)
        is_main = threading.current_thread() is threading.main_thread()
        if is_main and isinstance(ended.error, KeyboardInterrupt):  # it may be Ctrl-C
            raise ended.error
        return _checked(ended)

    async def _in_thread(self, function: Callable[..., Any], *arguments: Any) -> Called:
        if sniffio.current_async_library() == "asyncio":
            async with self._threads:
                return _checked(await _in_daemon(function, *arguments))
        ended = await anyio.to_thread.run_sync(
            called, function, *arguments, abandon_on_cancel=True, limiter=self._threads
        )
        return _checked(ended)


async def _in_daemon(function: Callable[..., Any], *arguments: Any) -> Called:
    """Call it in a thread that keeps no program from ending, as anyio's would on asyncio."""
    import asyncio

    loop = asyncio.get_running_loop()
    has_ended = asyncio.Event()
    context = copy_context()
    outcomes: list[Called] = []

    def run() -> None:
        outcomes.append(context.run(called, function, *arguments))
        with suppress(RuntimeError):  # it was left behind, and the loop is closed
            loop.call_soon_threadsafe(has_ended.set)

    threading.Thread(target=run, name="handler", daemon=True).start()
    await has_ended.wait()
    return outcomes[0]


def _checked(ended: Called) -> Called:
    """The same, unless the pool's task is cancelled: on asyncio a handler may raise that itself."""
    error = ended.error
    if not isinstance(error, anyio.get_cancelled_exc_class()):
        return ended
    if sniffio.current_async_library() == "asyncio":
        import asyncio

        task = asyncio.current_task()
        if task is not None and not task.cancelling():
            return ended
    raise error
