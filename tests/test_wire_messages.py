from __future__ import annotations

import contextlib
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

import msgpack
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from eventlog import errors
from eventlog.config import LEASE_RANGES_MAX
from eventlog.errors import EventLogError, ProtocolError, SequenceOutOfRange
from eventlog.local.wire.codec import pack_message, unpack_message
from eventlog.local.wire.connection import append_head, frame
from eventlog.local.wire.group_messages import Condemned, DropDead, Leased, Settle
from eventlog.local.wire.messages import (
    TYPES,
    Ack,
    Append,
    Failed,
    Message,
    error_of,
    failed,
)

numbers = st.integers(0, 2**64 - 1)
strategies: dict[type, st.SearchStrategy[Any]] = {
    int: numbers,
    str: st.text(max_size=20),
    bytes: st.binary(max_size=40),
    dict: st.dictionaries(st.text(max_size=5), numbers | st.text(max_size=5), max_size=3),
}


def values_of(hint: Any) -> st.SearchStrategy[Any]:
    """Values of a field; a tuple's are a few rows of as many numbers as the hint says."""
    if get_origin(hint) is tuple:
        (row, _) = get_args(hint)
        numbers_of_row = [strategies[one] for one in get_args(row)]
        return st.lists(st.tuples(*numbers_of_row), max_size=4).map(tuple)
    if get_origin(hint) is UnionType:
        return values_of(get_args(hint)[0])
    return strategies[get_origin(hint) or hint]


def messages_of(kind: Any) -> st.SearchStrategy[Message]:
    types = get_type_hints(kind)
    fields = [values_of(types[name]) for name in kind._fields]
    return st.tuples(*fields).map(lambda values: kind(*values))


messages = st.one_of([messages_of(kind) for kind in TYPES.values()])


@given(messages)
def test_every_message_comes_back(message: Message) -> None:
    back = unpack_message(pack_message(message))
    assert type(back) is type(message)
    assert back == message


@given(messages_of(Append))
def test_an_append_in_two_parts_is_read_as_in_one(message: Append) -> None:
    # The head always says "bin 32", which `packb` uses for large payloads only: other bytes, the
    # same message.
    head, payload = append_head(message, len(message.payload)), message.payload
    assert int.from_bytes(head[:4], "little") == len(head) - 4 + len(payload)
    assert unpack_message(head[4:] + payload) == message


@given(st.binary(max_size=100))
@example(b"")
@example(b"\xdd\xff\xff\xff\xff")
@example(b"\xdf\xff\xff\xff\xff")
@example(b"\x91" * 5000)
@example(b"\x92\x01\xc7\x0c\xff" + b"\xff" * 12)
@example(b"\x81\x90\x01")
def test_arbitrary_bytes_are_a_message_or_a_protocol_error(data: bytes) -> None:
    with contextlib.suppress(ProtocolError):
        unpack_message(data)


@given(messages, st.data())
def test_a_flipped_message_is_a_message_or_a_protocol_error(
    message: Message, data: st.DataObject
) -> None:
    packed = bytearray(pack_message(message))
    packed[data.draw(st.integers(0, len(packed) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        back = unpack_message(bytes(packed))
    except ProtocolError:
        return
    assert type(back) in TYPES.values()


@pytest.mark.parametrize(
    "fields",
    [
        None,
        [],
        {"a": 1},
        ["1"],
        [0],
        [99, 1],
        [3],
        [3, 1, "c"],
        [3, 1, "c", 1, 1],
        [3, "1", "c", 1],
        [3, 1, b"c", 1],
        [3, True, "c", 1],
        [3, -1, "c", 1],
        [70, 1, "LogFull", "m", [1]],
        [11, 1, 2, 3],
        [11, 1, 2, [3]],
        [11, 1, 2, [[3]]],
        [11, 1, 2, [[3, 4, 5]]],
        [11, 1, 2, [["3", "4"]]],
        [11, 1, 2, [[True, 4]]],
        [11, 1, 2, [[-1, 4]]],
        [11, 1, 2, {3: 4}],
        [72, 1, 2, [[3, 4]], [[3]]],
        [74, 1, [[3, 4]]],
    ],
    ids=repr,
)
def test_what_is_no_message_is_a_protocol_error(fields: Any) -> None:
    with pytest.raises(ProtocolError):
        unpack_message(msgpack.packb(fields))


@pytest.mark.parametrize("kind", [Settle, DropDead, Leased, Condemned])
def test_a_message_has_as_many_rows_as_a_lease_may_have(kind: Any) -> None:
    row = (7, 8, 9) if kind is Condemned else (7, 8)
    types = get_type_hints(kind)
    for count, fits in ((LEASE_RANGES_MAX, True), (LEASE_RANGES_MAX + 1, False)):
        plain: dict[Any, Any] = {int: 1, str: "g"}
        message = kind(*(plain.get(types[name], (row,) * count) for name in kind._fields))
        if fits:
            assert unpack_message(pack_message(message)) == message
        else:
            with pytest.raises(ProtocolError, match=str(count)):
                unpack_message(pack_message(message))


@pytest.mark.parametrize("name", errors.__all__)
def test_every_error_reaches_the_other_process_as_what_it_is(name: str) -> None:
    kind = getattr(errors, name)
    error = kind("why", path="/p", consumer="c", seq_no=3, first_available=2, last_seq_no=9)
    message = unpack_message(pack_message(failed(7, error)))
    assert isinstance(message, Failed)
    back = error_of(message)
    assert type(back) is kind
    assert str(back) == "why"
    assert back.fields == error.fields
    assert message.request_id == 7


@given(messages_of(Failed))
def test_any_failure_is_an_error_of_ours(message: Failed) -> None:
    assert isinstance(error_of(message), EventLogError)


@pytest.mark.parametrize("name", ["annotations", "Any", "__name__", "Exception", "NoSuchError"])
def test_a_failure_of_an_unknown_name_is_the_base_error(name: str) -> None:
    assert type(error_of(Failed(1, name, "why", {"nonsense": 1}))) is EventLogError


def test_the_path_of_an_error_need_not_be_utf_8() -> None:
    # A directory whose name is no UTF-8 made every error of its writer a UnicodeEncodeError there.
    path = b"/logs/caf\xe9".decode("utf-8", "surrogateescape")
    error = SequenceOutOfRange(f"no such event in {path}", path=path)
    message = unpack_message(frame(failed(1, error))[4:])
    assert isinstance(message, Failed)
    assert error_of(message).path == path


def test_a_consumer_name_keeps_its_characters() -> None:
    message = Ack(1, "пример 例 🎈", 3)
    assert unpack_message(pack_message(message)) == message
