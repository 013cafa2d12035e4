"""Export and import: what is written is what was stored, to the last nanosecond."""

from __future__ import annotations

import json
import os
import struct
import subprocess
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventlog import Cause, EventEnvelope, blocking
from eventlog.demo.main_job import stop_process
from eventlog.errors import InvalidEvent
from eventlog.event.envelope import envelope_of
from eventlog.event.payload import DELETION, new_packer, unpack
from eventlog.local.storage.reading.ranges import read_range
from eventlog.local.storage.reading.reader import LogReader
from eventlog.testing import batch_of, open_storage
from eventlog.tools.transfer.json_lines import envelope_of_line, from_plain, line_of, to_plain
from eventlog.tools.transfer.packed import RecordReader, envelope_of_record, new_record_packer
from tests.commands import COMMAND, ENVIRONMENT
from tests.commands import run_bytes as run

MOMENT = datetime(2024, 2, 29, 12, 30, 15, 123456, tzinfo=UTC)
DEEP: Any = 1
for _ in range(400):
    DEEP = {"in": [DEEP]} if isinstance(DEEP, int) else [DEEP]
ODD: list[Any] = [
    None,
    True,
    -(2**63),
    2**64 - 1,
    1.5,
    -0.0,
    1e300,
    "текст 🎈\n\u2028\x00",
    b"\x00\xff",
    b"",
    [1, [2, [3]]],
    {"a": {"b": [None]}, 7: "seven", None: 0, True: 1, 2.5: b"x", b"key": 1},
    {"$bytes": "not bytes"},
    {"$map": []},
    {"$": 1, "plain": 2},
    {(1, (2, "x")): "tuple"},
    {},
    MOMENT,
    {MOMENT: UUID(int=7)},
    UUID("12345678-1234-5678-1234-567812345678"),
    float("inf"),
    float("-inf"),
    float("nan"),
    struct.unpack(">d", bytes.fromhex("fff8000000000001"))[0],
    msgpack.Timestamp(2**40, 999_999_999),
    msgpack.ExtType(5, b"ext"),
]
NS = 1_706_702_400_123_456_789


def written(value: Any) -> Any:
    """A value as the log hands it out."""
    return unpack(new_packer()(value))


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text()
    | st.binary()
    | st.uuids()
    | st.datetimes(timezones=st.just(UTC)),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.text()
            | st.sampled_from(["$bytes", "$map", "$"])
            | st.integers(-(2**63), 2**64 - 1)
            | st.booleans()
            | st.uuids()
            | st.tuples(st.integers(0, 5), st.text(max_size=2)),
            inner,
            max_size=4,
        )
    ),
    max_leaves=20,
)
causes = st.builds(
    Cause, st.uuids(), st.integers(1, 2**63 - 1), st.sampled_from(["resize", "группа/0"])
)
envelopes = st.builds(
    envelope_of,
    values.map(written),
    id_bytes=st.binary(min_size=16, max_size=16),
    timestamp_ns=st.integers(0, 2**63 - 1),
    key=st.none() | st.text(),
    headers=st.none() | st.dictionaries(st.text(), st.text(), max_size=3),
    cause=st.none() | causes,
)


def same(one: EventEnvelope, other: EventEnvelope) -> bool:
    """Equal in all fields but the number, NaN too, and True is not 1."""

    def fields(envelope: EventEnvelope) -> tuple[Any, ...]:
        packed = new_packer()(envelope.event)
        columns = envelope.timestamp_ns, envelope.key, envelope.headers, envelope.cause
        return envelope.id, *columns, packed

    return fields(one) == fields(other)


@given(envelopes)
def test_an_event_comes_back_from_its_line(envelope: EventEnvelope) -> None:
    line = line_of(envelope)
    assert "\n" not in line
    assert same(envelope_of_line(line), envelope)
    assert same(envelope_of_line(line.encode()), envelope)


@given(st.lists(envelopes, max_size=4), st.integers(1, 50))
def test_events_come_back_from_packed_bytes_in_any_pieces(
    given_: list[EventEnvelope], size: int
) -> None:
    data = b"".join(map(new_record_packer(), given_))
    reader = RecordReader()
    found: list[EventEnvelope] = []
    for start in range(0, len(data), size):
        reader.feed(data[start : start + size])
        found += map(envelope_of_record, reader.records())
    assert len(found) == len(given_)
    assert all(map(same, found, given_))
    assert reader.rest() == []


def test_a_deleted_key_is_deleted_in_the_log_that_it_is_imported_to() -> None:
    with blocking.open("memory:") as log, blocking.open("memory:") as other:
        log.delete("k")
        [envelope] = log.read(0)
        assert json.loads(line_of(envelope))["event"] == {"$ext": [3, ""]}
        other.append(envelope_of_line(line_of(envelope)))
        other.append(envelope_of_record(new_record_packer()(envelope)))
        assert [(one.key, one.event, one.is_deletion) for one in other.read(0)] == [
            ("k", None, True)
        ] * 2


