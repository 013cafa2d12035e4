"""What is fuzzed. Each target takes any bytes, and raises only if the product breaks a promise.

The `files` targets put the bytes in the place of one file of a kept log, which must then serve each
event as it was appended, or say what is wrong. A fuzzer does not guess checksums, so the `sealed`
targets compute them: a log from somebody with bad intentions, of which only errors of ours may
come. The `writer` targets talk to a real actor with a real log.
"""

from __future__ import annotations

import atexit
import os
import socket
import struct
from collections.abc import Callable
from contextlib import ExitStack, suppress
from functools import cache, partial
from pathlib import Path
from typing import Any, Final

from crc32c import crc32c
from msgspec.structs import replace

from eventlog.errors import EventLogError, InvalidEvent, ProtocolError
from eventlog.event.payload import unpack
from eventlog.event.record_batch import unpack_body
from eventlog.local.groups.stored import read_dead_letters, read_groups
from eventlog.local.storage.control import CONTROL, OPTIONS_OFFSET
from eventlog.local.storage.formats.format import (
    BATCH_HEADER,
    FIRST_BATCH,
    HEADER_BYTES,
    INDEX_ENTRY,
    SEGMENT_HEADER,
    aligned,
)
from eventlog.local.storage.formats.producers import MAGIC as PRODUCERS_MAGIC
from eventlog.local.storage.journal import journal_header
from eventlog.local.storage.reading.reader import LogReader
from eventlog.local.wire.connection import Connection, frame
from eventlog.local.wire.messages import (
    Append,
    Appended,
    AppendStaged,
    Hello,
    Message,
    Stage,
    StandDown,
)
from eventlog.local.wire.table import Role
from eventlog.local.writer.staging import StagingArea
from eventlog.testing import batch_of
from eventlog.tools.repair import repair_log
from eventlog.tools.transfer.json_lines import envelope_of_line
from eventlog.tools.transfer.packed import RecordReader, envelope_of_record
from tests.faults.damage import Damage, check, events_in
from tests.faults.disk import Image
from tests.faults.recorder import arena, image_of, materialise
from tests.groups.world import Peer, World

GOLDEN: Final = Path(__file__).parent.parent / "golden" / "v1"
SEGMENT: Final = "00000000000000000001.seg"
INDEX: Final = "00000000000000000001.idx"
FIXED_SIZE: Final = (SEGMENT, "control", "offsets", "members")
FRAME_BYTES_MAX: Final = 64 * 1024
Target = Callable[[bytes], None]


@cache
def place() -> str:
    """Where the log of the current input is, in memory; removed at the end of the process."""
    stack = ExitStack()
    atexit.register(stack.close)
    return stack.enter_context(arena())


@cache
def kept_log() -> tuple[Image, dict[int, Any]]:
    """The golden log with everything in it, and its events."""
    image = image_of(str(GOLDEN / "groups"))
    materialise(image, place())
    return image, events_in(place())[0]


# --- pipes ---------------------------------------------------------------------------------------


def pipe(role: Role, data: bytes) -> None:
    """What comes out of a pipe is messages, and at most one protocol error."""
    connection = Connection(role, FRAME_BYTES_MAX)
    with suppress(ProtocolError):
        for message in connection.receive(data):
            assert isinstance(message, Message)
    assert connection.buffered_bytes <= len(data)


def writer_pipe(data: bytes) -> None:
    """Whatever a client sends, what was stored and answered is there, also after a restart."""
    materialise({}, place())
    world = World(place(), durability="memory", segment_bytes=64 * 1024)
    try:
        client = Client(world)
        try:
            client.talk(data)
        finally:
            client.hang_up()
        stored = client.stored()
        assert payloads_in(place()) == stored
        world.restart()
        assert payloads_in(place()) == stored
        number = world.log.append(batch_of("more"))
        assert number == 1 + sum(count for count, _ in stored)
    finally:
        world.end()


