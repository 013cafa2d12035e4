"""Staging rings: who may write where, that nothing is overwritten, and that pipes do without."""

from __future__ import annotations

import fcntl
import mmap
import os
import random
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventlog import Retention, SeekPosition, blocking
from eventlog.config import STAGED_BYTES_MIN, STAGING_BYTES, STAGING_RINGS_MAX
from eventlog.demo.main_job import stop_process
from eventlog.errors import EventLogError, ProtocolError
from eventlog.event.many_events import pack_batches
from eventlog.event.record_batch import PackedBatch
from eventlog.local.client.staging import ALIGNMENT, StagingRing
from eventlog.local.rendezvous import connect
from eventlog.local.wire.connection import Connection, frame
from eventlog.local.wire.messages import (
    HELLO_MAGIC,
    PROTOCOL_VERSION,
    Append,
    Appended,
    AppendStaged,
    Failed,
    Hello,
    Message,
    Stage,
    Staged,
    Welcome,
)
from eventlog.local.wire.table import Role
from eventlog.local.writer.staging import StagingArea

SIZE = 64 * ALIGNMENT
LARGE = STAGED_BYTES_MIN + 1000


@pytest.fixture
def log(tmp_path: Path) -> Iterator[blocking.EventLog]:
    with blocking.open(tmp_path / "log") as log:
        pid = log.status().writer_pid
        yield log
    assert pid is not None
    stop_process(pid)


class Producer:
    """A producer that speaks the protocol by hand, so that it can also do it wrong."""

    def __init__(self, path: str) -> None:
        pipe = connect(path)
        assert pipe is not None
        self.pipe = pipe
        self.pipe.settimeout(30)
        self._connection = Connection(Role.CLIENT, 1 << 25)
        self._answers: list[Message] = []
        self._batches = 0
        self._ring: tuple[mmap.mmap, int] | None = None
        self.say(Hello(HELLO_MAGIC, PROTOCOL_VERSION, os.getpid()))
        assert isinstance(self.hear(), Welcome)

    def say(self, message: Message) -> None:
        self.pipe.sendall(frame(message))

    def hear(self) -> Message:
        while not self._answers:
            data = self.pipe.recv(1 << 16)
            assert data, "the writer dropped this producer"
            self._answers += self._connection.receive(data)
        return self._answers.pop(0)

    def is_dropped(self) -> bool:
        return self.pipe.recv(1) == b""

    def stage(self) -> tuple[mmap.mmap, int]:
        """The ring that the writer gives, and its descriptor."""
        self.say(Stage(7))
        data, descriptors, _, _ = socket.recv_fds(self.pipe, 1 << 16, 4)
        (answer,) = self._connection.receive(data)
        assert isinstance(answer, Staged)
        (descriptor,) = descriptors
        self._ring = mmap.mmap(descriptor, answer.size), descriptor
        return self._ring

    def append(self, batch: PackedBatch, place: int) -> None:
        self._batches += 1
        fields = (batch.count, batch.flags, place, len(batch.payload))
        self.say(AppendStaged(9, 5, self._batches, *fields))

    def close(self) -> None:
        self.pipe.close()
        if self._ring is not None:
            self._ring[0].close()
            os.close(self._ring[1])


@pytest.fixture
def producer(log: blocking.EventLog) -> Iterator[Producer]:
    producer = Producer(log.path)
    yield producer
    producer.close()


def batch_of_bytes(size: int) -> PackedBatch:
    (batch,) = pack_batches([random.randbytes(size)], 1 << 24, 1 << 20)
    return batch


def rings_of(pid: int) -> int:
    """The rings whose descriptors a process holds."""
    links = []
    for name in os.listdir(f"/proc/{pid}/fd"):
        with suppress(FileNotFoundError):  # closed meanwhile
            links.append(os.readlink(f"/proc/{pid}/fd/{name}"))
    return sum("eventlog-staging" in link for link in links)


def events_of(log: blocking.EventLog) -> list[Any]:
    return [envelope.event for envelope in log.read(1)]


