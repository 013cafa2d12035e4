"""Conditional appends between a client and its writer: repeats, refusals, and what waits."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from eventlog import blocking
from eventlog.api.expectation import Expectation
from eventlog.config import AskedOptions, LogOptions, Retention
from eventlog.errors import EventTooLarge, WriterUnavailable, WrongExpectation
from eventlog.event.batch_builder import BatchBuilder
from eventlog.event.record_batch import PackedBatch, key_hash
from eventlog.local.client.conversations import Channel, PipeBroken
from eventlog.local.client.out_batch import OutBatch
from eventlog.local.client.outbox import Outbox
from eventlog.local.storage.log.writable import WritableLog
from eventlog.local.wire.messages import (
    Append,
    Appended,
    AppendIf,
    Failed,
    FromWriter,
    Message,
    Welcome,
    error_of,
    failed,
)
from eventlog.local.writer.actor import Actor
from eventlog.testing import ScriptedWriter, batch_of, open_storage

OPTIONS = LogOptions.of(AskedOptions(segment_bytes=8192))


def keyed(*keys: str | None, padding: int = 0) -> PackedBatch:
    builder = BatchBuilder(1 << 20)
    for key in keys:
        builder.add(bytes(padding), key)
    return builder.build()


# --- the client's side -----------------------------------------------------------------------


class NewWriter(ScriptedWriter):
    """One that knows conditional appends; it stores those that expect 0 of their keys."""

    def _answer(self, message: Message) -> Message:
        if isinstance(message, AppendIf):
            if any(message.last_seq_nos.values()):
                return failed(message.request_id, WrongExpectation("no", key="k", last_seq_no=0))
            numbers = message.producer_id, message.producer_seq, message.count, message.flags
            return self._store(Append(message.request_id, *numbers, 0, message.payload))
        return super()._answer(message)


class OldWriter(ScriptedWriter):
    """One of an earlier release, which hangs up on what it does not know."""

    epoch = 1

    def _answer(self, message: Message) -> Message:
        if isinstance(message, AppendIf):
            raise PipeBroken("hung up")
        answer = super()._answer(message)
        return Welcome(1, 1, self.epoch, self.log_id) if isinstance(answer, Welcome) else answer


def new_outbox() -> Outbox:
    return Outbox(Channel("/log", bytes(16), 1 << 20, 1), OPTIONS)


def expecting(outbox: Outbox, expect: dict[str, int], *keys: str | None) -> OutBatch:
    [batch] = outbox.add_many([keyed(*keys)], Expectation(None, expect)).batches
    return batch


def test_a_conditional_batch_is_one_of_its_own_and_keeps_its_place() -> None:
    outbox, writer = new_outbox(), NewWriter()
    before, _ = outbox.add("before")
    conditional = expecting(outbox, {"k": 0}, "k")
    after, _ = outbox.add("after")
    outbox.seal()
    writer.run(outbox.deliver(0))
    assert [before.base_seq_no, conditional.base_seq_no, after.base_seq_no] == [1, 2, 3]
    kinds = [type(one) for one in writer.requests if isinstance(one, Append | AppendIf)]
    assert kinds == [Append, AppendIf, Append]


def test_what_is_expected_is_known_before_another_thread_may_send_the_batch() -> None:
    outbox = new_outbox()
    queued: list[Any] = []

    class Unsent(deque[Any]):
        def append(self, batch: Any) -> None:
            queued.append(batch.expected)
            super().append(batch)

    outbox.unsent = Unsent()
    expected = Expectation.of_events({"k": 0}, None)
    outbox.add_many([batch_of(1)], expected)
    assert queued == [expected]


def test_a_refused_one_holds_up_nothing_behind_it() -> None:
    outbox, writer = new_outbox(), NewWriter()
    refused = expecting(outbox, {"k": 7}, "k")
    after = outbox.add_packed(batch_of("after"))
    writer.run(outbox.deliver(0))
    assert after.base_seq_no == 1
    with pytest.raises(WrongExpectation) as caught:
        refused.seq_no_of(0)
    assert (caught.value.key, caught.value.last_seq_no) == ("k", 0)


@pytest.mark.parametrize("at", range(1, 12))
def test_it_is_repeated_after_a_broken_pipe_and_stored_once(at: int) -> None:
    outbox = new_outbox()
    writer = NewWriter(breaks=lambda _kind, number: number == at)
    batches = [expecting(outbox, {"k": 0}, "k"), outbox.add_packed(batch_of("after"))]
    writer.run(outbox.deliver(0))
    assert [batch.base_seq_no for batch in batches] == [1, 2]
    assert len(writer.stored) == 2


def test_a_writer_that_does_not_know_it_hangs_up_and_the_error_says_what_to_do() -> None:
    outbox, writer = new_outbox(), OldWriter()
    conditional = expecting(outbox, {"k": 0}, "k")
    after = outbox.add_packed(batch_of("after"))
    writer.run(outbox.deliver(0))
    assert after.base_seq_no == 1
    with pytest.raises(WriterUnavailable, match="restart"):
        conditional.seq_no_of(0)
    assert writer.pipes == 4


def test_a_writer_that_is_killed_again_and_again_is_not_taken_for_an_old_one() -> None:
    outbox, writer = new_outbox(), OldWriter()
    conditional = expecting(outbox, {"k": 0}, "k")
    steps = outbox.deliver(0)

    class Killed(NewWriter):
        """Each pipe is another writer's; the fifth one lives."""

        def _answer(self, message: Message) -> Message:
            if isinstance(message, AppendIf) and self.pipes < 5:
                raise PipeBroken("killed")
            answer = super()._answer(message)
            is_greeting = isinstance(answer, Welcome)
            return Welcome(1, 1, self.pipes, self.log_id) if is_greeting else answer

    writer = Killed()  # type: ignore[assignment]
    writer.run(steps)
    assert (conditional.base_seq_no, writer.pipes) == (1, 5)


