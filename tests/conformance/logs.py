"""`Logs`: the logs of one test, and the processes that serve them."""

from __future__ import annotations

import os
import select
import signal
from collections.abc import AsyncIterable, Awaitable, Callable
from pathlib import Path
from typing import Any, Final, TypeVar

import anyio
import anyio.to_thread

import eventlog
from eventlog import EventLog
from tests.processes import processes_with, words_of

from .backends import Backend, Flavour
from .facade import ThreadedEventLog

T = TypeVar("T")

KIB: Final = 1024
SEGMENT_BYTES: Final = 256 * KIB
"""Small, so that a test with some thousands of events has several segments."""
BATCH_BYTES: Final = SEGMENT_BYTES // 4
"""Past which `append_many` starts another batch in such a log."""
END_S: Final = 10.0
"""A writer that was told to end and is there after that long has failed the test."""


class Logs:
    """Opens logs of one backend in one flavour, in a directory of one test."""

    def __init__(self, backend: Backend, flavour: Flavour, folder: Path) -> None:
        self.backend = backend
        self.flavour = flavour
        self.folder = folder

    def path(self, name: str = "log") -> str:
        """Where the log of that name is, or will be."""
        return self.backend.path_of(self.folder, name)

    def open(self, name: str = "log", **options: Any) -> EventLog:
        """A handle, not entered yet; all handles of one name are of one log."""
        asked = {"segment_bytes": SEGMENT_BYTES} | options
        known = {key: value for key, value in asked.items() if key not in self.backend.ignores}
        return self.open_path(self.path(name), **known)

    def open_path(self, path: Any, **options: Any) -> EventLog:
        """A handle of whatever is at `path`, with no options but those given."""
        if self.flavour.name == "blocking":
            return ThreadedEventLog(path, options)
        return eventlog.open(path, **options)

    def writers(self) -> list[int]:
        """The processes that serve logs of this test."""
        if "writer process" in self.backend.lacks:
            return []
        found = processes_with(os.fsencode(self.folder), "cmdline")
        return [pid for pid, command in found.items() if self._is_writer(command)]

    def _is_writer(self, command: bytes) -> bool:
        words = command.rstrip(b"\0").split(b"\0")
        folder = os.fsencode(self.folder)
        return b"eventlog.local.writer" in words and any(one.startswith(folder) for one in words)

    def end_writers(self) -> list[int]:
        """Tell all writers to end; those that did not, and had to be killed."""
        return [pid for pid in self.writers() if not self._end(pid, signal.SIGTERM)]

    def _end(self, pid: int, number: signal.Signals) -> bool:
        """Send a signal and wait for the end of the process; whether it came."""
        try:
            process = os.pidfd_open(pid)
        except ProcessLookupError:
            return True
        try:
            if not self._is_writer(words_of(pid, "cmdline")):
                return True
            signal.pidfd_send_signal(process, number)
            if select.select([process], [], [], END_S)[0]:
                return True
            signal.pidfd_send_signal(process, signal.SIGKILL)
            return False
        finally:
            os.close(process)

    async def end_writer(self, log: EventLog, number: signal.Signals = signal.SIGKILL) -> int:
        """End the process that serves the log, at once and for good, and say which it was."""
        pid = (await log.status()).writer_pid
        assert pid is not None
        assert await anyio.to_thread.run_sync(self._end, pid, number), f"writer {pid} did not end"
        return pid


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Wait for what nobody announces; the test's own limit ends it."""
    while not await condition():  # noqa: ASYNC110 - as the docstring says
        await anyio.sleep(0.001)


async def take(stream: AsyncIterable[T], count: int) -> list[T]:
    """The next `count` items; fewer if the stream ends."""
    items: list[T] = []
    async for item in stream:
        items.append(item)
        if len(items) == count:
            break
    return items


async def stored(log: EventLog) -> list[Any]:
    """All the payloads in the log; checks that their numbers have no gap."""
    envelopes = await log.read(0)
    numbers = [envelope.seq_no for envelope in envelopes]
    assert numbers == [number + (numbers[0] or 0) for number in range(len(numbers))]
    return [envelope.event for envelope in envelopes]


async def delivered(stream: AsyncIterable[eventlog.EventEnvelope], count: int) -> list[Any]:
    """The next `count` payloads."""
    return [envelope.event for envelope in await take(stream, count)]
