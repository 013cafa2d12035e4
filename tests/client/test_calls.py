"""Calls as steps: what each asks for, by hand, and the pipes that its requests go through."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from eventlog.api.positions import SeekPosition
from eventlog.api.stream_options import StreamOptions
from eventlog.config import AskedOptions
from eventlog.errors import (
    InvalidArgumentType,
    InvalidName,
    LogClosed,
    NotSupported,
    SequenceOutOfRange,
)
from eventlog.local.client import calls
from eventlog.local.client.calls import Ask, Work
from eventlog.local.client.feed import Feed, upcoming
from eventlog.local.client.handle import LocalHandle
from eventlog.local.client.requests import Requests
from eventlog.local.wire.group_messages import AwaitDrained, Counted, OpenGroup, RetryDead
from eventlog.local.wire.messages import (
    Ack,
    AckState,
    AwaitSynced,
    Done,
    Park,
    Seek,
    Status,
    Wake,
)
from eventlog.testing import batch_of, open_storage


class FakePipe:
    def __init__(self, *_: object) -> None:
        self.is_closed = False

    def close(self) -> None:
        self.is_closed = True


@pytest.fixture
def handle(tmp_path: Path) -> Iterator[LocalHandle]:
    """The handle of a log with three events, which no writer serves."""
    log = open_storage(str(tmp_path / "log"))
    log.append(batch_of(1, 2, 3))
    log.close()
    handle = LocalHandle(tmp_path / "log", AskedOptions())
    handle.open()
    yield handle
    handle.close()


@pytest.fixture
def requests(handle: LocalHandle) -> Requests[FakePipe]:
    return Requests(handle, "stream", FakePipe)


def all_asked(call: Any, *outcomes: Any) -> tuple[list[Any], Any]:
    """What a call asks for, given these outcomes, and what it returns."""
    asked: list[Any] = []
    given = iter(outcomes)
    try:
        wanted = next(call)
        while True:
            asked.append(wanted)
            wanted = call.send(next(given, None))
    except StopIteration as stop:
        return asked, stop.value


def test_a_call_asks_only_for_what_it_needs(handle: LocalHandle) -> None:
    assert all_asked(calls.ack(handle, "c", 2, None)) == ([Ask(Ack, ("c", 2))], None)
    with_state = Ask(AckState, ("c", 2, b"two"))
    assert all_asked(calls.ack(handle, "c", 2, b"two"), Done(1)) == ([with_state], None)
    assert all_asked(calls.seek(handle, "c", SeekPosition.sequence(3))) == (
        [Ask(Seek, ("c", 2))],
        None,
    )
    assert all_asked(calls.seek(handle, "c", SeekPosition.LAST_ACKNOWLEDGED)) == ([], None)


def test_a_call_is_refused_before_it_asks_for_anything(handle: LocalHandle) -> None:
    for call, error in (
        (calls.ack(handle, "", 1, None), InvalidName),
        (calls.ack(handle, "c", "1", None), InvalidArgumentType),  # type: ignore[arg-type]
        (calls.ack(handle, "c", 1, "state"), InvalidArgumentType),  # type: ignore[arg-type]
        (calls.synced(handle, 4), SequenceOutOfRange),
        (calls.dead_letters(handle, ""), InvalidName),
        (calls.end_dead(RetryDead, "g", 3), InvalidArgumentType),  # type: ignore[arg-type]
    ):
        with pytest.raises(error):
            next(call)


def test_a_state_is_refused_by_an_older_writer_and_outlives_writers_that_die(
    handle: LocalHandle,
) -> None:
    call = calls.ack(handle, "c", 2, b"two")
    assert next(call) == Ask(AckState, ("c", 2, b"two"))
    for _ in range(3):  # two writers died before they answered, each time
        open_storage(handle.path).close()
        assert call.send(None) == Ask(AckState, ("c", 2, b"two"))
    with pytest.raises(NotSupported, match="of an older release, which does not know state="):
        call.send(None)  # this one lives, and hangs up


def test_numbers_of_dead_letters_go_in_as_many_messages_as_they_need() -> None:
    numbers = range(1, 2 * calls.RANGES_AT_ONCE + 3, 2)
    asked, total = all_asked(calls.end_dead(RetryDead, "g", numbers), Counted(1, 5), Counted(2, 7))
    ranges = tuple((number, number) for number in numbers)
    assert asked == [
        Ask(RetryDead, ("g", ranges[: calls.RANGES_AT_ONCE])),
        Ask(RetryDead, ("g", ranges[calls.RANGES_AT_ONCE :])),
    ]
    assert total == 12


def test_what_reads_files_is_work_for_another_thread(handle: LocalHandle) -> None:
    asked, _ = all_asked(calls.groups(handle), [])
    assert [type(one) for one in asked] == [Work]


def test_a_stream_asks_to_be_woken_only_when_there_is_nothing_to_read(
    handle: LocalHandle, requests: Requests[FakePipe]
) -> None:
    feed = Feed(handle.reader, None, SeekPosition.BEGINNING, StreamOptions())
    asked, events = all_asked(upcoming(feed, requests, feed.next_batch))
    assert (asked, [one.event for one in events]) == ([], [1, 2, 3])
    call = upcoming(feed, requests, feed.next_batch)
    assert next(call) == Ask(Park, (4,))
    assert call.send(Wake(1, 3)) == Ask(Park, (4,)), "a wake-up is a hint: it looks again"
    feed.close()


def test_a_stream_that_is_closed_while_it_waits_says_so(
    handle: LocalHandle, requests: Requests[FakePipe]
) -> None:
    feed = Feed(handle.reader, None, SeekPosition.LATEST, StreamOptions())
    call = upcoming(feed, requests, feed.next_batch)
    next(call)
    requests.close()
    feed.close()
    with pytest.raises(LogClosed, match="stream"):
        call.send(Wake(1, 4))


def test_each_kind_that_waits_has_a_pipe_of_its_own(requests: Requests[FakePipe]) -> None:
    shared = requests.pipe_for(Ack)
    assert requests.pipe_for(Status) is requests.pipe_for(OpenGroup) is shared
    waiting = [requests.pipe_for(kind) for kind in (Park, AwaitSynced, AwaitDrained)]
    assert len({shared, *waiting}) == 4
    assert requests.pipe_for(Park) is waiting[0]


@pytest.mark.parametrize("what", ["requests", "handle"])
def test_the_pipes_are_closed_with_either(
    requests: Requests[FakePipe], handle: LocalHandle, what: str
) -> None:
    pipes = [requests.pipe_for(kind) for kind in (Ack, Park)]
    (requests if what == "requests" else handle).close()
    assert all(pipe.is_closed for pipe in pipes)
    with pytest.raises(LogClosed):
        requests.pipe_for(Ack)