def test_keys_that_no_message_can_hold_are_refused_before_anything_is_sent() -> None:
    outbox = new_outbox()
    with pytest.raises(EventTooLarge, match="conditional"):
        expecting(outbox, {"k" * OPTIONS.frame_bytes_max: 0}, "k")
    assert outbox.pending == 0


# --- the writer's side -----------------------------------------------------------------------


class Peer:
    """A client's pipe."""

    def __init__(self) -> None:
        self.said: list[FromWriter] = []
        self.is_gone = False

    def say(self, message: FromWriter) -> None:
        self.said.append(message)

    @property
    def answers(self) -> list[tuple[int, Any]]:
        """Request and outcome of each: the number, or the error's name."""
        return [
            (one.request_id, one.base_seq_no)
            if isinstance(one, Appended)
            else (one.request_id, type(error_of(one)).__name__)
            for one in self.said
            if isinstance(one, Appended | Failed)
        ]


class World:
    """An actor with its log, and the peers that speak to it."""

    def __init__(self, directory: str, **options: Any) -> None:
        self.directory = directory
        self.options = options
        self.start()

    def start(self) -> None:
        self.wanted = 0
        self.log: WritableLog = open_storage(self.directory, **self.options)
        self.actor = Actor(self.log, lambda: 1, lambda: None, on_index=self._want)

    def _want(self) -> None:
        self.wanted += 1

    def restart(self) -> None:
        """As after a kill."""
        self.close()
        self.start()

    def close(self) -> None:
        self.log.abandon()
        self.actor.groups.store.close()

    def append(self, peer: Peer, number: int, *keys: str | None, padding: int = 0) -> None:
        batch = keyed(*keys, padding=padding)
        self.actor.handle(
            peer, Append(number, 1, number, batch.count, batch.flags, 0, batch.payload)
        )

    def expect(
        self, peer: Peer, number: int, expect: dict[str, int], *keys: str | None, last: int = -1
    ) -> None:
        batch = keyed(*keys)
        fields = number, 1, number, batch.count, batch.flags
        self.actor.handle(peer, AppendIf(*fields, last + 1, expect, batch.payload))


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(str(tmp_path / "log"), durability="memory", segment_bytes=8192)
    yield world
    world.close()


