"""Consumers with states, whose writer is killed or loses its power at every step.

A state says which events it was made of, so that one which is found with another position, or is
gone while the position stays, is seen.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

import pytest

from eventlog.local.storage import states as states_file
from eventlog.local.storage.log.writable import WritableLog
from eventlog.local.storage.reading.reader import LogReader
from eventlog.testing import batch_of, open_storage
from tests.faults.crashes import Crash, kills, power_cuts
from tests.faults.disk import Disk
from tests.faults.histories import Trace, booted
from tests.faults.recorder import RecordingFiles, arena, image_of, materialise

Pair = tuple[int, bytes | None]
Pairs = dict[str, Pair]
Step = Callable[[WritableLog], object]
CUTS_EACH: Final = 12
"""Power cuts for each call; all that there are, if they are fewer."""


def state_of(consumer: str, number: int) -> bytes:
    """What the consumer has made of all events up to that one; over a sector of the disk."""
    return f"{consumer}:{number * (number + 1) // 2}:".encode() + bytes(700)


@dataclass
class History:
    """What was done, and the consumers after each step."""

    trace: Trace
    moments: list[tuple[int, Pairs]] = field(default_factory=list)
    """Calls until then, and what there was."""
    synced: list[int] = field(default_factory=list)
    """The moments at which all was on the disk."""


class Story:
    """Consumers `a`, `b` and `c`, step by step."""

    def __init__(self, log: WritableLog, history: History, files: RecordingFiles) -> None:
        self.log, self.history, self.files = log, history, files
        self.note()

    def note(self) -> None:
        pairs = {one.name: (one.position, one.state) for one in self.log.offsets.all()}
        self.history.moments.append((len(self.files.calls), pairs))

    def append(self, count: int) -> None:
        self.log.append(batch_of(*range(count)))
        self.note()

    def ack(self, name: str, number: int, *, is_plain: bool = False) -> None:
        self.log.ack(name, number, None if is_plain else state_of(name, number))
        self.note()

    def seek(self, name: str, number: int) -> None:
        self.log.seek(name, number)
        self.note()

    def forget(self, name: str) -> None:
        self.log.offsets.forget(name)
        self.note()

    def sync(self) -> None:
        work = self.log.begin_sync()
        work.run()
        self.log.finish_sync(work)
        self.log.sync_positions()
        self.note()
        self.history.synced.append(len(self.history.moments) - 1)

    def tell(self) -> None:
        """Everything that a consumer with a state may do, with and without syncs between."""
        self.append(5)
        self.ack("a", 1, is_plain=True)
        self.sync()
        self.ack("a", 2)
        self.ack("a", 3)
        self.ack("b", 4)  # new, with a state from its first acknowledgement on
        self.sync()
        self.append(5)
        self.ack("a", 7)
        self.ack("c", 6, is_plain=True)
        self.sync()
        self.ack("a", 8, is_plain=True)
        self.ack("b", 9)
        self.seek("b", 4)
        self.ack("b", 5)
        self.sync()
        self.forget("a")
        self.ack("a", 3, is_plain=True)
        self.ack("a", 5)
        self.ack("c", 10)
        for number in (6, 8, 10):
            self.ack("a", number)
        self.sync()
        self.append(5)
        self.ack("c", 12)
        self.ack("c", 15)


def run(place: str, monkeypatch: pytest.MonkeyPatch) -> History:
    """The story, told to a new log whose file of states is rewritten often."""
    monkeypatch.setattr(states_file, "REWRITE_BYTES", 3000)
    with booted("first"):
        open_storage(place, segment_bytes=4096).close()
        files = RecordingFiles(Disk.of(image_of(place)))
        log = open_storage(place, files)
        history = History(Trace(1, [], {}, files.start, files.calls, [], [], {}, frozenset(), 0))
        Story(log, history, files).tell()
        log.abandon()
    files.bury()
    return history


def pairs_in(place: str, crash: Crash) -> tuple[Pairs, Pairs, int]:
    """What readers find without a writer, what the next writer does, and the last event."""
    materialise(crash.image, place)
    reader = LogReader(place)
    offline = {one.name: (one.last_acked or 0, one.state) for one in reader.consumers()}
    reader.close()
    with booted("second" if crash.is_power_cut else "first"):
        log = open_storage(place)
        found = {one.name: (one.position, one.state) for one in log.offsets.all()}
        last = log.last_seq_no
        log.abandon()
    return offline, found, last


def check_killed(place: str, history: History, crash: Crash) -> None:
    """All is as it was before the step or after it, to readers and to the next writer."""
    done = sum(calls <= crash.calls for calls, _ in history.moments)
    allowed = [pairs for _, pairs in history.moments[max(done - 1, 0) : done + 1]]
    offline, found, _ = pairs_in(place, crash)
    assert offline in allowed, crash
    assert found in allowed, crash


def check_cut(place: str, history: History, crash: Crash) -> None:
    """Each consumer is where it was at some moment since the last sync, with its state of then."""
    done = sum(calls <= crash.calls for calls, _ in history.moments)
    since = max((one for one in history.synced if one < done), default=0)
    moments = [pairs for _, pairs in history.moments[since : done + 1]]
    _, found, last = pairs_in(place, crash)
    for name in {name for pairs in moments for name in pairs} | found.keys():
        allowed = {pairs.get(name) for pairs in moments}
        if any(pair is not None and pair[0] > last for pair in allowed):
            # Its events are lost: it is back at what it had before them, or has begun anew.
            allowed |= {pairs.get(name) for _, pairs in history.moments[:since]} | {(0, None)}
            allowed |= {(last, None) for pair in allowed if pair and pair[1] is None}
        pair = found.get(name)
        if None in allowed:
            allowed.add((0, None))  # its slot may be there, and the record that made it not
        assert pair in allowed, (name, pair, str(crash))
        assert pair is None or pair[0] <= last or pair[1] is None, (name, pair, str(crash))


@pytest.fixture
def place() -> Iterator[str]:
    with arena() as directory:
        yield directory


EACH = pytest.mark.parametrize(
    "each", [11, pytest.param(1, marks=pytest.mark.slow)], ids=["some", "each"]
)
"""One of eleven crashes; with the slow tests, every one."""


@EACH
def test_a_killed_writer_leaves_each_state_with_its_position(
    place: str, monkeypatch: pytest.MonkeyPatch, each: int
) -> None:
    history = run(place, monkeypatch)
    number = 0
    for number, crash in enumerate(kills(history.trace, random.Random(1), header_cuts=24)):
        if number % each == 0:
            check_killed(place, history, crash)
    assert number > 500


@EACH
def test_a_power_cut_leaves_each_state_with_its_position(
    place: str, monkeypatch: pytest.MonkeyPatch, each: int
) -> None:
    history = run(place, monkeypatch)
    number = 0
    for number, crash in enumerate(power_cuts(history.trace, CUTS_EACH, random.Random(1))):
        if number % each == 0:
            check_cut(place, history, crash)
    assert number > 500
