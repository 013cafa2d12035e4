"""`eventlog top`: what it says of real logs, and its screen under real keys."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot

from eventlog import SeekPosition, blocking
from eventlog.api.group import Failure
from eventlog.cli.top import _looks
from eventlog.monitor.history import RATE_S, History
from eventlog.monitor.preview import preview_seek
from eventlog.monitor.sample import Sample, Sampler
from eventlog.monitor.screen.app import Top
from eventlog.monitor.screen.watching import Watched
from eventlog.monitor.text import duration, line_of, rate, size, sparkline
from eventlog.monitor.views import known_fields
from tests.commands import COMMAND, ENVIRONMENT, out, run

PATIENCE_S = 20.0


@pytest.fixture
def log(tmp_path: Path) -> Iterator[blocking.EventLog]:
    with blocking.open(tmp_path / "log") as opened:
        yield opened


def poison(log: blocking.EventLog, *seq_nos: int) -> None:
    """A group whose handler fails at these events, and leaves the rest."""
    with log.member("resize", max_deliveries=1) as member:
        left = {*seq_nos}
        while left:
            lease = member.lease(1)
            assert lease is not None
            for _, envelope in lease:
                lease.begin(envelope)
                if envelope.seq_no in left:
                    failure = Failure(error="ValueError: no [size]", traceback="Traceback: there")
                    lease.failed(envelope, failure)
                    left.remove(envelope.seq_no)
                else:
                    lease.done(envelope)
        member.flush()


# --- samples and what they say -------------------------------------------------------------------


def test_a_sample_has_positions_groups_members_and_the_writer(log: blocking.EventLog) -> None:
    log.append_many(range(10))
    log.ack("billing", 4)
    poison(log, 1)
    sampler = Sampler(log)
    with log.member("resize", max_deliveries=1) as member:
        lease = member.lease(2)
        assert lease is not None
        for _, envelope in lease:
            lease.begin(envelope)
        sample = sampler.take()
        lease.give_back()
    sampler.close()
    view = History().add(sample)
    [consumer] = view.consumers  # the group is no second one
    assert (consumer.position, consumer.lag, consumer.acked_per_s) == (4, 6, None)
    assert consumer.lag_s is not None
    assert 0 <= consumer.lag_s < PATIENCE_S
    assert view.groups is not None
    [group] = view.groups
    assert (group.name, group.in_flight, group.dead_letters, group.members) == ("resize", 2, 1, 1)
    assert group.working is not None
    assert [(one.pid, one.in_flight) for one in group.working] == [(os.getpid(), 2)]
    assert view.writer is not None
    assert view.writer.pid == log.status().writer_pid
    assert (view.writer.rss_bytes or 0) > 1 << 20


def test_looking_at_a_group_does_not_make_it_look_alive(log: blocking.EventLog) -> None:
    log.append_many(range(3))
    poison(log, 1)

    def last_seen() -> datetime:
        return next(one.last_seen for one in log.consumers() if one.name == "resize")

    before = last_seen()
    sampler = Sampler(log)
    sampler.take()
    sampler.close()
    assert last_seen() == before


def test_what_an_engine_does_not_know_is_left_out_and_not_zero() -> None:
    with blocking.open("memory:") as log:
        log.append(1)
        sampler = Sampler(log)
        fields = known_fields(History().add(sampler.take()))
        sampler.close()
    assert "syncs_per_s" not in fields["writer"]
    assert fields["last_seq_no"] == 1
    assert (fields["groups"], fields["consumers"]) == ([], [])


@pytest.fixture
def sample(log: blocking.EventLog) -> Sample:
    log.append_many(range(1000))
    log.ack("billing", 100)
    sampler = Sampler(log)
    taken = sampler.take()
    sampler.close()
    return taken


def later(sample: Sample, seconds: float, last: int, acked: int) -> Sample:
    """The same log after that time, with so many events more, and so many acknowledged."""
    [consumer] = sample.consumers
    return replace(
        sample,
        clock_s=sample.clock_s + seconds,
        taken_at=sample.taken_at + timedelta(seconds=seconds),
        status=replace(sample.status, last_seq_no=last),
        consumers=(replace(consumer, last_acked=acked, lag=last - acked),),
    )


def test_rates_are_of_the_last_seconds_and_tell_when_the_lag_is_gone(sample: Sample) -> None:
    history = History()
    history.add(sample)
    view = history.add(later(sample, 2, 1200, 500))
    [consumer] = view.consumers
    assert view.appended_per_s == 100
    assert consumer.acked_per_s == 200
    assert consumer.catch_up_s == 7  # 700 events at 100 a second
    assert consumer.trend == (900, 700)
    for second in range(3, 20):
        view = history.add(later(sample, second, 1200, 500))
    assert view.appended_per_s == 0
    assert view.consumers[0].catch_up_s is None


def test_a_log_that_was_made_again_begins_anew(sample: Sample) -> None:
    history = History()
    history.add(sample)
    view = history.add(later(sample, 1, 10, 5))
    assert view.appended_per_s is None


def test_a_position_that_was_set_back_is_no_negative_rate(sample: Sample) -> None:
    history = History()
    history.add(sample)
    [consumer] = history.add(later(sample, 1, 1000, 0)).consumers
    assert consumer.acked_per_s == 0


def test_samples_older_than_the_rate_are_forgotten(sample: Sample) -> None:
    history = History()
    samples = (later(sample, second, 1000 + second * second, 100) for second in range(1000))
    view = [history.add(one) for one in samples][-1]
    newest = 1000 + 999 * 999
    before = 1000 + (999 - RATE_S) ** 2
    assert view.appended_per_s == (newest - before) / RATE_S


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (duration(None), "-"),
        (duration(0), "0 s"),
        (duration(1.24), "1.2 s"),
        (duration(245), "4:05"),
        (duration(11_520), "3:12:00"),
        (duration(200_000), "2 days, 7:33:20"),
        (rate(None), "-"),
        (rate(0.25), "0.2/s"),
        (rate(12_345.6), "12,346/s"),
        (size(999), "999 B"),
        (size(1536), "1.5 KiB"),
        (size(64 << 20), "64.0 MiB"),
        (sparkline((0, 1, 4, 8)), " ▁▄█"),
        (sparkline(()), ""),
        (sparkline((0, 0)), "  "),
    ],
)
def test_numbers_are_shown_in_their_unit(shown: str, expected: str) -> None:
    assert shown == expected


def test_a_line_tells_who_is_most_behind(sample: Sample) -> None:
    line = line_of(History().add(sample))
    assert "last 1,000" in line
    assert "consumers 1, most behind billing by 900" in line


# --- previews ------------------------------------------------------------------------------------


def test_a_preview_of_a_seek_says_what_is_read_again(log: blocking.EventLog) -> None:
    log.append_many(range(50))
    log.ack("billing", 40)

    def shown(position: SeekPosition) -> str:
        return str(preview_seek(log, "billing", position))

    stored = next(iter(log.read(11, 12))).stored_at
    assert stored is not None
    time = f"{stored.astimezone():%Y-%m-%d %H:%M:%S}"
    assert (
        shown(SeekPosition.sequence(11)) == f"billing: 40 -> 10, 30 events again, first of {time}"
    )
    assert shown(SeekPosition.BEGINNING).startswith("billing: 40 -> 0, 40 events again, first of")
    assert shown(SeekPosition.LATEST) == "billing: 40 -> 50, 10 events passed over, then it waits"
    assert shown(SeekPosition.LAST_ACKNOWLEDGED) == "billing: 40 -> 40, nothing changes"
    long_ago = SeekPosition.timestamp(datetime(2000, 1, 1, tzinfo=UTC))
    assert shown(long_ago).startswith("billing: 40 -> 0, 40 events again")
    assert preview_seek(log, "new", SeekPosition.sequence(1)).before == 0
    assert log.consumers()[0].last_acked == 40


def test_seek_dry_run_says_what_would_change_and_changes_nothing(log: blocking.EventLog) -> None:
    log.append_many(range(50))
    log.ack("billing", 40)
    said = out("seek", log.path, "billing", "11", "--dry-run")
    assert said.startswith("billing: 40 -> 10, 30 events again, first of ")
    assert log.consumers()[0].last_acked == 40
    assert out("seek", log.path, "billing", "11") == ""
    assert log.consumers()[0].last_acked == 10


# --- the command ---------------------------------------------------------------------------------


def test_top_once_as_json_has_rates(log: blocking.EventLog) -> None:
    log.append_many(range(10))
    log.ack("billing", 4)
    [line] = out("top", log.path, "--once", "--json", "--interval", "0.2").splitlines()
    found = json.loads(line)
    assert (found["last_seq_no"], found["appended_per_s"]) == (10, 0)
    [consumer] = found["consumers"]
    assert (consumer["name"], consumer["lag"], consumer["acked_per_s"]) == ("billing", 6, 0)
    assert "trend" not in consumer


def test_top_in_a_pipe_is_a_line_for_each_look_until_ctrl_c(log: blocking.EventLog) -> None:
    log.append_many(range(10))
    command = [*COMMAND, "top", log.path, "--interval", "0.1"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=ENVIRONMENT, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        lines = [process.stdout.readline() for _ in range(3)]
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE_S) == 130
        assert "Traceback" not in process.stderr.read()
    assert all("last 10" in line for line in lines)


def test_a_look_that_takes_longer_than_the_interval_is_followed_by_the_next() -> None:
    """The time until the next look was negative by then: a ValueError of `sleep`."""
    looks = _looks([], 1e-12)
    assert [next(looks) for _ in range(3)] == [[], [], []]


def test_top_of_no_log_is_wrong_usage(tmp_path: Path) -> None:
    done = run("top", str(tmp_path / "none"))
    assert done.returncode == 2
    assert "none" in done.stderr


# --- the screen ----------------------------------------------------------------------------------


def drawn(app: Top) -> str:
    strips = app.screen._compositor.render_strips()
    return "\n".join("".join(segment.text for segment in strip) for strip in strips)


class Screen:
    """The screen over a log, and keys for it."""

    def __init__(self, app: Top, pilot: Pilot[None]) -> None:
        self.app = app
        self.pilot = pilot

    async def press(self, *keys: str) -> None:
        await self.pilot.press(*keys)

    async def shows(self, *texts: str) -> str:
        """Wait until all of these are drawn."""
        return await self.until(lambda shown: all(text in shown for text in texts), texts)

    async def until(self, is_so: Callable[[str], bool], what: Any) -> str:
        shown = ""
        with suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE_S):
                while True:
                    await self.pilot.pause(0.02)  # the screen draws when it is idle
                    if is_so(shown := drawn(self.app)):
                        return shown
        raise AssertionError(f"there is no {what} in\n{shown}")


@asynccontextmanager
async def screen_of(log: blocking.EventLog) -> AsyncIterator[Screen]:
    watched = Watched(log.path)
    app = Top([watched], 0.1)
    try:
        async with app.run_test(size=(140, 40), notifications=True) as pilot:
            yield Screen(app, pilot)
    finally:
        watched.close()


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.mark.anyio
async def test_the_screen_seeks_after_it_showed_what_that_changes(log: blocking.EventLog) -> None:
    log.append_many(range(50))
    log.ack("[billing]", 40)
    async with screen_of(log) as screen:
        await screen.shows("[billing]", "40", "sorted by lag")
        await screen.press("k")
        await screen.shows("Move [billing] to")
        await screen.press("backspace", "backspace", "1", "1", "enter")
        await screen.shows("[billing]: 40 -> 10, 30 events again")
        await screen.press("n")
        assert log.consumers()[0].last_acked == 40
        await screen.press("k")
        await screen.shows("Move [billing] to")
        await screen.press("backspace", "backspace", "1", "1", "enter")
        await screen.shows("Seek?")
        await screen.press("y")
        await screen.until(lambda _: log.consumers()[0].last_acked == 10, "seek")


@pytest.mark.anyio
async def test_the_screen_tells_a_wrong_place_in_words(log: blocking.EventLog) -> None:
    log.append(1)
    log.ack("billing", 1)
    async with screen_of(log) as screen:
        await screen.shows("billing")
        await screen.press("k")
        await screen.shows("Move billing to")
        await screen.press("x", "enter")
        await screen.shows("'x' is no position")


@pytest.mark.anyio
async def test_the_screen_shows_a_poisonous_event_with_its_traceback_and_retries_it(
    log: blocking.EventLog,
) -> None:
    log.append_many([{"image": n} for n in range(5)])
    poison(log, 2, 3)
    async with screen_of(log) as screen:
        await screen.shows("resize")
        await screen.press("l")
        await screen.shows("ValueError: no [size]", "Traceback: there", '{"image": 1}')
        await screen.press("d")
        await screen.shows("Drop the letter of event 2 for good?")
        await screen.press("y")
        await screen.until(lambda _: len(log.dead_letters("resize")) == 1, "dropped letter")
        await screen.shows('{"image": 2}')
        await screen.press("r")
        await screen.shows("Retry event 3?")
        await screen.press("y")
        await screen.until(lambda _: log.groups()[0].dead_letters == 0, "retried letter")
        await screen.press("escape")
        await screen.shows("sorted by lag")


@pytest.mark.anyio
async def test_the_screen_looks_into_events(log: blocking.EventLog) -> None:
    log.append_many([{"n": n} for n in range(300)], keys=[f"[k]{n}" for n in range(300)])
    async with screen_of(log) as screen:
        await screen.shows("300")
        await screen.press("e")
        await screen.shows('{"n": 299}', "[k]299", "number     300")
        await screen.press("g")
        await screen.shows("Go to")
        await screen.press("7", "enter")
        await screen.shows('{"n": 6}', "number     7")


@pytest.mark.anyio
async def test_the_screen_sorts_filters_pauses_and_helps(log: blocking.EventLog) -> None:
    log.append_many(range(50))
    log.ack("slow", 10)
    log.ack("fast", 50)
    async with screen_of(log) as screen:
        shown = await screen.shows("slow", "fast")
        assert shown.index("slow") < shown.index("fast")
        await screen.press("s")
        shown = await screen.shows("sorted by name")
        assert shown.index("fast") < shown.index("slow")
        await screen.press("slash")
        await screen.shows("whose name has")
        await screen.press("s", "l", "enter")
        await screen.until(lambda shown: "fast" not in shown and "slow" in shown, "filter")
        await screen.press("space")
        await screen.shows("PAUSED")
        await screen.press("question_mark")
        await screen.shows("leave", "caught up in")
        await screen.press("escape", "q")


def test_looking_at_a_log_starts_no_writer(tmp_path: Path) -> None:
    path = str(tmp_path / "log")
    with blocking.open(path) as log:
        log.append_many(range(10))
        log.ack("billing", 4)
        poison(log, 1)
    out("stop", path)
    found = json.loads(out("top", path, "--once", "--json", "--interval", "0.1"))
    assert "writer" not in found
    assert [(one["name"], one["lag"]) for one in found["consumers"]] == [("billing", 6)]
    assert [(one["name"], one["dead_letters"]) for one in found["groups"]] == [("resize", 1)]
    assert json.loads(out("status", path, "--json"))["writer_pid"] is None