def test_a_repeated_batch_gets_its_first_answer_though_its_condition_fails_now(
    world: World,
) -> None:
    peer, other = Peer(), Peer()
    world.expect(peer, 1, {"k": 0}, "k")
    world.append(peer, 2, "k")
    world.expect(other, 1, {"k": 0}, "k")
    assert other.answers == [(1, 1)]
    world.restart()
    world.expect(other, 1, {"k": 0}, "k")
    assert other.answers == [(1, 1), (1, 1)]
    assert world.log.last_seq_no == 2


def test_what_a_log_does_not_ask_for_is_not_kept(world: World) -> None:
    peer = Peer()
    world.append(peer, 1, "k")
    world.expect(peer, 2, {}, "k", last=1)
    assert world.log.keys is None
    world.expect(peer, 3, {"k": 2}, "k")
    assert world.log.keys is not None


def test_an_append_waits_for_an_index_and_others_go_on(world: World) -> None:
    first, second = Peer(), Peer()
    for number in range(1, 40):
        world.append(first, number, "k", padding=400)
    assert len(world.log._sealed) >= 2
    world.expect(second, 101, {"k": 39}, "k")
    world.append(second, 102, "other")
    assert (world.wanted, second.answers) == (1, [])
    world.append(first, 40, "other")
    assert first.answers[-1] == (40, 40)
    assert world.actor.statistics().waiting == 2
    for _ in world.actor.indexing():
        pass
    assert second.answers == [(101, 41), (102, 42)]


def test_what_comes_meanwhile_counts(world: World) -> None:
    first, second, third = Peer(), Peer(), Peer()
    for number in range(1, 40):
        world.append(first, number, "k", padding=400)
    world.expect(second, 101, {"k": 39}, "k")
    world.expect(third, 102, {"new": 0}, "new")
    steps = world.actor.indexing()
    next(steps)
    world.append(first, 40, "k", "new")
    assert list(steps) is not None
    assert second.answers == [(101, "WrongExpectation")]
    assert third.answers == [(102, "WrongExpectation")]


def test_an_append_whose_peer_is_gone_is_dropped(world: World) -> None:
    first, second, third = Peer(), Peer(), Peer()
    for number in range(1, 40):
        world.append(first, number, "k", padding=400)
    for peer, number in ((second, 101), (third, 102)):
        world.expect(peer, number, {"k": 39}, "k")
    steps = world.actor.indexing()
    next(steps)
    second.is_gone = True
    world.actor.forget_peer(second)
    assert list(steps) is not None
    assert (second.answers, third.answers) == ([], [(102, 40)])


def test_a_roll_on_the_way_is_no_reason_to_wait_for_ever(world: World) -> None:
    """The segment that is looked through becomes full, and has to be indexed as one."""
    first, second = Peer(), Peer()
    world.append(first, 1, "k")
    world.expect(second, 101, {"k": 1}, "k")
    steps = world.actor.indexing()
    next(steps, None)
    for number in range(2, 40):
        world.append(first, number, "other", padding=400)
    assert list(steps) is not None
    assert len(second.answers) == 1
    assert second.answers[0][1] in (2, 40)