def writer_messages(data: bytes) -> None:
    """The same for MessagePack values one after the other, each in a frame."""
    reader = RecordReader()
    reader.feed(data)
    values = [*reader.records(), *reader.rest()]
    writer_pipe(b"".join(struct.pack("<I", len(value)) + value for value in values))


class Client(Peer):
    """The end of a pipe that says anything; what the server's loop does is done here."""

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.appends: dict[int, Append] = {}
        self.staging = StagingArea()
        self.ends = socket.socketpair()

    def talk(self, data: bytes) -> None:
        connection = Connection(Role.WRITER, FRAME_BYTES_MAX)
        opening = frame(Hello("eventlog", 1, os.getpid()))
        with suppress(ProtocolError):
            for number, message in enumerate(connection.receive(opening + data)):
                if isinstance(message, Stage):
                    with suppress(EventLogError):
                        self.staging.open(self.ends[0], message.request_id)
                elif isinstance(message, StandDown):
                    continue  # this writer was told to serve, and stays
                elif number:
                    self._hand_over(message)

    def _hand_over(self, message: Any) -> None:
        if isinstance(message, AppendStaged):
            message = self.staging.take(self.ends[0], message)
        if isinstance(message, Append):
            # Each answer is to one: clients number their requests, whoever does not is on its own.
            message = replace(message, request_id=len(self.appends))
            self.appends[message.request_id] = replace(message, payload=bytes(message.payload))
        self.world.actor.handle(self, message)

    def hang_up(self) -> None:
        try:
            super().hang_up()
            self.staging.forget(self.ends[0])
        finally:  # else a later test fails, in which the garbage collector finds them
            for end in self.ends:
                end.close()

    def stored(self) -> list[tuple[int, bytes]]:
        """Count and payload of each batch that was answered, in the order of their numbers."""
        batches: dict[int, tuple[int, bytes]] = {}
        for answer in self.said:
            if isinstance(answer, Appended):
                append = self.appends[answer.request_id]
                # A repeated one gets the first one's answer, and is not stored again.
                batches.setdefault(answer.base_seq_no, (append.count, bytes(append.payload)))
        return [batches[number] for number in sorted(batches)]


def payloads_in(directory: str) -> list[tuple[int, bytes]]:
    """Count and payload of each batch of a log, undecoded."""
    log = LogReader(directory)
    reader = log.batches(1)
    try:
        found = []
        while (batch := reader.next_batch()) is not None:
            start, end = batch.position + HEADER_BYTES, batch.position + batch.header.length
            with batch.segment.view[start:end] as payload:
                found.append((batch.header.count, bytes(payload)))
        return found
    finally:
        reader.close()
        log.close()


# --- files ---------------------------------------------------------------------------------------


def file(name: str, data: bytes) -> None:
    """In the place of one file of a whole log."""
    image, events = kept_log()
    check(place(), image, events, Damage(name, "fuzzed", sized(name, data)))


def sized(name: str, data: bytes) -> bytes:
    """With zeros up to the size of the file, if that is fixed: what was cut off is tested apart."""
    image, _ = kept_log()
    return data.ljust(len(image[name]), b"\0") if name in FIXED_SIZE else data


def sealed(name: str, seal: Callable[[bytearray], None], data: bytes) -> None:
    """The same with its checksums made right: any event or error of ours, from all that reads."""
    image, _ = kept_log()
    content = bytearray(sized(name, data))
    seal(content)
    materialise({**image, name: bytes(content)}, place())
    look()
    try:
        world = World(place())
    except EventLogError:
        pass
    else:
        try:
            with suppress(EventLogError):
                world.log.append(batch_of("more"))
            look()
        finally:
            world.end("close")
    with suppress(EventLogError):
        repair_log(place())
    look()


def look() -> None:
    """Read everything; the events may be anybody's."""
    for read in (events_in, read_groups, read_dead_letters):
        with suppress(EventLogError):
            read(place())


