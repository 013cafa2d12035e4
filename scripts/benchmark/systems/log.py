"""This log: trio or blocking, event by event or in batches, with one writer of its own."""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, ClassVar, Final

import eventlog.blocking
from benchmark import interrupts
from benchmark.processes import RunFailed
from benchmark.settings import Durability
from benchmark.systems.base import ConsumerTask, Place, ProducerTask, System
from eventlog import Retention

CHUNK_EVENTS: Final = 1000
"""Events that one `append_many` gets."""
WRITER_END_S_MAX: Final = 10.0


@contextmanager
def served(
    directory: str, durability: Durability, retention: Retention | None = None
) -> Iterator[tuple[eventlog.blocking.EventLog, int]]:
    """A log in that directory, open, and its writer's process id; afterwards the writer is gone."""
    with ExitStack() as stack:
        with interrupts.held():
            log = stack.enter_context(
                eventlog.blocking.open(directory, durability=durability, retention=retention)
            )
            writer_pid = log.status().writer_pid
            assert writer_pid is not None
            stack.callback(_end_writer, os.pidfd_open(writer_pid))
            stack.callback(log.close)
        yield log, writer_pid


def end_writer_of(path: str) -> None:
    """End the writer of a log that somebody else has opened.

    Raises:
        RunFailed: it had to be killed.
    """
    with eventlog.blocking.open(path) as log:
        writer_pid = log.status().writer_pid
        assert writer_pid is not None
        descriptor = os.pidfd_open(writer_pid)
    _end_writer(descriptor)


def _end_writer(descriptor: int) -> None:
    """Ask the writer to end, and wait until it has.

    Raises:
        RunFailed: it had to be killed.
    """
    try:
        signal.pidfd_send_signal(descriptor, signal.SIGTERM)
        ended, _, _ = select.select([descriptor], [], [], WRITER_END_S_MAX)
        if not ended:
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)
            raise RunFailed(f"the writer did not end within {WRITER_END_S_MAX:.0f} s of SIGTERM")
    except ProcessLookupError:
        raise RunFailed("the writer died during the run") from None
    finally:
        os.close(descriptor)


class Log(System):
    """What both clients have in common: where the log is, and whether batches are asked for."""

    def __init__(self, place: Place, *, in_batches: bool = False) -> None:
        super().__init__(place)
        self.in_batches = in_batches
        self.path = os.path.join(place.directory, "log")

    @contextmanager
    def opened(self) -> Iterator[list[int]]:
        """Make the log; its writer runs until the end."""
        with served(self.path, self.place.durability) as (_, writer_pid):
            yield [writer_pid]


class BlockingLog(Log):
    """`eventlog.blocking`: no event loop at either end."""

    options: ClassVar[dict[str, Any]] = {}
    """Options of `subscribe`."""

    def produce(self, task: ProducerTask) -> None:
        """One `send` for each event, or one `append_many` for each thousand."""
        with eventlog.blocking.open(self.path) as log:
            if task.is_paced:
                task.wait_for_start()
                for event in task.events():
                    log.append(event)
            elif self.in_batches:
                task.wait_for_start()
                for chunk in task.chunks(task.payload.batch_events(CHUNK_EVENTS)):
                    log.append_many(chunk)
            else:
                with log.publisher() as publisher:
                    task.wait_for_start()
                    for event in task.events():
                        publisher.send(event)
            task.sent()

    def consume(self, task: ConsumerTask) -> None:
        """`for` over the events, or over the batches."""
        with (
            eventlog.blocking.open(self.path) as log,
            log.follow(**self.options) as stream,
        ):
            task.ready()
            task.received(self.plain(self._last_of(stream, task)))

    @staticmethod
    def plain(event: Any) -> Any:
        """The event as it was sent, whatever the consumer gets."""
        return event

    def _last_of(self, stream: eventlog.blocking.EventStream, task: ConsumerTask) -> Any:
        event: Any = None
        if self.in_batches:
            received = 0
            for batch in stream.batches():
                received += len(batch)
                if received >= task.count:
                    return batch[-1].event
        for _, envelope in zip(task.rounds(), stream, strict=False):
            event = envelope.event
        return event


class TrioLog(Log):
    """`eventlog` on trio at both ends."""

    def produce(self, task: ProducerTask) -> None:
        """One `send` for each event, or one `append_many` for each thousand."""
        import trio

        trio.run(self._produce, task)

    async def _produce(self, task: ProducerTask) -> None:
        import trio

        async with eventlog.open(self.path) as log:
            if task.is_paced:
                task.wait_for_start()
                for event, wait_s in task.schedule():
                    await trio.sleep(max(wait_s, 0.0))
                    task.note_sent()
                    await log.append(event)
            elif self.in_batches:
                task.wait_for_start()
                for chunk in task.chunks(task.payload.batch_events(CHUNK_EVENTS)):
                    await log.append_many(chunk)
            else:
                async with log.publisher() as publisher:
                    task.wait_for_start()
                    for event in task.events():
                        await publisher.send(event)
            task.sent()

    def consume(self, task: ConsumerTask) -> None:
        """`async for` over the events, or over the batches."""
        import trio

        trio.run(self._consume, task)

    async def _consume(self, task: ConsumerTask) -> None:
        async with (
            eventlog.open(self.path) as log,
            log.follow() as stream,
        ):
            task.ready()
            task.received(await self._last_of(stream, task))

    async def _last_of(self, stream: eventlog.EventStream, task: ConsumerTask) -> Any:
        if self.in_batches:
            received = 0
            async for batch in stream.batches():
                received += len(batch)
                if received >= task.count:
                    return batch[-1].event
        rounds = task.rounds()
        next(rounds)
        async for envelope in stream:
            event = envelope.event
            if next(rounds, None) is None:
                return event
        return None


trio_log_batched = partial(TrioLog, in_batches=True)
blocking_log_batched = partial(BlockingLog, in_batches=True)