# --- the producer's side -------------------------------------------------------------------------


@given(st.lists(st.one_of(st.integers(1, SIZE + 10), st.none()), max_size=60), st.randoms())
def test_batches_never_overlap_and_an_empty_ring_takes_the_largest(
    steps: list[int | None], chance: random.Random
) -> None:
    """`None` answers a batch, any of them; a number puts one of that size."""
    descriptor = os.memfd_create("ring")
    os.truncate(descriptor, SIZE)
    ring = StagingRing(descriptor, SIZE)
    there: dict[int, range] = {}
    for size in steps:
        if size is None:
            if there:
                place = chance.choice(sorted(there))
                del there[place]
                ring.release(place)
            continue
        place_or_none = ring.put([bytes(size // 2), bytes(size - size // 2)], size)
        if place_or_none is None:
            assert there or size > SIZE
            continue
        new = range(place_or_none, place_or_none + size)
        assert new.stop <= SIZE
        assert all(new.stop <= old.start or old.stop <= new.start for old in there.values())
        there[new.start] = new
    for place in sorted(there):
        ring.release(place)
    assert ring.put([bytes(SIZE)], SIZE) == 0
    ring.close()


def test_large_batches_go_through_the_ring_and_come_out_whole(log: blocking.EventLog) -> None:
    """They have all sizes around the limits, so that ring and pipe take turns, in order."""
    chance = random.Random(7)
    sizes = [STAGED_BYTES_MIN, STAGED_BYTES_MIN * 8, 3 << 20, STAGING_BYTES - 200, STAGING_BYTES, 9]
    sent = [chance.randbytes(chance.choice(sizes)) for _ in range(60)]
    with log.publisher(max_batch_bytes=1 << 20) as publisher:
        for event in sent:
            publisher.send(event)
    assert events_of(log) == sent


def test_a_producers_ring_is_freed_with_its_pipe(log: blocking.EventLog) -> None:
    """Else the writer would run out of them, and its memory would grow."""
    for _ in range(STAGING_RINGS_MAX + 10):
        with log.publisher() as publisher:
            publisher.send(bytes(LARGE)).result()
            publisher.send(bytes(LARGE)).result()
    pid = log.status().writer_pid
    assert pid is not None
    # The writer may not have met the end of the last ones yet.
    assert rings_of(pid) < STAGING_RINGS_MAX // 2


def test_batches_are_sent_again_by_the_pipe_of_the_next_writer(log: blocking.EventLog) -> None:
    sent = [random.randbytes(LARGE) for _ in range(200)]
    with log.publisher(max_batch_bytes=1) as publisher:
        for number, event in enumerate(sent):
            if number in (50, 120):
                pid = log.status().writer_pid
                assert pid is not None
                stop_process(pid)
            publisher.send(event)
    assert events_of(log) == sent


# --- the writer's side ---------------------------------------------------------------------------


def test_what_lies_in_the_ring_is_stored_as_it_was_when_it_was_copied(
    log: blocking.EventLog, producer: Producer
) -> None:
    """A producer may still scribble there: the checksum is of what was stored."""
    ring, _ = producer.stage()
    batch = batch_of_bytes(LARGE)
    ring[ALIGNMENT : ALIGNMENT + len(batch.payload)] = batch.payload
    producer.append(batch, ALIGNMENT)
    assert producer.hear() == Appended(9, 1)
    ring[:] = bytes(len(ring))
    assert [len(event) for event in events_of(log)] == [LARGE]


def test_scribbling_while_the_writer_copies_harms_no_other_batch(
    log: blocking.EventLog, producer: Producer
) -> None:
    """The scribbler's batch is what it made it; the log around it is whole."""
    ring, _ = producer.stage()
    batch = batch_of_bytes(1 << 20)
    ring[: len(batch.payload)] = batch.payload
    for _ in range(50):
        producer.append(batch, 0)
        ring[100_000:600_000] = random.randbytes(500_000)
        producer.hear()
    log.append("after")
    *scribbled, last = events_of(log)
    assert last == "after"
    assert all(len(event) == 1 << 20 for event in scribbled)


@pytest.mark.parametrize(
    ("position", "length"), [(STAGING_BYTES - 10, 100), (2**63, 1), (0, STAGING_BYTES + 1)]
)
def test_a_batch_outside_of_the_ring_costs_its_producer_the_pipe(
    log: blocking.EventLog, producer: Producer, position: int, length: int
) -> None:
    producer.stage()
    producer.say(AppendStaged(9, 5, 1, 1, 0, position, length))
    assert producer.is_dropped()
    assert log.append("next") == 1


def test_a_staged_batch_without_a_ring_costs_its_producer_the_pipe(
    log: blocking.EventLog, producer: Producer
) -> None:
    producer.say(AppendStaged(9, 5, 1, 1, 0, 0, 10))
    assert producer.is_dropped()


def test_an_empty_staged_batch_is_none(log: blocking.EventLog, producer: Producer) -> None:
    producer.stage()
    producer.say(AppendStaged(9, 5, 1, 1, 0, 0, 0))
    assert producer.is_dropped()


def test_a_ring_cannot_be_made_smaller_under_the_writer(
    log: blocking.EventLog, producer: Producer
) -> None:
    _, descriptor = producer.stage()
    with pytest.raises(PermissionError):
        os.truncate(descriptor, 0)
    with pytest.raises(PermissionError):
        os.truncate(descriptor, STAGING_BYTES * 2)
    with pytest.raises(PermissionError):
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE)


def test_a_second_ring_is_refused_and_the_pipe_goes_on(
    log: blocking.EventLog, producer: Producer
) -> None:
    producer.stage()
    producer.say(Stage(8))
    answer = producer.hear()
    assert isinstance(answer, Failed)
    assert answer.request_id == 8
    batch = batch_of_bytes(10)
    producer.say(Append(9, 5, 1, 1, 0, 0, batch.payload))
    assert producer.hear() == Appended(9, 1)


def test_there_are_only_so_many_rings() -> None:
    area = StagingArea()
    pairs = [socket.socketpair() for _ in range(STAGING_RINGS_MAX + 1)]
    for ours, _ in pairs[:-1]:
        area.open(ours, 1)
    with pytest.raises(EventLogError, match="no more"):
        area.open(pairs[-1][0], 1)
    area.forget(pairs[0][0])
    area.open(pairs[-1][0], 1)
    with pytest.raises(ProtocolError):
        area.take(pairs[0][0], AppendStaged(1, 1, 1, 1, 0, 0, 10))
    for ours, theirs in pairs:
        area.forget(ours)
        ours.close()
        theirs.close()


def test_a_full_log_keeps_a_waiting_batch_though_its_ring_is_used_again(tmp_path: Path) -> None:
    """With `on_full="wait"` a batch waits in the writer, whose copy of a ring has one batch."""
    sent = [bytes([number]) * 60_000 for number in range(30)]
    retention = Retention(max_bytes=512 * 1024)
    options: dict[str, Any] = {"segment_bytes": 256 * 1024, "max_event_bytes": 100_000}
    received: list[Any] = []

    def consume(log: blocking.EventLog) -> None:
        with log.subscribe("slow", SeekPosition.BEGINNING) as stream:
            for envelope in stream:
                received.append(envelope.event)
                log.ack("slow", envelope.seq_no or 0)
                if len(received) == len(sent):
                    return

    with blocking.open(tmp_path / "log", retention=retention, **options) as full:
        full.seek("slow", SeekPosition.BEGINNING)
        with full.publisher(max_batch_bytes=1, max_in_flight=16) as publisher:
            for event in sent[:16]:
                publisher.send(event)  # more than the log may hold
            consumer = threading.Thread(target=consume, args=[full])
            consumer.start()
            for event in sent[16:]:
                publisher.send(event)
        consumer.join()
        pid = full.status().writer_pid
    assert received == sent
    assert pid is not None
    stop_process(pid)