def seal_segment(content: bytearray) -> None:
    """Put the right checksums into the header and into each batch that the lengths lead to."""
    end = SEGMENT_HEADER.offset("crc")
    struct.pack_into("<I", content, end, crc32c(content[:end]))
    position, length_at = FIRST_BATCH, BATCH_HEADER.offset("length")
    while position + HEADER_BYTES <= len(content):
        (length,) = struct.unpack_from("<I", content, position + length_at)
        if not HEADER_BYTES <= length <= len(content) - position:
            return
        crc = crc32c(content[position + length_at : position + length])
        struct.pack_into("<I", content, position, crc)
        position += aligned(length)


def seal_index(content: bytearray) -> None:
    """Put the right checksum into each entry."""
    end = INDEX_ENTRY.offset("crc")
    for at in range(0, len(content) - INDEX_ENTRY.size + 1, INDEX_ENTRY.size):
        struct.pack_into("<I", content, at + end, crc32c(content[at : at + end]))


def seal_producers(content: bytearray) -> None:
    """Put the right checksum over what follows it."""
    content[:12] = PRODUCERS_MAGIC + struct.pack("<I", crc32c(content[12:]))


def seal_control(content: bytearray) -> None:
    """Put the right checksums over the options and into the page."""
    (size,) = struct.unpack_from("<I", content, CONTROL.offset("options_bytes"))
    options = content[OPTIONS_OFFSET : OPTIONS_OFFSET + size]
    struct.pack_into("<I", content, CONTROL.offset("options_crc"), crc32c(options))
    end = CONTROL.offset("crc")
    struct.pack_into("<I", content, end, crc32c(content[:end]))


def seal_journal(content: bytearray) -> None:
    """Put the right checksum into each record that the lengths lead to."""
    header = journal_header()
    content[: len(header)] = header
    position = len(header)
    while position + 8 <= len(content):
        (length,) = struct.unpack_from("<I", content, position)
        if length > len(content) - position - 8:
            return
        crc = crc32c(content[position + 8 : position + 8 + length])
        struct.pack_into("<I", content, position + 4, crc)
        position += 8 + length


# --- events --------------------------------------------------------------------------------------


def payload(data: bytes) -> None:
    """One event as it is stored."""
    with suppress(ValueError):
        unpack(data)


def body(data: bytes) -> None:
    """The events of a batch; the first byte says how many."""
    with suppress(ValueError):
        envelopes = unpack_body(data[1:], data[0] if data else 0, 1, unpack)
        for envelope in envelopes:
            assert envelope.id is not None
            assert envelope.timestamp_ns >= 0


def imported_line(data: bytes) -> None:
    """A line of JSON."""
    with suppress(InvalidEvent):
        envelope_of_line(data)


def imported_records(data: bytes) -> None:
    """Records of MessagePack."""
    reader = RecordReader()
    reader.feed(data)
    for record in [*reader.records(), *reader.rest()]:
        with suppress(InvalidEvent):
            envelope_of_record(record)


TARGETS: Final[dict[str, Target]] = {
    "pipe-to-writer": partial(pipe, Role.WRITER),
    "pipe-to-client": partial(pipe, Role.CLIENT),
    "writer-pipe": writer_pipe,
    "writer-messages": writer_messages,
    "file-segment": partial(file, SEGMENT),
    "file-index": partial(file, INDEX),
    "file-control": partial(file, "control"),
    "file-offsets": partial(file, "offsets"),
    "file-producers": partial(file, "producers"),
    "file-members": partial(file, "members"),
    "file-groups": partial(file, "groups"),
    "file-dead": partial(file, "dead"),
    "sealed-segment": partial(sealed, SEGMENT, seal_segment),
    "sealed-index": partial(sealed, INDEX, seal_index),
    "sealed-producers": partial(sealed, "producers", seal_producers),
    "sealed-control": partial(sealed, "control", seal_control),
    "sealed-groups": partial(sealed, "groups", seal_journal),
    "sealed-dead": partial(sealed, "dead", seal_journal),
    "payload": payload,
    "body": body,
    "imported-line": imported_line,
    "imported-records": imported_records,
}
