"""`Pool`: worker processes that share a group's events, for trio and asyncio.

    Pool ---- a task for each place: start a process, listen to it, reap it, start the next
      |------ a task for each group: reject events that used up their deliveries by killing workers
      |------ a task for each worker with a time limit
      `------ the progress bar

Events go from the log's memory to the workers, leases and what becomes of them from the workers to
the writer; the pool sees none of them. What it does is looking after processes.
"""

from __future__ import annotations

import os
import secrets
import signal
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from dataclasses import replace
from types import TracebackType
from typing import Final, Self, Unpack

import anyio
import anyio.abc
import anyio.to_thread

from eventlog import DeadLetter, EventLog, EventLogError, Group
from workers import handlers
from workers.arguments import check_log, check_ordering, check_retry_on, path_of
from workers.child import WorkerSpec
from workers.errors import PoolError, PoolFailed
from workers.importing import check_no_import
from workers.in_process import InProcessPlace
from workers.life import PoolLife
from workers.options import PoolOptions, completed, recycling_of, signature
from workers.place import Place, WorkerEnd
from workers.policy import Backoff
from workers.progress import show_progress
from workers.relay import RELAY, RelayedLogger
from workers.reports import ExitReports
from workers.stats import PoolStats, WorkerStats

logger = RelayedLogger("workers")
EXCUSE_S_MAX: Final = 1.0