@given(values)
def test_plain_values_are_what_json_knows(value: Any) -> None:
    text = json.dumps(to_plain(written(value)), allow_nan=False)
    again = from_plain(json.loads(text))
    assert new_packer()(again) == new_packer()(written(value))


def test_what_json_has_stands_as_it_is() -> None:
    event = {"order": 7, "lines": [1.5, None, True, "x"], "nested": {"ü": []}}
    envelope = envelope_of(event, id_bytes=bytes(16), timestamp_ns=NS, key=None, headers=None)
    assert json.loads(line_of(envelope)) == {
        "seq_no": None,
        "id": "00000000-0000-0000-0000-000000000000",
        "timestamp": "2024-01-31T12:00:00.123456789Z",
        "event": event,
    }


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (b"\x00\xff", {"$bytes": "AP8="}),
        (MOMENT, {"$datetime": "2024-02-29T12:30:15.123456Z"}),
        (UUID(int=1), {"$uuid": "00000000-0000-0000-0000-000000000001"}),
        (float("-inf"), {"$float": "-inf"}),
        ({1: "a", "b": 2}, {"$map": [[1, "a"], ["b", 2]]}),
        ({"$x": 1}, {"$map": [["$x", 1]]}),
        (msgpack.Timestamp(2**40, 5), {"$timestamp": [2**40, 5]}),
        (msgpack.ExtType(5, b"e"), {"$ext": [5, "ZQ=="]}),
        (DELETION, {"$ext": [3, ""]}),
    ],
)
def test_the_documented_forms_are_these(value: Any, plain: Any) -> None:
    assert to_plain(value) == plain
    assert from_plain(plain) == value


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("", "cannot be read"),
        ("{", "cannot be read"),
        ("7", "no object"),
        ("[]", "no object"),
        ("{}", "no field 'event'"),
        ('{"evnt": 1}', "no field 'event'"),
        ('{"event": 1, "keys": 2}', "unknown field 'keys'"),
        ('{"event": 1, "id": "x"}', "UUID"),
        ('{"event": 1, "id": 5}', "no text"),
        ('{"event": 1, "timestamp": "yesterday"}', "isoformat"),
        ('{"event": 1, "timestamp": "2026-01-01T00:00:00"}', "time zone"),
        ('{"event": 1, "timestamp": "1960-01-01T00:00:00Z"}', "1970"),
        ('{"event": 1, "timestamp": 5}', "no text"),
        ('{"event": 1, "key": 5}', "give a string"),
        ('{"event": 1, "headers": {"a": 1}}', "strings"),
        ('{"event": 1, "headers": 1}', "strings"),
        ('{"event": 1, "cause": 1}', "log_id, seq_no and group"),
        ('{"event": 1, "cause": {"log_id": 1, "seq_no": 1, "group": "g"}}', "no text"),
        ('{"event": 1, "cause": {"log_id": "x", "seq_no": 1, "group": "g"}}', "UUID"),
        (f'{{"event": 1, "cause": {{"log_id": "{UUID(int=1)}", "seq_no": 1}}}}', "group"),
        (
            f'{{"event": 1, "cause": {{"log_id": "{UUID(int=1)}", "seq_no": 0, "group": "g"}}}}',
            "numbers start at 1",
        ),
        ('{"event": {"$bites": ""}}', "'\\$bites' is no name for a type"),
        ('{"event": {"$bytes": "", "x": 1}}', "alone"),
        ('{"event": {"$bytes": "?"}}', "base64"),
        ('{"event": {"$bytes": 5}}', "no text"),
        ('{"event": {"$float": "1.5"}}', "nan"),
        ('{"event": {"$map": [[1]]}}', "cannot be read"),
        ('{"event": {"$map": [[{}, 1]]}}', "cannot be read"),
        ('{"event": {"$uuid": "x"}}', "UUID"),
        ('{"event": {"$datetime": "2026-01-01"}}', "time zone"),
        ('{"event": {"$ext": [1]}}', "cannot be read"),
        ('{"event": {"$ext": [1000, ""]}}', "cannot be read"),
        ('{"event": {"$timestamp": [1, "x"]}}', "cannot be read"),
        ("[" * 100_000, "cannot be read"),
    ],
)
def test_a_wrong_line_is_one_kind_of_error_that_says_why(line: str, reason: str) -> None:
    with pytest.raises(InvalidEvent, match=reason):
        envelope_of_line(line)


def is_event_or_refused(read: Callable[[Any], EventEnvelope], data: str | bytes) -> bool:
    """Whether it is read as an event, or refused with a reason; any other error goes through."""
    try:
        return isinstance(read(data), EventEnvelope)
    except InvalidEvent as refused:
        return bool(str(refused))


