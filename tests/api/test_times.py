"""Stored times, ages and clocks that jump.

A clock that was years ahead for a moment once made retention delete events that were seconds old;
the times of all later events stood still where it had been, so that nothing expired any more and a
seek by time gave the whole log.
"""

from __future__ import annotations

import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventlog import Retention
from eventlog.api.positions import SeekPosition
from eventlog.api.times import (
    SETTLED_NS,
    SLACK_NS,
    LogClock,
    believable,
    first_at,
    went_back,
)
from eventlog.config import AskedOptions, LogOptions
from eventlog.local.storage.log.writable import WritableLog
from eventlog.local.storage.reading.reader import LogReader
from eventlog.local.storage.starting import start
from eventlog.memory.model import MemoryLog
from eventlog.testing import batch_of, open_storage, stored_events
from eventlog.tools.doctor.examine import examine

SECOND = 1_000_000_000
HOUR = 3600 * SECOND
YEARS = 5 * 365 * 24 * HOUR
SMALL: dict[str, Any] = {"segment_bytes": 4096, "max_event_bytes": 2048}
FOR_AN_HOUR = Retention(max_age=timedelta(hours=1))


class World:
    """A wall clock that can be set, and one that only goes on."""

    def __init__(self) -> None:
        self.wall_ns = time.time_ns() - 24 * HOUR
        self.steady_ns = 1000 * SECOND

    def clock(self) -> LogClock:
        return LogClock(lambda: self.wall_ns, lambda: self.steady_ns)

    def go_on(self, ns: int) -> None:
        self.wall_ns += ns
        self.steady_ns += ns

    def settle(self, clock: LogClock) -> None:
        clock.now()
        self.go_on(SETTLED_NS)
        clock.now()


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def directory(tmp_path: Path) -> str:
    return str(tmp_path / "log")


def fill(log: WritableLog, world: World, segments: int) -> None:
    """Segments of two events each, a second apart."""
    for _ in range(2 * segments):
        world.go_on(SECOND)
        log.append(batch_of(bytes(1900)))


# --- the clock -------------------------------------------------------------------------------


def test_a_jump_for_a_moment_changes_nothing(world: World) -> None:
    clock, before = world.clock(), world.wall_ns
    for jump in (YEARS, -YEARS, HOUR):
        world.wall_ns += jump
        assert clock.now() == before
        assert not clock.is_settled
        world.wall_ns -= jump
        world.go_on(SECOND)
        before += SECOND
        assert clock.now() == before


@pytest.mark.parametrize("jump", [YEARS, -YEARS, 2 * SLACK_NS])
def test_a_jump_counts_when_the_clock_has_stayed_there(world: World, jump: int) -> None:
    clock = world.clock()
    world.wall_ns += jump
    assert clock.now() == world.wall_ns - jump
    world.go_on(SETTLED_NS - 1)
    assert clock.now() == world.wall_ns - jump
    world.go_on(1)
    assert clock.now() == world.wall_ns
    assert clock.is_settled


