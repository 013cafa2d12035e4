from __future__ import annotations

from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Final, get_args, get_origin, get_type_hints

import msgpack
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from msgspec import Raw
from msgspec.structs import replace

from eventlog import errors
from eventlog.config import LEASE_RANGES_MAX
from eventlog.errors import EventLogError, ProtocolError, SequenceOutOfRange
from eventlog.local.wire import table
from eventlog.local.wire.connection import append_head, frame
from eventlog.local.wire.group_messages import Condemned, DropDead, Leased, Settle
from eventlog.local.wire.messages import (
    Ack,
    Append,
    Failed,
    FromClient,
    FromWriter,
    Message,
    Request,
    error_of,
    failed,
)
from eventlog.local.wire.table import MAY_SAY, MESSAGES, Role, State
from tests.messages import EXAMPLES, heard, heard_bytes, speaker_of

GOLDEN: Final = Path(__file__).parents[1] / "golden" / "wire.txt"
numbers = st.integers(0, 2**64 - 1)
words = st.text(max_size=20)
fields = st.dictionaries(st.text(max_size=5), numbers | st.text(max_size=5), max_size=3)
strategies: dict[type, st.SearchStrategy[Any]] = {
    int: numbers,
    bool: st.booleans(),
    str: words,
    bytes: st.binary(max_size=40),
    memoryview: st.binary(max_size=40),
    dict: fields,
    Raw: (words | fields).map(msgpack.packb).map(Raw),
}


def values_of(hint: Any) -> st.SearchStrategy[Any]:
    """Values of a field; a tuple's are a few rows of as many numbers as the hint says."""
    if get_origin(hint) is Annotated:
        return values_of(get_args(hint)[0])
    if get_origin(hint) is UnionType:
        return st.none() | values_of(get_args(hint)[0])
    if get_origin(hint) is dict and get_args(hint)[1] is not Any:
        return st.dictionaries(words, values_of(get_args(hint)[1]), max_size=3)
    if get_origin(hint) is tuple:
        numbers_of_row = [numbers for _ in get_args(get_args(hint)[0])]
        return st.lists(st.tuples(*numbers_of_row), max_size=4).map(tuple)
    return strategies[get_origin(hint) or hint]


def messages_of(kind: type[Message]) -> st.SearchStrategy[Any]:
    if {"magic", "version"} & {*kind.__struct_fields__}:
        return st.just(EXAMPLES[kind])
    hints = get_type_hints(kind, include_extras=True)
    values = [values_of(hints[name]) for name in kind.__struct_fields__]
    return st.tuples(*values).map(lambda values: kind(*values))


messages = st.one_of([messages_of(kind) for kind in MESSAGES.values()])


def framed(packed: bytes | bytearray) -> bytes:
    return len(packed).to_bytes(4, "little") + packed


@given(messages)
def test_every_message_comes_back(message: Message) -> None:
    back = heard(message)
    assert type(back) is type(message)
    assert back == message


def test_each_message_has_the_bytes_that_it_had_in_the_first_release() -> None:
    # Written by the hand-made codec of that time. A new message is a new line; a line that would
    # have to change is a new version of the protocol.
    lines = [line.split() for line in GOLDEN.read_text().splitlines()]
    golden = {name: bytes.fromhex(data) for name, data in lines}
    assert golden == {kind.__name__: frame(message) for kind, message in EXAMPLES.items()}


def test_the_table_shows_every_message() -> None:
    rows = [("number", "from a client", "answered by", "and")]
    for number, kind in MESSAGES.items():
        if issubclass(kind, FromClient):
            ways = {"waits": False, "once": False, "may be unknown": False}
            if issubclass(kind, Request):
                ways |= {"waits": kind.waits, "once": not kind.is_repeatable}
                ways |= {"may be unknown": kind.may_be_unknown}
            said = ", ".join(way for way, is_so in ways.items() if is_so)
            rows.append((str(number), kind.__name__, kind.answer.__name__, said))
    from_writer = [(str(n), k.__name__) for n, k in MESSAGES.items() if issubclass(k, FromWriter)]
    shown = (
        "\n".join(f"{a:6}  {b:14}  {c:16}  {d:14}".rstrip() for a, b, c, d in rows)
        + "\n\n"
        + "\n".join(
            f"{a:6}  {b:16}".rstrip() for a, b in [("number", "from the writer"), *from_writer]
        )
    )
    found = [line for line in (table.__doc__ or "").splitlines() if not line.startswith("=")]
    assert shown in "\n".join(found), f"the table is:\n{shown}"


