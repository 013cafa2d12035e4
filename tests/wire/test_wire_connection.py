from __future__ import annotations

import itertools
import struct
import tracemalloc

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from eventlog.errors import LogDeleted, ProtocolError
from eventlog.local.wire.connection import HELLO_BYTES_MAX, Connection, frame
from eventlog.local.wire.messages import (
    VERSIONS,
    Ack,
    Append,
    Done,
    Hello,
    Message,
    Status,
    Welcome,
    failed,
)
from eventlog.local.wire.table import MAY_SAY, MESSAGES, Role, State
from eventlog.testing import ConnectionPair
from tests.messages import EXAMPLES, FROM_CLIENT, FROM_WRITER, HELLO, WELCOME

EVERY = list(EXAMPLES.values())


def pair_in(state: State, speaker: Role) -> ConnectionPair:
    """A pair in which what `speaker` says comes to an end in that state."""
    if state is State.OPENING:
        return ConnectionPair()
    pair = ConnectionPair.opened()
    if state is State.CLOSED:
        with pytest.raises(ProtocolError):
            pair.say_bytes(speaker, struct.pack("<I", 2**31))
    return pair


@pytest.mark.parametrize("piece_bytes", [None, 1, 2, 3, 5, 7, 64])
def test_a_whole_conversation_in_pieces(piece_bytes: int | None) -> None:
    pair = ConnectionPair(piece_bytes=piece_bytes)
    assert pair.say(Role.CLIENT, HELLO, *FROM_CLIENT) == [HELLO, *FROM_CLIENT]
    assert pair.say(Role.WRITER, WELCOME, *FROM_WRITER) == [WELCOME, *FROM_WRITER]
    assert [end.state for end in pair.ends.values()] == [State.OPEN] * 2
    assert [end.buffered_bytes for end in pair.ends.values()] == [0, 0]


@given(st.lists(st.sampled_from(FROM_CLIENT), max_size=10), st.lists(st.integers(1, 40)))
def test_frames_in_any_pieces_are_the_same_messages(said: list[Message], cuts: list[int]) -> None:
    data = b"".join(map(frame, [HELLO, *said]))
    end = Connection(Role.WRITER, 1 << 16)
    heard: list[Message] = []
    for size in itertools.chain(cuts, itertools.repeat(11)):
        heard += end.receive(data[:size])
        data = data[size:]
        if not data:
            break
    assert heard == [HELLO, *said]


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("speaker", Role)
def test_who_may_say_what(speaker: Role, state: State) -> None:
    for message in EVERY:
        pair = pair_in(state, speaker)
        hearer = pair.ends[Role.WRITER if speaker is Role.CLIENT else Role.CLIENT]
        assert hearer.state is state
        if type(message) in MAY_SAY.get((speaker, state), ()):
            assert pair.say(speaker, message) == [message]
            assert hearer.state is not State.CLOSED
        else:
            with pytest.raises(ProtocolError):
                pair.say(speaker, message)
            assert hearer.state is State.CLOSED
            assert hearer.buffered_bytes == 0


def test_a_writer_may_refuse_before_it_welcomes() -> None:
    refusal = failed(0, LogDeleted("why"))
    assert ConnectionPair().say(Role.WRITER, refusal) == [refusal]


@pytest.mark.parametrize(
    ("speaker", "message", "words"),
    [
        (Role.CLIENT, Hello("http", 1, 1), "something else"),
        (Role.CLIENT, Hello("eventlog", 3, 1), "version 3"),
        (Role.WRITER, Welcome(9, 1, 1, b""), "version 9"),
    ],
    ids=["other protocol", "newer client", "newer writer"],
)
def test_a_peer_of_another_version_is_told_so(speaker: Role, message: Message, words: str) -> None:
    with pytest.raises(ProtocolError, match=words):
        ConnectionPair().say(speaker, message)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_writer_takes_clients_of_each_of_its_versions(version: int) -> None:
    hello = Hello("eventlog", version, 1)
    assert ConnectionPair().say(Role.CLIENT, hello) == [hello]


@pytest.mark.parametrize("opened", [False, True])
@pytest.mark.parametrize("speaker", Role)
def test_a_frame_of_4_gib_is_refused_by_its_length_alone(speaker: Role, opened: bool) -> None:
    pair = ConnectionPair.opened() if opened else ConnectionPair()
    hearer = pair.ends[Role.WRITER if speaker is Role.CLIENT else Role.CLIENT]
    with pytest.raises(ProtocolError, match="4294967295"):
        pair.say_bytes(speaker, b"\xff\xff\xff\xff")
    assert hearer.buffered_bytes == 0


def test_the_limit_is_exact() -> None:
    packed = frame(Ack(1, "c" * 50, 1))
    for limit, fits in ((len(packed) - 4, True), (len(packed) - 5, False)):
        pair = ConnectionPair.opened(frame_bytes_max=limit)
        if fits:
            assert len(pair.say_bytes(Role.CLIENT, packed)) == 1
        else:
            with pytest.raises(ProtocolError):
                pair.say_bytes(Role.CLIENT, packed)


def test_a_stranger_cannot_make_the_writer_buffer_much() -> None:
    pair = ConnectionPair(frame_bytes_max=1 << 30)
    with pytest.raises(ProtocolError):
        pair.say_bytes(Role.CLIENT, struct.pack("<I", HELLO_BYTES_MAX + 1))


def test_messages_before_the_wrong_one_are_heard() -> None:
    end = ConnectionPair.opened().ends[Role.WRITER]
    messages = end.receive(frame(Status(1)) + frame(Done(1)) + frame(Status(2)))
    assert next(iter(messages)) == Status(1)
    with pytest.raises(ProtocolError):
        next(iter(messages))


@given(st.lists(st.binary(max_size=60), max_size=8), st.sampled_from(Role), st.booleans())
@example([b"\x00\x00\x00\x00"], Role.WRITER, True)
@example([b"\x05\x00\x00\x00", b"\xdd\xff\xff\xff\xff"], Role.WRITER, True)
def test_arbitrary_bytes_are_messages_or_a_protocol_error(
    pieces: list[bytes], role: Role, opened: bool
) -> None:
    end = (ConnectionPair.opened() if opened else ConnectionPair()).ends[role]
    for piece in pieces:
        try:
            for message in end.receive(piece):
                assert type(message) in MESSAGES.values()
        except ProtocolError:
            assert end.state is State.CLOSED
    assert end.buffered_bytes <= 480


@given(st.sampled_from(FROM_CLIENT), st.data())
def test_a_flipped_frame_is_a_message_or_a_protocol_error(
    message: Message, data: st.DataObject
) -> None:
    packed = bytearray(frame(message))
    packed[data.draw(st.integers(0, len(packed) - 1))] ^= data.draw(st.integers(1, 255))
    end = ConnectionPair.opened().ends[Role.WRITER]
    try:
        list(end.receive(bytes(packed)))
    except ProtocolError:
        assert end.state is State.CLOSED


def test_a_long_conversation_does_not_grow_the_buffer() -> None:
    end = ConnectionPair.opened().ends[Role.WRITER]
    data = frame(Append(1, 2, 3, 4, 0, 0, bytes(10_000)))
    cut = len(data) // 2
    tracemalloc.start()
    try:
        for _ in range(200):
            assert list(end.receive(data[:cut])) == []
            assert len(list(end.receive(data[cut:]))) == 1
        assert tracemalloc.get_traced_memory()[0] < 200_000
    finally:
        tracemalloc.stop()
