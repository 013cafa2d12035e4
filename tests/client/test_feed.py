"""What an iterating consumer is handed at once: many small events, few large ones."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest

import eventlog
from eventlog import SeekPosition, blocking
from eventlog.api.stream_options import StreamOptions
from eventlog.local.client.feed import EVENTS_AT_ONCE, Feed
from eventlog.local.storage.reading.reader import LogReader
from eventlog.testing import batch_of, open_storage


def feed_of(directory: Path, count: int, event: bytes) -> tuple[LogReader, Feed]:
    """A feed of that many batches of one event each."""
    log = open_storage(str(directory), durability="memory")
    for _ in range(count):
        log.append(batch_of(event))
    log.close()
    reader = LogReader(str(directory))
    options = StreamOptions(follow=False)
    return reader, Feed(reader, "c", SeekPosition.BEGINNING, options)


@pytest.mark.parametrize(("size", "at_once"), [(100, EVENTS_AT_ONCE), (100_000, 1)])
def test_only_small_batches_are_put_together(tmp_path: Path, size: int, at_once: int) -> None:
    reader, feed = feed_of(tmp_path, EVENTS_AT_ONCE + 1, bytes(size))
    sizes = []
    while (events := feed.next_events()) is not None:
        sizes.append(len(events))
    assert sizes[0] == at_once
    assert sum(sizes) == EVENTS_AT_ONCE + 1
    feed.close()
    reader.close()


def test_large_events_that_were_consumed_take_up_no_memory(tmp_path: Path) -> None:
    size, count = 1 << 20, 40
    reader, feed = feed_of(tmp_path, count, bytes(size))
    tracemalloc.start()
    try:
        received = 0
        while (events := feed.next_events()) is not None:
            received += len(events)
        assert received == count
        # this one's and the next one's, while they take turns
        assert tracemalloc.get_traced_memory()[1] < 4 * size
    finally:
        tracemalloc.stop()
    feed.close()
    reader.close()


@pytest.fixture
def collections() -> Iterator[list[int]]:
    """The generations that the garbage collector has gone through since the test began."""
    found: list[int] = []

    def note(phase: str, about: dict[str, int]) -> None:
        if phase == "start":
            found.append(about["generation"])

    gc.callbacks.append(note)
    yield found
    gc.callbacks.remove(note)


EVENTS = [{"a": [n]} for n in range(1000)]
"""A batch that the collector walks, unless it is kept from it, as soon as it is decoded."""


def test_the_garbage_collector_does_not_walk_the_batches_of_a_reader(
    tmp_path: Path, collections: list[int]
) -> None:
    with blocking.open(tmp_path / "log") as log:
        for _ in range(50):
            log.append_many(EVENTS)
        with log.subscribe("all", follow=False) as stream:
            collections.clear()
            assert sum(len(batch) for batch in stream.batches()) == 50_000
            assert len(collections) < 5


@pytest.mark.trio
async def test_the_garbage_collector_does_not_walk_the_batches_of_an_event_loop(
    tmp_path: Path, collections: list[int]
) -> None:
    async with eventlog.open(tmp_path / "log") as log:
        for _ in range(50):
            await log.append_many(EVENTS)
        async with log.subscribe("all", follow=False) as stream:
            collections.clear()
            sizes = [len(batch) async for batch in stream.batches()]
            assert sum(sizes) == 50_000
            assert len(collections) < 5