@given(st.text() | st.binary())
def test_any_line_is_an_event_or_that_error(line: str | bytes) -> None:
    assert is_event_or_refused(envelope_of_line, line)


@given(st.binary(max_size=60))
def test_any_bytes_are_records_or_that_error(data: bytes) -> None:
    reader = RecordReader()
    reader.feed(data)
    for record in [*reader.records(), *reader.rest()]:
        assert is_event_or_refused(envelope_of_record, record)


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (1, "no object"),
        ({"event": 1, "id": b"short"}, "5 bytes instead of 16"),
        ({"event": 1, "cause": [b"", 1, "g"]}, "log_id, seq_no and group"),
        (
            {"event": 1, "cause": {"log_id": b"short", "seq_no": 1, "group": "g"}},
            "instead of 16 bytes",
        ),
        (
            {"event": 1, "cause": {"log_id": bytes(16), "seq_no": 1, "group": ""}},
            "printable characters",
        ),
        ({"event": 1, "id": "text"}, "instead of 16 bytes"),
        ({"event": 1, "timestamp": -1}, "outside"),
        ({"event": 1, "timestamp": 1.5}, "nanoseconds"),
        ({"event": 1, "timestamp": True}, "nanoseconds"),
        ({"event": 1, 5: 2}, "unknown field 5"),
    ],
)
def test_a_wrong_record_says_why(record: Any, reason: str) -> None:
    with pytest.raises(InvalidEvent, match=reason):
        envelope_of_record(msgpack.packb(record))


# --- the commands -------------------------------------------------------------------------------


def out(*arguments: str, given: bytes = b"") -> bytes:
    done = run(*arguments, given=given)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def stop(path: Path) -> None:
    pid = json.loads(out("status", str(path), "--json"))["writer_pid"]
    if pid is not None:
        stop_process(pid)