def test_a_jump_back_and_forth_is_not_settled_at_once(world: World) -> None:
    # A writer that started under a clock that was ahead met that time once more, ten seconds
    # later, and took it for right: events that an earlier writer had stored were deleted.
    world.wall_ns += 2 * HOUR
    clock = world.clock()
    world.wall_ns -= 2 * HOUR
    world.go_on(SETTLED_NS // 2)
    clock.now()
    world.go_on(SETTLED_NS // 2)
    world.wall_ns += 2 * HOUR
    assert not clock.is_settled


def test_a_correction_counts_at_once(world: World) -> None:
    clock = world.clock()
    for correction in (SLACK_NS, -SLACK_NS, SLACK_NS // 2):
        world.wall_ns += correction
        assert clock.now() == world.wall_ns


def test_a_clock_that_has_just_begun_is_not_settled(world: World) -> None:
    clock = world.clock()
    assert not clock.is_settled
    world.go_on(SETTLED_NS)
    assert clock.is_settled


def test_times_go_back_only_where_those_before_were_ahead(world: World) -> None:
    clock = world.clock()
    last = world.wall_ns + YEARS
    assert clock.stamp(last) == last, "not before the clock has settled"
    world.settle(clock)
    assert clock.stamp(last) == world.wall_ns
    assert clock.stamp(world.wall_ns + SLACK_NS) == world.wall_ns + SLACK_NS


# --- what stored times mean ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        ([1, 2, 3], [1, 2, 3]),
        ([1, 0, 3], [1, 3, 3]),
        ([1, 900, 3], [1, 3, 3]),
        ([1, 900, 901], [1, 100, 100]),
        ([50, 1, 60], [50, 50, 60]),
        ([0, 0], [100, 100]),
        ([], []),
    ],
)
def test_unknown_and_future_times_make_nothing_old(times: list[int], expected: list[int]) -> None:
    assert believable(times, 100) == expected


def test_the_place_where_times_went_back_last_is_found() -> None:
    assert went_back([1, 2, 3]) is None
    assert went_back([5, 3, 0]) is None, "a correction"
    assert went_back([YEARS, 1, 2, 3 * HOUR, 0, HOUR, HOUR]) == 5


@given(st.lists(st.integers(0, 60), max_size=12), st.integers(0, 70))
def test_no_event_of_after_the_moment_is_left_out(hours: list[int], moment: int) -> None:
    now = 40
    batches = [(n, hour * HOUR) for n, hour in enumerate(hours, 1)]
    found = first_at(batches, moment * HOUR, now * HOUR)
    right = [n for n, hour in enumerate(hours, 1) if moment <= hour <= now]
    assert found is None or found <= min(right, default=found)
    assert found is not None or not right
    if hours == sorted(hours):
        assert found == next((n for n, hour in enumerate(hours, 1) if hour >= moment), None)


# --- retention -------------------------------------------------------------------------------


def test_a_clock_that_is_ahead_for_a_moment_deletes_nothing(directory: str, world: World) -> None:
    log = open_storage(directory, clock=world.clock(), retention=FOR_AN_HOUR, **SMALL)
    fill(log, world, 4)
    world.wall_ns += YEARS
    log.retire()
    fill(log, world, 1)
    world.wall_ns -= YEARS
    log.retire()
    assert list(stored_events(directory)) == list(range(1, 11))
    log.close()


def test_a_clock_that_is_ahead_for_good_deletes_nothing_early(directory: str, world: World) -> None:
    log = open_storage(directory, clock=world.clock(), retention=FOR_AN_HOUR, **SMALL)
    fill(log, world, 4)
    world.wall_ns += YEARS
    for _ in range(4):
        world.go_on(SETTLED_NS)
        log.retire()
    assert list(stored_events(directory)) == list(range(1, 9))
    world.go_on(HOUR)
    log.retire()
    assert list(stored_events(directory)) == [7, 8]
    log.close()


def test_the_next_writer_of_the_same_boot_believes_what_the_one_before_had_settled_on(
    directory: str, world: World
) -> None:
    log = open_storage(directory, clock=world.clock(), retention=FOR_AN_HOUR, **SMALL)
    world.go_on(SETTLED_NS)
    fill(log, world, 4)
    log.close()
    world.wall_ns += YEARS
    log = open_storage(directory, clock=world.clock())
    log.retire()
    fill(log, world, 1)
    world.go_on(2 * SETTLED_NS)
    log.retire()
    assert list(stored_events(directory)) == list(range(1, 11))
    world.go_on(HOUR)
    log.retire()
    assert next(iter(stored_events(directory))) > 6
    log.close()


def test_after_a_reboot_nothing_is_deleted_before_the_clock_has_settled(
    directory: str, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = open_storage(directory, clock=world.clock(), retention=FOR_AN_HOUR, **SMALL)
    fill(log, world, 4)
    log.close()
    monkeypatch.setattr(start, "boot_id", lambda: "another boot")
    world.steady_ns = 0
    world.wall_ns += YEARS
    log = open_storage(directory, clock=world.clock())
    log.retire()
    world.wall_ns -= YEARS  # set by the network, a moment later
    for _ in range(3):
        world.go_on(SETTLED_NS)
        log.retire()
    assert list(stored_events(directory)) == list(range(1, 9))
    world.go_on(HOUR)
    log.retire()
    assert list(stored_events(directory)) == [7, 8]
    log.close()


def test_events_that_were_stored_under_a_clock_ahead_expire_when_they_are_old(
    directory: str, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.wall_ns += YEARS
    log = open_storage(directory, clock=world.clock(), retention=FOR_AN_HOUR, **SMALL)
    fill(log, world, 3)
    log.close()
    monkeypatch.setattr(start, "boot_id", lambda: "another boot")
    world.wall_ns -= YEARS
    log = open_storage(directory, clock=world.clock())
    world.settle(log.clock)
    fill(log, world, 3)
    world.go_on(HOUR // 2)
    log.retire()
    assert list(stored_events(directory)) == list(range(1, 13))
    world.go_on(HOUR)
    log.retire()
    assert next(iter(stored_events(directory))) > 10
    log.close()


# --- seeking and looking ---------------------------------------------------------------------


@pytest.fixture
def was_ahead(directory: str, world: World) -> tuple[str, int]:
    """Events 1 to 6 of a clock that was years ahead, 7 to 12 of a right one; the time of 10."""
    world.wall_ns += YEARS
    log = open_storage(directory, clock=world.clock(), **SMALL)
    fill(log, world, 3)
    world.wall_ns -= YEARS
    world.settle(log.clock)
    for _ in range(6):
        world.go_on(HOUR)
        log.append(batch_of(bytes(1900)))
    log.close()
    return directory, world.wall_ns - 2 * HOUR


def test_a_seek_by_time_passes_over_times_of_a_clock_that_was_ahead(
    was_ahead: tuple[str, int],
) -> None:
    directory, moment = was_ahead
    log = LogReader(directory)
    assert log.find_time(moment) == 10
    assert log.find_time(moment + 1) == 11
    assert log.find_time(moment - 20 * HOUR) == 1
    assert log.find_time(moment + 3 * HOUR) == 13
    log.close()


def test_times_go_on_from_where_they_are_right(was_ahead: tuple[str, int]) -> None:
    directory, moment = was_ahead
    # A segment begins where they went back; the next writer, of whatever release, keeps to that.
    log = open_storage(directory, clock=lambda: moment + 3 * HOUR)
    assert log.control.times_from == 7
    log.append(batch_of("next"))
    log.close()
    reader = LogReader(directory)
    assert reader.find_time(moment + 3 * HOUR) == 13
    reader.close()


def test_where_times_went_back_is_found_again_without_the_note(was_ahead: tuple[str, int]) -> None:
    directory, moment = was_ahead
    log = open_storage(directory, clock=lambda: moment + 3 * HOUR)
    log.control.times_from = 0
    log.abandon()
    log = open_storage(directory, clock=lambda: moment + 3 * HOUR)
    assert log.control.times_from == 7
    log.close()


def test_the_doctor_reports_times_in_the_future(was_ahead: tuple[str, int]) -> None:
    directory, _ = was_ahead
    (found,) = [one for one in examine(directory) if one.about == "times"]
    assert found.level == "warning"
    assert "events from 1 on have times in the future" in found.what


def test_the_doctor_says_nothing_of_right_times(directory: str) -> None:
    log = open_storage(directory, **SMALL)
    log.append(batch_of(1))
    log.close()
    assert not [one for one in examine(directory) if one.about == "times"]


@given(st.lists(st.sampled_from([0, 1, 3, -2, 50, -48]), max_size=14), st.integers(-60, 60))
def test_memory_and_disk_find_the_same_event(
    tmp_path_factory: pytest.TempPathFactory, steps: list[int], moment: int
) -> None:
    directory = str(tmp_path_factory.mktemp("same") / "log")
    now = [time.time_ns() - 20 * HOUR]
    moment_ns = now[0] + moment * HOUR
    disk = open_storage(directory, clock=lambda: now[0], durability="memory", **SMALL)
    memory = MemoryLog("memory:", LogOptions.of(AskedOptions()))
    memory.clock = LogClock(lambda: now[0])
    for step in steps:
        now[0] += step * HOUR
        assert disk.append(batch_of(bytes(700))) == memory.append(batch_of(bytes(700)))
    reader = LogReader(directory)
    kind = SeekPosition("timestamp", moment_ns)
    assert reader.resolve(kind, "") == memory.resolve(kind, "")
    reader.close()
    disk.abandon()


def test_a_writer_that_starts_while_the_clock_is_ahead_deletes_nothing_early(
    directory: str, world: World
) -> None:
    # Its first roll took the age of the segment from the last time that was stored there.
    log = open_storage(directory, clock=world.clock(), retention=FOR_AN_HOUR, **SMALL)
    fill(log, world, 1)
    log.abandon()
    world.wall_ns += 2 * HOUR
    log = open_storage(directory, clock=world.clock())
    world.wall_ns -= 2 * HOUR
    fill(log, world, 2)
    assert len(stored_events(directory)) == 6
    log.close()
