"""What a writer counts, on its way to who asks: another release's names, old writers, `status`."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from eventlog import WriterStatistics, blocking
from eventlog.api.statistics import Counters, numbers_of, statistics_of
from eventlog.local.client.conversations import Channel
from eventlog.local.wire.messages import Message, Statistics, StatisticsReport
from eventlog.testing import ScriptedWriter
from tests.cli.test_cli import stop
from tests.commands import out

ID = bytes(16)


def test_every_counter_goes_to_the_client_and_back_by_its_name() -> None:
    counters = Counters(WriterStatistics)
    counters.batches += 2
    counters.sync_s += 0.5
    counted = counters.statistics(parked=3)
    assert (counted.batches, counted.sync_s, counted.parked) == (2, 0.5, 3)
    assert statistics_of(numbers_of(counted)) == counted


def test_a_counter_that_is_not_declared_is_an_error() -> None:
    counters = Counters(WriterStatistics)
    with pytest.raises(AttributeError):
        counters.nonsense += 1


def test_numbers_of_another_release_are_left_out() -> None:
    """A newer writer has more counters, and another process may say anything."""
    counted = statistics_of({"batches": 2, "unheard_of": 3, "appended": "many", "syncs": True})
    assert counted == WriterStatistics(batches=2)


def test_a_writer_that_does_not_know_the_question_hangs_up_and_the_answer_is_none() -> None:
    hung_up: list[int] = []

    def breaks(kind: str, operation: int) -> bool:
        # The second thing that it hears on a pipe is what it does not know.
        is_request = kind == "answer" and len(writer.requests) % 2 == 0
        hung_up.extend([operation] * is_request)
        return is_request

    writer = ScriptedWriter(log_id=ID, breaks=breaks)
    channel = Channel("log", ID, 1 << 20, 1)
    assert writer.run(channel.request(Statistics)) is None
    assert (writer.pipes, len(hung_up)) == (2, 2)
    assert not channel.is_open


class CountingWriter(ScriptedWriter):
    """One that knows the question."""

    def _answer(self, message: Message) -> Message:
        if isinstance(message, Statistics):
            return StatisticsReport(message.request_id, {"batches": 7})
        return super()._answer(message)


def test_a_writer_that_knows_it_answers() -> None:
    report = CountingWriter(log_id=ID).run(Channel("log", ID, 1 << 20, 1).request(Statistics))
    assert statistics_of(report.numbers) == WriterStatistics(batches=7)


@pytest.fixture
def log(tmp_path: Path) -> Iterator[str]:
    """A log with three events and a writer."""
    path = str(tmp_path / "log")
    out("append", path, "1", "2", "3")
    pid = writer_of(path)
    yield path
    stop(pid)


def writer_of(path: str) -> int:
    with blocking.open(path) as opened:
        pid = opened.status().writer_pid
    assert pid is not None
    return pid


def test_the_status_shows_what_the_writer_has_counted(log: str) -> None:
    counted = json.loads(out("status", log, "--json"))["statistics"]
    assert set(counted) == set(numbers_of(WriterStatistics()))
    assert (counted["appended"], counted["waiting"]) == (3, 0)
    shown = out("status", log)
    assert "its writer, since it started:" in shown
    rows = dict(line.split() for line in shown.partition("started:")[2].splitlines() if line)
    assert rows["appended"] == "3"


def test_the_status_of_a_log_without_a_writer_starts_none(log: str) -> None:
    stop(writer_of(log))
    report = json.loads(out("status", log, "--json"))
    assert (report["writer_pid"], report["statistics"], report["last_seq_no"]) == (None, None, 3)
    assert "its writer" not in out("status", log)


def test_the_status_does_not_wait_for_a_writer_that_is_stopped(log: str) -> None:
    pid = writer_of(log)
    os.kill(pid, signal.SIGSTOP)
    try:
        report = json.loads(out("status", log, "--json"))
    finally:
        os.kill(pid, signal.SIGCONT)
    assert (report["writer_pid"], report["statistics"]) == (pid, None)