class Pool:
    """Worker processes that handle the events of a log, each event by one of them.

    ::

        async with eventlog.open("images") as log:
            async with Pool(log, group="resize", handler=resize, processes=4) as pool:
                await pool.drained()

    `handler` is called with each event; if its first parameter is named `envelope`, with the
    `EventEnvelope`. It is any callable, `"package.module:function"`, or a coroutine function. What
    it returns, unless `None`, is appended to `output`. An exception, or the worker's death, is a
    failed delivery: the event is tried again, up to `max_deliveries` times, and becomes a dead
    letter then.

    `processes`: workers (default: one per CPU, within the quota); with 0, handlers run in this
    process, plain ones in a thread, for tests and debuggers. `concurrency`: events at a time in
    each. `ordering="key"`: events of one key one at a time, in order. `broadcast`: every
    worker handles every event, as a group of its own, `group/0` and so on. `timeout`: seconds for
    an event, after which its worker is killed. `backoff`: waits after exceptions. `output`: a log,
    or its path; on the pool's own log a result and its event's acknowledgement are one step, so
    results are there exactly once. `initializer`: called once in each worker.
    `max_events_per_worker`, `max_rss_bytes`, `max_age_s`: when a worker is replaced by a fresh one.
    `position`: where a group begins that is new. `progress`: a bar on the terminal. `stop_s`: how
    long handlers that run may go on when the pool is left. `type`: what events are converted to for
    the handler, as in `subscribe` (but for `msgspec.Raw`); one that does not fit is a dead letter.
    `retry_on`: exceptions after which an event is tried again (default: all); after others, and
    `workers.Reject`, it is a dead letter. Both may be names, as `"package.module:Order"`.

    Raises:
        InvalidHandler: the handler cannot be sent to a worker.
        InvalidArgument, InvalidArgumentType, InvalidName: an argument makes no sense.
        (when entered, and from then on) PoolFailed: the workers cannot start.
        (before it is entered, and after its end) PoolError: there is nothing to use.
        (when entered) GroupMismatch: other pools of the group work with other options.
    """

    def __init__(self, log: EventLog, **options: Unpack[PoolOptions]) -> None:
        check_no_import()
        self._options = options = completed(options)
        self._is_in_process = options["processes"] == 0
        self._log = check_log(log, is_in_process=self._is_in_process)
        self._group_name = options["group"]
        self._code = code = handlers.Code(
            options["handler"],
            options["initializer"],
            check_retry_on(options["retry_on"]),
            options["type"],
        )
        handlers.check(code)
        self._pool_id = secrets.randbits(31) | 1
        self._template = WorkerSpec(
            path=log.path,
            address=log.path,
            options={},
            group=self._group_name,
            index=0,
            pool_id=self._pool_id,
            parent_pid=os.getpid(),
            # What stays in this process need not be fit to travel.
            code=b"" if self._is_in_process else handlers.packed(code),
            output=path_of(options["output"], log, is_in_process=self._is_in_process),
            ordering=options["ordering"],
            max_deliveries=options["max_deliveries"],
            backoff=options["backoff"] or Backoff(),
            concurrency=options["concurrency"],
            recycling=recycling_of(options),
            log_level=0,
        )
        self._places: list[Place | InProcessPlace] = []
        self._groups: list[Group] = []
        self._reports = ExitReports()
        self._rejected = 0
        self._failure: PoolFailed | None = None
        self._running: AbstractAsyncContextManager[None] | None = None
        self._tasks: anyio.abc.TaskGroup | None = None
        self._final: PoolStats | None = None
        self._is_stop_asked = False
        self._stop_asked: anyio.Event | None = None
        """Made in the pool's event loop: where the pool is made, another one may run."""
        self._life = PoolLife(log.path)

    def check_may_leave(self, error: BaseException | None) -> bool:
        """Whether the block that ends with this exception is left by the pool's own process.

        Raises:
            ForkedHandle: it is not, and the child has no exception of its own.
        """
        if self._life.is_of_parent and error is None:
            self._life.check_process()
        return not self._life.is_of_parent

    def check_process(self) -> None:
        """Pass in the process that made the pool.

        Raises:
            ForkedHandle: this one was forked from it.
        """
        self._life.check_process()

    def use_log(self, log: EventLog) -> None:
        """Another handle of the same log, before the pool is entered."""
        self._log = log

    def __repr__(self) -> str:
        """What it does, and how many workers it has."""
        return f"<Pool {self._group_name!r} of {self._log.path!r} workers={len(self._places)}>"

    # --- from entering to leaving ------------------------------------------------------------

    async def __aenter__(self) -> Self:
        """Start the workers; returns when all of them are ready."""
        self._life.check_process()
        if self._running is not None:
            raise PoolError("a pool is used once; make another one", path=self._log.path)
        self._running = self._run()
        await self._running.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        """Let handlers that run end, give the rest back, and wait for all processes."""
        if not self.check_may_leave(error):
            return None
        assert self._running is not None
        return await self._running.__aexit__(kind, error, traceback)

    @asynccontextmanager
    async def _run(self) -> AsyncIterator[None]:
        self._stop_asked = anyio.Event()
        async with AsyncExitStack() as stack:
            await self._open(stack)
            try:
                async with anyio.create_task_group() as self._tasks:
                    self._life.has_begun = True
                    try:
                        await self._start(self._tasks)
                        yield
                    finally:
                        with anyio.CancelScope(shield=True):
                            await self._stop()
                        self._tasks.cancel_scope.cancel()
            except BaseExceptionGroup as group:
                # The block's own exception, as it would be without our tasks.
                one = group.exceptions[0]
                # Several tasks, the block among them, meet the same end of a log.
                is_of_log = all(isinstance(each, EventLogError) for each in group.exceptions)
                if self._failure is None and (is_of_log or len(group.exceptions) == 1):
                    raise one from one.__cause__
                if self._failure is None:
                    raise
            if self._failure is not None:
                raise self._failure

    async def _open(self, stack: AsyncExitStack) -> None:
        for name in self._names():
            context = self._log.group(
                name,
                ordering=check_ordering(self._options["ordering"]),
                max_deliveries=self._options["max_deliveries"],
                position=self._options["position"],
            )
            self._groups.append(await stack.enter_async_context(context))

    def _names(self) -> list[str]:
        if not self._options["broadcast"]:
            return [self._group_name]
        return [f"{self._group_name}/{index}" for index in range(self._width)]

    @property
    def _width(self) -> int:
        """How many places the pool has."""
        return max(self._options["processes"] or 0, 1)

    async def _start(self, tasks: anyio.abc.TaskGroup) -> None:
        for index in range(self._width):
            place = self._in_process_place() if self._is_in_process else self._place(index)
            self._places.append(place)
            tasks.start_soon(self._run_place, place)
        for group in self._groups:
            tasks.start_soon(self._life.noting_failure, self._reject_exhausted, group)
            tasks.start_soon(self._kill_lost, group)
        for place in self._places:
            await self._life.unless_it_ends(place.ready.wait)
        if self._options["progress"]:
            tasks.start_soon(show_progress, self.stats, self._group_name)

    def _place(self, index: int) -> Place:
        name = self._names()[index if self._options["broadcast"] else 0]
        address, options = self._log.opening()
        return Place(
            replace(self._template, address=address, options=options, group=name, index=index),
            timeout_s=self._options["timeout"],
            on_end=self._note_end,
            on_failure=self._fail,
            group=self._groups[index if self._options["broadcast"] else 0],
        )

    def _in_process_place(self) -> InProcessPlace:
        return InProcessPlace(
            self._template,
            self._groups[0],
            self._code,
            on_failure=self._fail,
        )

    async def _run_place(self, place: Place | InProcessPlace) -> None:
        # Not cancelled with what is around the pool: leaving it stops the place in order.
        with anyio.CancelScope(shield=True):
            await self._life.noting_failure(place.run)

    def _fail(self, failure: PoolFailed) -> None:
        """The pool ends, and whoever is in its block is told why."""
        if self._failure is None and self._tasks is not None:
            self._failure = failure
            self._life.end(failure)
            self._tasks.cancel_scope.cancel()

    async def _stop(self) -> None:
        """All processes are gone when this returns."""
        self._life.end(PoolError("the pool has ended", path=self._log.path))
        if any(place.has_unready for place in self._places):
            await self._excuse()  # they are killed, and may be at work before we hear of it
        with anyio.move_on_after(self._options["stop_s"]):
            async with anyio.create_task_group() as stopping:
                for place in self._places:
                    stopping.start_soon(place.stop)
        await self._kill()
        for place in self._places:
            await place.gone()
        await anyio.to_thread.run_sync(RELAY.flush)
        self._final = self._stats_now()

    # --- what users wait for -----------------------------------------------------------------

    async def drained(self) -> None:
        """Wait until everything that was appended before this call is handled, or a dead letter.

        Raises:
            PoolFailed: the pool cannot go on.
            PoolError: it has ended, or was killed.
        """
        self._check_runs()
        last_seq_no = await self._log.last_seq_no() or 0
        for group in self._groups:
            await self._life.unless_it_ends(group.wait_drained, last_seq_no)
        for place in self._places:
            place.hear()  # so that `stats` counts all that was waited for

    async def run_forever(self) -> None:
        """Wait for SIGTERM or SIGINT (Ctrl-C), then return: leaving the pool lets handlers end.

        A second signal kills the workers at once.

        Raises:
            PoolFailed: the pool cannot go on.
            PoolError: it has ended, or was killed by `kill`.
        """
        tasks = self._check_runs()
        await self._log.last_seq_no()  # in another event loop: `WrongEventLoop`
        tasks.start_soon(self._watch_signals)
        await self.wait_stop_asked()

    def _check_runs(self) -> anyio.abc.TaskGroup:
        self._life.check_runs()
        assert self._tasks is not None
        return self._tasks

    async def wait_stop_asked(self) -> None:
        """Wait for `request_stop`."""
        self._check_runs()
        if not self._is_stop_asked:
            assert self._stop_asked is not None
            await self._life.unless_it_ends(self._stop_asked.wait)

    async def _watch_signals(self) -> None:
        with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            async for _ in signals:
                if self._is_stop_asked:
                    self.kill()
                self.request_stop()

    def request_stop(self) -> None:
        """Make `run_forever` return."""
        self._is_stop_asked = True
        if self._stop_asked is not None:
            self._stop_asked.set()

    def kill(self) -> None:
        """End all workers now; what they were doing has not failed, and is handed out again."""
        self._life.check_process()
        if self._tasks is not None and self._final is None:
            self._tasks.start_soon(self._kill)
        self._life.end(PoolError("the pool was killed", path=self._log.path))

    async def _kill(self) -> None:
        """End all workers, and have the writer know before that it is no fault of their events."""
        with anyio.CancelScope(shield=True):
            if any(place.has_workers for place in self._places):
                await self._excuse()
            for place in self._places:
                place.kill()

    async def _excuse(self) -> None:
        """Have the writer know that what it sees die did so for no fault of its events."""
        with anyio.move_on_after(EXCUSE_S_MAX), suppress(EventLogError):
            await self._groups[0].excuse(self._pool_id)

    # --- what users see ----------------------------------------------------------------------

    def statistics(self) -> PoolStats:
        """As `stats`."""
        return self.stats()

    def stats(self) -> PoolStats:
        """The pool at this moment; after its end, as it was then."""
        self._life.check_begun()
        return self._final or self._stats_now()

    def _stats_now(self) -> PoolStats:
        counts = [place.counts() for place in self._places]
        workers = tuple(
            WorkerStats(
                pid=place.pid,
                handled=count.now_handled,
                busy=count.in_flight > 0,
                restarts=place.restarts,
            )
            for place, count in zip(self._places, counts, strict=True)
        )
        return PoolStats(
            handled=sum(count.handled for count in counts),
            failed=sum(count.failed for count in counts),
            retried=max(sum(count.retried for count in counts) - self._rejected, 0),
            in_flight=sum(count.in_flight for count in counts),
            lag=self._lag(),
            workers=workers,
        )

    def _lag(self) -> int:
        return max((group.lag() for group in self._groups), default=0)

    async def dead_letters(self) -> AsyncIterator[DeadLetter]:
        """The group's dead letters that are stored now, in the order in which they died."""
        self._life.check_begun()
        for group in self._groups:
            for letter in await group.dead_letters():
                yield letter

    # --- events that kill --------------------------------------------------------------------

    def _note_end(self, group: Group, end: WorkerEnd) -> None:
        """A worker has ended."""
        if not end.member_id:
            return
        if end.is_death and self._tasks is not None:
            self._tasks.start_soon(self._dismiss, group, end.member_id)
        self._reports.add(end.member_id, end.report)

    async def _dismiss(self, group: Group, member_id: int) -> None:
        """Tell the writer of a death that it cannot see: a child of the worker has its pipes."""
        with anyio.CancelScope(shield=True), suppress(EventLogError):
            await group.dismiss(member_id)

    async def _reject_exhausted(self, group: Group) -> None:
        while True:
            for exhausted in await group.wait_exhausted(self._pool_id):
                is_own = exhausted.owner == self._pool_id
                report = await self._reports.find(exhausted, is_own=is_own)
                self._rejected += 1
                await group.reject(exhausted, report)
                times = exhausted.deliveries
                logger.warning(
                    "event %d of group %s is a dead letter now, after %d %s: %s",
                    *(exhausted.seq_no, group.name, times),
                    *("delivery" if times == 1 else "deliveries", report.error),
                )

    async def _kill_lost(self, group: Group) -> None:
        """End the handlers of events that others have: this host was out of the server's reach."""
        while True:
            for member_id in await group.wait_lost(self._pool_id):
                for place in self._places:
                    if isinstance(place, Place):
                        place.kill_lost(member_id)


Pool.__signature__ = signature()  # type: ignore[attr-defined]  # for `help`
