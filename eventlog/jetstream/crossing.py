"""The driver for both event loops: in asyncio as it is, from trio in a thread with asyncio's.

The client library knows asyncio alone. A call from trio is made in that thread, in the order of the
calls; cancelling it there cancels it here.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from contextvars import Context
from typing import Any, TypeVar

import anyio
import sniffio

from eventlog.api.group import DeadLetter, GroupReport
from eventlog.api.loops import call_in_this_loop
from eventlog.config import GroupOrdering
from eventlog.jetstream.crossing_groups import Call, CrossingGroup
from eventlog.jetstream.driver import JetStreamDriver
from eventlog.remote.driver import Opened, Position, Reader, State, Stored, Unreachable

T = TypeVar("T")


class _Thread:
    """A thread with an event loop of asyncio."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="eventlog-jetstream", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            self._stopped = asyncio.Event()
            runner.run(self._stopped.wait())

    async def run(self, call: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Make a call there, from another event loop, and wait for its end."""
        ended = anyio.Event()
        notify = call_in_this_loop(ended.set)
        task: asyncio.Task[T] | None = None

        def has_ended(_: asyncio.Task[T]) -> None:
            notify()

        def start() -> None:
            nonlocal task
            task = self._loop.create_task(call())
            task.add_done_callback(lambda _task: notify())

        def cancel() -> None:
            if task is not None:
                task.cancel()

        self._schedule(start)
        try:
            await ended.wait()
        except BaseException:
            self._schedule(cancel)
            with anyio.CancelScope(shield=True):
                await ended.wait()
            if task is not None and not task.cancelled():
                task.exception()  # nobody wants it
            raise
        assert task is not None
        if task.cancelled():
            raise Unreachable("the handle is closed")
        return task.result()

    def _schedule(self, call: Callable[[], None]) -> None:
        try:
            # The caller's context says that its event loop is trio's.
            self._loop.call_soon_threadsafe(call, context=Context())
        except RuntimeError:
            raise Unreachable("the handle is closed") from None

    def stop(self) -> None:
        """End it, once what it is doing has ended."""

        def stop() -> None:
            self._stopped.set()

        self._schedule(stop)


async def _run_here(call: Callable[[], Awaitable[T]]) -> T:
    return await call()


class CrossingDriver:
    """The driver of one handle for both event loops; see `remote.driver.Driver`."""

    def __init__(self, make: Callable[[], JetStreamDriver]) -> None:
        self._driver = make()
        self._thread: _Thread | None = None
        self._call: Call = _run_here

    @property
    def path(self) -> str:
        """See `Driver`."""
        return self._driver.path

    async def open(self) -> Opened:
        """See `Driver`."""
        if sniffio.current_async_library() != "asyncio":
            self._thread = _Thread()
            self._call = self._thread.run
        try:
            opened: Opened = await self._call(self._driver.open)
        except BaseException:
            self._stop()
            raise
        return opened

    async def aclose(self) -> None:
        """See `Driver`."""
        if self._thread is None and self._call is not _run_here:
            return
        try:
            await self._call(self._driver.aclose)
        finally:
            self._stop()

    def _stop(self) -> None:
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.stop()

    async def append(
        self,
        producer_id: int,
        producer_seq: int,
        records: Sequence[bytes],
        expect_last: int | None = None,
    ) -> int:
        """See `Driver`."""
        arguments = producer_id, producer_seq, records, expect_last
        return int(await self._call(lambda: self._driver.append(*arguments)))

    async def state(self) -> State:
        """See `Driver`."""
        state: State = await self._call(self._driver.state)
        return state

    async def read(self, seq_no: int, count: int) -> list[Stored]:
        """See `Driver`."""
        found: list[Stored] = await self._call(lambda: self._driver.read(seq_no, count))
        return found

    def reader(self, seq_no: int) -> Reader:
        """See `Driver`."""
        return _CrossingReader(self._call, self._driver, seq_no)

    async def synced(self) -> None:
        """See `Driver`."""
        await self._call(self._driver.synced)

    async def find_time(self, time_ns: int) -> int:
        """See `Driver`."""
        return int(await self._call(lambda: self._driver.find_time(time_ns)))

    async def positions(self) -> Mapping[str, Position]:
        """See `Driver`."""
        found: Mapping[str, Position] = await self._call(self._driver.positions)
        return found

    async def move(self, consumer: str, position: int, *, is_ack: bool) -> None:
        """See `Driver`."""
        await self._call(lambda: self._driver.move(consumer, position, is_ack=is_ack))

    async def ack_state(self, consumer: str, position: int, state: bytes) -> None:
        """See `DriverOfStates`."""
        await self._call(lambda: self._driver.ack_state(consumer, position, state))

    async def forget(self, consumer: str) -> None:
        """See `Driver`."""
        await self._call(lambda: self._driver.forget(consumer))

    async def group(
        self, name: str, ordering: GroupOrdering, max_deliveries: int, position: int
    ) -> CrossingGroup:
        """See `DriverOfGroups`."""
        driver = self._driver
        found = await self._call(lambda: driver.group(name, ordering, max_deliveries, position))
        return CrossingGroup(self._call, found)

    async def groups(self) -> list[GroupReport]:
        """See `DriverOfGroups`."""
        found: list[GroupReport] = await self._call(self._driver.groups)
        return found

    async def dead_letters(self, group: str) -> list[DeadLetter]:
        """See `DriverOfGroups`."""
        found: list[DeadLetter] = await self._call(lambda: self._driver.dead_letters(group))
        return found

    async def retry_dead(self, group: str, seq_nos: Sequence[int]) -> int:
        """See `DriverOfGroups`."""
        return int(await self._call(lambda: self._driver.retry_dead(group, seq_nos)))

    async def drop_dead(self, group: str, seq_nos: Sequence[int]) -> int:
        """See `DriverOfGroups`."""
        return int(await self._call(lambda: self._driver.drop_dead(group, seq_nos)))


class _CrossingReader:
    """A reader through the same door."""

    def __init__(
        self,
        call: Call,
        driver: JetStreamDriver,
        seq_no: int,
    ) -> None:
        self._call = call
        self._reader = driver.reader(seq_no)

    async def next(self) -> list[Stored]:
        found: list[Stored] = await self._call(self._reader.next)
        return found

    async def aclose(self) -> None:
        await self._call(self._reader.aclose)