def test_what_is_declared_fits_together() -> None:
    for number, kind in MESSAGES.items():
        role = Role.CLIENT if issubclass(kind, FromClient) else Role.WRITER
        assert (number < 64) == (role is Role.CLIENT), kind
        said_in = [state for state in State if kind in MAY_SAY.get((role, state), ())]
        assert said_in, f"nobody may ever say {kind}"
        assert not any(kind in kinds for (who, _), kinds in MAY_SAY.items() if who is not role)


@given(messages_of(Append))
def test_an_append_in_two_parts_is_read_as_in_one(message: Append) -> None:
    # The head always says "bin 32", which msgspec uses for large payloads only: other bytes, the
    # same message.
    payload = message.payload
    head = append_head(replace(message, payload=b""), len(payload))
    assert int.from_bytes(head[:4], "little") == len(head) - 4 + len(payload)
    assert heard_bytes(head + payload, Role.CLIENT) == message


@given(st.binary(max_size=100), st.sampled_from(Role), st.booleans())
@example(b"", Role.CLIENT, True)
@example(b"\xdd\xff\xff\xff\xff", Role.CLIENT, True)
@example(b"\xdf\xff\xff\xff\xff", Role.CLIENT, True)
@example(b"\x91" * 5000, Role.CLIENT, True)
@example(b"\x94\x46\x01\xa0" + b"\x91" * 5000, Role.WRITER, True)
@example(b"\x93\x4e\x01\x81\xa0" + b"\x91" * 5000, Role.WRITER, True)
@example(b"\x92\x01\xc7\x0c\xff" + b"\xff" * 12, Role.CLIENT, True)
@example(b"\x93\x4e\x01\x81\xa0\xc7\x0c\xff" + b"\xff" * 12, Role.WRITER, True)
@example(b"\x81\x90\x01", Role.CLIENT, True)
def test_arbitrary_bytes_are_a_message_or_a_protocol_error(
    data: bytes, speaker: Role, is_open: bool
) -> None:
    try:
        back = heard_bytes(framed(data), speaker, is_open=is_open)
    except ProtocolError:
        return
    if isinstance(back, Failed):
        assert isinstance(error_of(back), EventLogError)


@given(messages, st.data())
def test_a_flipped_message_is_a_message_or_a_protocol_error(
    message: Message, data: st.DataObject
) -> None:
    packed = bytearray(frame(message)[4:])
    packed[data.draw(st.integers(0, len(packed) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        back = heard_bytes(framed(packed), speaker_of(message))
    except ProtocolError:
        return
    assert type(back) in MESSAGES.values()
    if isinstance(back, Failed):
        assert isinstance(error_of(back), EventLogError)


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
        [78, 1, [1]],
        [78, 1, {1: 1}],
        [70, 1, b"LogFull", "m", {}],
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
    for speaker in Role:
        with pytest.raises(ProtocolError):
            heard_bytes(framed(msgpack.packb(fields)), speaker)


@pytest.mark.parametrize("kind", [Settle, DropDead, Leased, Condemned])
def test_a_message_has_as_many_rows_as_a_lease_may_have(kind: Any) -> None:
    row = (7, 8, 9) if kind is Condemned else (7, 8)
    usual = [getattr(EXAMPLES[kind], name) for name in kind.__struct_fields__]
    for count, fits in ((LEASE_RANGES_MAX, True), (LEASE_RANGES_MAX + 1, False)):
        rows = (row,) * count
        message = kind(*(rows if isinstance(one, tuple) else one for one in usual))
        if fits:
            assert heard(message) == message
        else:
            with pytest.raises(ProtocolError, match=str(LEASE_RANGES_MAX)):
                heard(message)


@pytest.mark.parametrize("name", errors.__all__)
def test_every_error_reaches_the_other_process_as_what_it_is(name: str) -> None:
    kind = getattr(errors, name)
    error = kind("why", path="/p", consumer="c", seq_no=3, first_available=2, last_seq_no=9)
    message = heard(failed(7, error))
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
    assert type(error_of(replace(failed(1, EventLogError("why")), error=name))) is EventLogError


def test_the_path_of_an_error_need_not_be_utf_8() -> None:
    # A directory whose name is no UTF-8 made every error of its writer a UnicodeEncodeError there.
    path = b"/logs/caf\xe9".decode("utf-8", "surrogateescape")
    error = SequenceOutOfRange(f"no such event in {path}", path=path)
    message = heard(failed(1, error))
    assert isinstance(message, Failed)
    assert error_of(message).path == path


def test_a_consumer_name_keeps_its_characters() -> None:
    message = Ack(1, "пример 例 🎈", 3)
    assert heard(message) == message
