"""A log whose directory is deleted, made anew or moved while others use it: everybody is told.

Followers and pools once waited for ever at a log that was gone, and `ack` and `seek` succeeded
there: only an append was refused.
"""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest

import eventlog
from eventlog import LogDeleted, SeekPosition, blocking
from eventlog.local.storage.reading.reader import LogReader
from eventlog.testing import batch_of, open_storage
from workers import Pool
from workers.blocking import Pool as BlockingPool

LIMIT_S = 30.0
Change = Callable[[str], None]


def delete(path: str) -> None:
    """The directory goes."""
    shutil.rmtree(path)


def remake(path: str) -> None:
    """Another log is at the path, with a writer of its own."""
    shutil.rmtree(path)
    with blocking.open(path) as log:
        log.append("another log")


def move(path: str) -> None:
    """The directory has another name."""
    os.rename(path, path + ".moved")


def put_a_file(path: str) -> None:
    """A file is where the directory was."""
    shutil.rmtree(path)
    Path(path).write_text("no log")


def end_writer(path: str) -> None:
    if os.path.isdir(path):
        from tests.writer.test_writer_process import stop_writer_of

        stop_writer_of(path)


@pytest.fixture
def path(tmp_path: Path) -> Iterator[str]:
    """Where a log is; the writer of whatever is there later is ended after the test."""
    place = str(tmp_path / "log")
    yield place
    end_writer(place)


CHANGES = pytest.mark.parametrize("change", [delete, remake, move, put_a_file])
COLOURS = pytest.mark.parametrize("colour", ["trio", "asyncio"])


def run(colour: str, main: Callable[[], Awaitable[None]]) -> None:
    async def limited() -> None:
        with anyio.fail_after(LIMIT_S):
            await main()

    anyio.run(limited, backend=colour)


class Waiter:
    """A thread that waits in a call; `error` is what ended it."""

    def __init__(self, call: Callable[[], Any]) -> None:
        self._call = call
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._call()
        except BaseException as error:  # noqa: BLE001 - it is what the test looks at
            self.error = error

    def ended(self) -> BaseException | None:
        """What ended the call, which has to end."""
        self._thread.join(LIMIT_S)
        assert not self._thread.is_alive(), "it still waits at the log that is gone"
        return self.error


@CHANGES
def test_threads_that_wait_and_threads_that_set_positions_are_told(
    path: str, change: Change
) -> None:
    with (
        blocking.open(path) as log,
        log.subscribe("c", SeekPosition.LATEST) as stream,
    ):
        log.append(1)
        assert next(stream).event == 1
        waiter = Waiter(lambda: next(stream))
        change(path)
        assert isinstance(waiter.ended(), LogDeleted)
        for call in (
            lambda: log.ack("c", 1),
            lambda: log.seek("c", SeekPosition.BEGINNING),
            lambda: log.forget("c"),
            lambda: log.append(2),
            log.status,
        ):
            with pytest.raises(LogDeleted):
                call()


@pytest.mark.parametrize("kind", ["ack", "seek", "forget"])
def test_no_position_is_set_in_a_log_that_has_just_gone(path: str, kind: str) -> None:
    # Whether or not its writer has looked by then.
    calls: dict[str, Callable[[blocking.EventLog], None]] = {
        "ack": lambda log: log.ack("c", 1),
        "seek": lambda log: log.seek("c", SeekPosition.BEGINNING),
        "forget": lambda log: log.forget("c"),
    }
    with blocking.open(path) as log:
        log.append(1)
        delete(path)
        with pytest.raises(LogDeleted):
            calls[kind](log)


@COLOURS
def test_tasks_that_wait_and_tasks_that_set_positions_are_told(path: str, colour: str) -> None:
    async def main() -> None:
        async with eventlog.open(path) as log:
            await log.append(1)
            async with log.subscribe("c", SeekPosition.BEGINNING) as stream:
                assert (await anext(stream)).event == 1
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(anyio.to_thread.run_sync, delete, path)
                    with pytest.raises(LogDeleted):
                        await anext(stream)
            with pytest.raises(LogDeleted):
                await log.ack("c", 1)
            with pytest.raises(LogDeleted):
                await log.seek("c", SeekPosition.BEGINNING)

    run(colour, main)


def handle(event: Any) -> None:
    """Do nothing."""


@pytest.mark.parametrize(("colour", "change"), [("trio", delete), ("asyncio", remake)])
def test_a_pool_that_waits_for_events_is_told(path: str, colour: str, change: Change) -> None:
    async def main() -> None:
        async with eventlog.open(path) as log:
            with pytest.raises(LogDeleted):  # noqa: PT012 - the pool raises it, where it is left
                async with Pool(log, group="g", handler=handle, processes=1) as pool:
                    await log.append(1)
                    await pool.drained()
                    await anyio.to_thread.run_sync(change, path)
                    await anyio.sleep(LIMIT_S)

    run(colour, main)


def test_a_pool_of_a_thread_is_told(path: str) -> None:
    with (  # noqa: PT012 - the pool raises it, whatever it is asked
        blocking.open(path) as log,
        pytest.raises(LogDeleted),
        BlockingPool(log, group="g", handler=handle, processes=1) as pool,
    ):
        log.append(1)
        pool.drained()
        delete(path)
        deadline = time.monotonic() + LIMIT_S
        while time.monotonic() < deadline:  # a bounded look at a pool that ends by itself
            pool.drained()
            time.sleep(0.05)


def test_a_long_path_that_is_gone_is_told_in_the_same_words(tmp_path: Path) -> None:
    # Paths too long for a socket's address are reached through a descriptor of the directory:
    # without one the error was that there is no log.
    path = str(tmp_path / ("l" * 120))
    with blocking.open(path) as log:
        log.append(1)
        shutil.rmtree(path)
        for _ in range(2):  # of the old writer, and then without any
            with pytest.raises(LogDeleted):
                log.ack("c", 1)


def test_a_reader_shows_nothing_of_another_log_at_the_path(tmp_path: Path) -> None:
    # It opened the next segment and the offset table by their names: those of whatever log was
    # there by then.
    path = str(tmp_path / "log")
    options: dict[str, Any] = {"segment_bytes": 4096, "max_event_bytes": 1024}
    old = open_storage(path, **options)
    for number in range(20):
        old.append(batch_of(number, bytes(700)))
    old.ack("old", 3)
    reader = LogReader(path)
    batches = reader.batches(1)
    assert batches.next_batch() is not None
    assert [state.name for state in reader.consumers()] == ["old"]
    old.abandon()
    shutil.rmtree(path)
    new = open_storage(path, **options)
    for number in range(20):
        new.append(batch_of(-number, bytes(700)))
    new.ack("new", 3)
    with pytest.raises(LogDeleted):  # noqa: PT012 - what is mapped may be read to its end
        while batches.next_batch() is not None:
            pass
    assert batches.next_seq_no < 20
    for look in (reader.consumers, reader.segment_bases, lambda: reader.position_of("new")):
        with pytest.raises(LogDeleted):
            look()
    batches.close()
    reader.close()
    new.close()