def test_a_body_that_is_none_harms_nobody_else(world: World) -> None:
    """A producer may say anything; who asks for a key that such a batch may hold is told so."""
    first, second = Peer(), Peer()
    world.expect(first, 1, {"k": 0}, "k")
    world.append(first, 2, "plumless")
    world.expect(first, 3, {"plumless": 2}, "plumless")
    hashes = b"".join(key_hash(key).to_bytes(4, "little") for key in ("k", "plumless"))
    nonsense = hashes + b"\x95\xc4\x10" + bytes(40)
    world.actor.handle(second, Append(1, 2, 1, 2, 1, 0, nonsense))
    world.actor.handle(second, Append(2, 2, 2, 1, 1, 0, hashes[4:] + b"\x95"))
    world.actor.handle(second, AppendIf(3, 2, 3, 1, 1, 7, {}, hashes[:4] + b"\x95"))
    assert second.answers == [(1, 4), (2, 6), (3, 7)]
    world.expect(first, 4, {"plumless": 3}, "plumless")
    assert first.answers[-1] == (4, "CorruptLog")
    world.append(first, 5, "k")
    world.expect(first, 6, {"k": 8}, "k")
    assert [outcome for _, outcome in first.answers[-2:]] == [8, 9]


def test_many_keys_are_looked_up_in_steps(world: World) -> None:
    peer = Peer()
    keys = [f"key-{number}" for number in range(300)]
    world.append(peer, 1, *keys[:150])
    world.expect(peer, 2, {key: int(key in keys[:150]) for key in keys}, "k")
    for _ in world.actor.indexing():
        pass
    # Their numbers are 1 to 150.
    expect = {key: place + 1 if place < 150 else 0 for place, key in enumerate(keys)}
    world.expect(peer, 3, expect, "k")
    for _ in world.actor.indexing():
        pass
    assert [outcome for _, outcome in peer.answers] == [1, "WrongExpectation", 151]


def test_a_full_log_that_waits_keeps_the_order_of_its_producers(tmp_path: Path) -> None:
    world = World(
        str(tmp_path / "full"),
        durability="memory",
        segment_bytes=4096,
        retention=Retention(max_bytes=8192, keep_unacked=True),
        on_full="wait",
    )
    peer, stranger = Peer(), Peer()
    world.log.seek("slow", 0)
    number = 0
    while not world.actor._waiting:
        number += 1
        world.append(stranger, number, "k", padding=900)
    world.expect(peer, 101, {"k": number}, "k")
    world.append(peer, 102, "k")
    assert peer.answers == []
    world.log.ack("slow", number - 1)
    world.actor.retry_waiting()
    for _ in world.actor.indexing():
        pass
    numbers = [outcome for _, outcome in peer.answers]
    assert [request for request, _ in peer.answers] == [101, 102]
    assert numbers == sorted(numbers)
    world.close()


# --- real processes --------------------------------------------------------------------------

COUNT_UP: Final = """
import sys
from eventlog import WrongExpectation, blocking

path, key, times = sys.argv[1], sys.argv[2], int(sys.argv[3])
with blocking.open(path) as log:
    last = 0
    for _ in range(times):
        while True:
            try:
                last = log.append({"after": last}, key=key, expect=last)
                break
            except WrongExpectation as error:
                last = error.last_seq_no
"""


def test_conditional_appends_are_exact_though_writers_are_killed(tmp_path: Path) -> None:
    """Each event names the one before it: a double, a lost one or a fork would break the chain."""
    path, times = str(tmp_path / "log"), 20
    with blocking.open(path, segment_bytes=4096) as log:
        log.append("first", key="other")
        programs = [
            subprocess.Popen([sys.executable, "-c", COUNT_UP, path, key, str(times)])
            for key in ("plumless", "plumless", "buckeroo")
        ]
        with log.follow() as stream:
            for _ in range(2):
                for _ in zip(range(10), stream, strict=False):
                    pass
                os.kill(log.status().writer_pid or 0, signal.SIGKILL)
        assert [program.wait(60) for program in programs] == [0, 0, 0]
        for key, appended in (("plumless", 2 * times), ("buckeroo", times)):
            chain = [(one.event["after"], one.seq_no) for one in log.read(key=key)]
            assert len(chain) == appended
            assert [after for after, _ in chain] == [0, *(number for _, number in chain[:-1])]
