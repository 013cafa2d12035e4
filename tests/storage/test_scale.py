"""A log of many segments: what is done for each of them does not grow with their number.

A walk once listed the directory for each segment that it came to, so that replay, verify and export
of 20,000 small segments took minutes, and a start looked up each name among all others.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from eventlog.local.storage.log.writable import WritableLog
from eventlog.local.storage.reading.ranges import read_range
from eventlog.local.storage.reading.reader import LogReader
from eventlog.testing import CountingFiles, batch_of, open_storage
from eventlog.tools.verify import verify_log

FEW, MANY = 40, 160
LISTS_MAX = 8
"""Lists of the directory, by whatever is done once."""
ONCE = 60
"""Calls that do not depend on the number of segments, at most."""


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> dict[int, str]:
    """Logs with so many segments of two events."""
    found = {}
    for segments in (FEW, MANY):
        directory = str(tmp_path_factory.mktemp("scale") / "log")
        log = filled(directory, segments)
        log.close()
        found[segments] = directory
    return found


def filled(directory: str, segments: int) -> WritableLog:
    log = open_storage(directory, durability="memory", segment_bytes=4096, max_event_bytes=1024)
    for _ in range(2 * segments):
        log.append(batch_of(bytes(1000), bytes(900)))
    return log


def replay(directory: str, files: CountingFiles) -> None:
    log = LogReader(directory, files)
    for events in read_range(log, 0, None):
        assert events
    log.close()


def verify(directory: str, files: CountingFiles) -> None:
    log = LogReader(directory, files)
    assert verify_log(log).is_whole
    log.close()


def read_each_event(directory: str, files: CountingFiles) -> None:
    # As members of a group do, which share the events of a log.
    log = LogReader(directory, files)
    for seq_no in range(1, log.last_seq_no, 4):
        reader = log.batches(seq_no)
        assert reader.next_batch() is not None
        reader.close()
    log.close()


def start(directory: str, files: CountingFiles) -> None:
    open_storage(directory, files).abandon()


@pytest.mark.parametrize("work", [replay, verify, read_each_event, start])
def test_the_calls_for_a_segment_do_not_grow_with_the_number_of_segments(
    logs: dict[int, str], work: Callable[[str, CountingFiles], None]
) -> None:
    calls: dict[int, Counter[str]] = {}
    for segments, directory in logs.items():
        files = CountingFiles()
        work(directory, files)
        calls[segments] = files.calls
    assert calls[MANY]["names"] <= LISTS_MAX
    each = {segments: (one.total() - ONCE) / segments for segments, one in calls.items()}
    assert calls[MANY].total() <= ONCE + MANY / FEW * calls[FEW].total(), each


def test_a_segment_that_somebody_puts_back_is_read_by_who_has_the_log_open(tmp_path: Path) -> None:
    # The names that a reader knows may be old: before it calls events lost, it looks again.
    directory = str(tmp_path / "log")
    filled(directory, 6).close()
    names = sorted(path for path in Path(directory).iterdir() if path.suffix == ".seg")
    lost = names[2].rename(tmp_path / "lost")
    log = LogReader(directory)
    first = int(names[2].stem)
    assert first not in log.segment_bases()
    lost.rename(names[2])
    reader = log.batches(first + 2)
    batch = reader.next_batch()
    assert batch is not None
    assert batch.header.base_seq_no == first + 2
    reader.close()
    log.close()