@pytest.fixture
def target(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "target"
    yield path
    if (path / "control").exists():
        stop(path)


def stored(path: Path) -> list[EventEnvelope]:
    log = LogReader(str(path))
    try:
        return [one for batch in read_range(log, 0, None) for one in batch]
    finally:
        log.close()


def numbers_in(file: Path) -> list[int]:
    return [json.loads(line)["seq_no"] for line in file.read_text().splitlines()]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A log that no writer serves, with every kind of event, key and header."""
    path = tmp_path / "source"
    log = open_storage(str(path), segment_bytes=8192)
    log.append(batch_of(*ODD))
    log.append(batch_of(EventEnvelope(DEEP, key="deep", headers={"h": "ü"})))
    cause = Cause(UUID(int=3), 2**63 - 1, "группа/0")
    own = envelope_of(
        "own", id_bytes=b"\xff" * 16, timestamp_ns=NS, key="", headers={}, cause=cause
    )
    log.append(batch_of(own))
    for n in range(100):
        log.append(batch_of({"n": n, "pad": "." * 200}, {"n": n}))
    log.ack("consumer", 5)
    log.close()
    return path


@pytest.mark.parametrize("form", ["jsonl", "msgpack"])
def test_a_log_goes_through_a_pipe_without_any_loss(source: Path, target: Path, form: str) -> None:
    data = out("export", str(source), "--format", form)
    events = stored(source)
    assert out("import", str(target), given=data).decode() == f"1..{len(events)}\n"
    copied = stored(target)
    assert len(copied) == len(events)
    assert all(map(same, copied, events))
    assert [one.timestamp for one in copied] == [one.timestamp for one in events]
    assert [repr(one.event) for one in copied] == [repr(one.event) for one in events]
    assert out("consumers", str(target)) == b"no consumers\n"
    assert out("export", str(target), "--format", form) == data


def test_a_range_of_numbers_goes_to_a_file(source: Path, tmp_path: Path) -> None:
    file = tmp_path / "some.jsonl"
    assert out("export", str(source), str(file), "--from", "30", "--to", "32") == b""
    assert numbers_in(file) == [30, 31, 32]
    again = run("export", str(source), str(file))
    assert again.returncode == 2
    assert b"--force" in again.stderr
    out("export", str(source), str(file), "--force", "--from", "9999")
    assert file.read_bytes() == b""
    assert sorted(os.listdir(tmp_path)) == ["some.jsonl", "source"]
    assert run("export", str(source), "--from", "5", "--to", "4").returncode == 2
    assert run("export", str(source), "--from", "soon").returncode == 2
    assert run("export", str(source), str(tmp_path / "no" / "file")).returncode == 1


def test_an_export_that_fails_leaves_no_file(source: Path, tmp_path: Path) -> None:
    first = min(source.glob("*.seg"))
    content = bytearray(first.read_bytes())
    content[64 + 100] ^= 1
    first.write_bytes(content)
    file = tmp_path / "all.jsonl"
    done = run("export", str(source), str(file))
    assert done.returncode == 1
    assert f"events 1 to {len(ODD)} ".encode() in done.stderr
    assert sorted(os.listdir(tmp_path)) == ["source"]
    done = run("export", str(source), str(file), "--skip-damaged")
    assert done.returncode == 1
    assert f"left out: the events 1 to {len(ODD)} ".encode() in done.stderr
    numbers = numbers_in(file)
    assert numbers == list(range(len(ODD) + 1, len(ODD) + 203))


def test_a_closed_pipe_ends_an_export_quietly(source: Path) -> None:
    export = subprocess.Popen(
        [*COMMAND, "export", str(source), "--from", "30"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=ENVIRONMENT,
        pipesize=4096,
    )
    assert export.stdout is not None
    assert export.stderr is not None
    with export.stdout, export.stderr:
        assert b'"seq_no": 30' in export.stdout.readline()
        export.stdout.close()
        assert export.stderr.read() == b""
    assert export.wait(30) == 0


def test_a_range_that_retention_took_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "short"
    from eventlog import Retention

    log = open_storage(str(path), segment_bytes=4096, retention=Retention(max_bytes=4096))
    for n in range(30):
        log.append(batch_of(str(n) + "." * 1000))
    log.close()
    done = run("export", str(path), "--from", "1")
    assert done.returncode == 1
    assert b"deleted by retention" in done.stderr
    first = json.loads(out("export", str(path)).splitlines()[0])["seq_no"]
    assert first > 1


@pytest.mark.parametrize("line", [b"nonsense", b'{"event": {"$bytes": "?"}}', b'{"no": 1}'])
def test_a_bad_line_is_named_and_nothing_of_its_batch_is_stored(target: Path, line: bytes) -> None:
    lines = [b'{"event": %d}' % n for n in range(2500)]
    lines[2200] = line
    done = run("import", str(target), given=b"\n".join(lines))
    assert done.returncode == 1
    assert b"line 2201: it" in done.stderr
    assert b"2,000 events are stored, up to line 2000" in done.stderr
    assert [one.event for one in stored(target)] == list(range(2000))


def test_a_bad_first_line_makes_no_log(target: Path) -> None:
    done = run("import", str(target), given=b'{"event": 1}\n{"event": }\n')
    assert done.returncode == 1
    assert b"line 2: it cannot be read" in done.stderr
    assert b"nothing is stored" in done.stderr
    assert not target.exists()


def test_an_event_that_the_log_refuses_is_named(target: Path) -> None:
    with blocking.open(target, max_event_bytes=1000):
        pass
    large = json.dumps({"event": "x" * 2000})
    done = run("import", str(target), given=f'{{"event": 1}}\n\n{large}\n'.encode())
    assert done.returncode == 1
    assert b"line 3: " in done.stderr
    assert b"nothing is stored" in done.stderr
    assert stored(target) == []


@pytest.mark.parametrize("cut", [1, 5, 100])
def test_an_input_that_ends_in_the_middle_of_an_event_is_an_error(
    source: Path, target: Path, cut: int
) -> None:
    data = out("export", str(source), "--format", "msgpack", "--from", "40", "--to", "45")
    done = run("import", str(target), given=data[:-cut])
    assert done.returncode == 1
    assert b"event 6: it cannot be read" in done.stderr or b"event 5: it" in done.stderr
    assert not target.exists()


def test_lines_by_hand_get_ids_and_times(target: Path) -> None:
    given_ = b'\n{"event": {"order": 7}, "key": "7"}\n   \n{"event": null}'
    assert json.loads(out("import", str(target), "--json", given=given_)) == {
        "first": 1,
        "last": 2,
        "events": 2,
    }
    one, two = stored(target)
    assert (one.event, one.key, two.event) == ({"order": 7}, "7", None)
    assert one.id.version == two.id.version == 7
    assert one.id != two.id


def test_an_empty_input_makes_an_empty_log(target: Path, tmp_path: Path) -> None:
    assert out("import", str(target)) == b""
    assert list(stored(target)) == []
    assert run("import", str(target), str(tmp_path / "nothing")).returncode == 2


def test_what_is_imported_goes_after_what_the_log_has(source: Path, target: Path) -> None:
    out("append", str(target), "1", "2")
    file = source.parent / "events"
    out("export", str(source), str(file), "--to", "3", "--format", "msgpack")
    assert out("import", str(target), str(file)) == b"3..5\n"
    assert run("import", str(target), str(file), "--format", "jsonl").returncode == 1
    assert [one.seq_no for one in stored(target)][:5] == [1, 2, 3, 4, 5]
