"""Arrays as events: kept with dtype and sizes, with and without numpy, also as fields."""

from __future__ import annotations

import subprocess
import sys
from array import array
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgpack
import msgspec
import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from eventlog import EventEnvelope, EventTypeMismatch, InvalidEvent, SeekPosition, blocking
from eventlog.event.arrays import (
    ARRAY_EXTENSION,
    array_data,
    array_view,
    as_array,
    check,
    fields_of,
    packed_array,
)
from eventlog.event.batch_builder import BatchBuilder
from eventlog.event.large_payloads import LARGE_BYTES
from eventlog.event.many_events import pack_batches
from eventlog.event.record_batch import PackedBatch, areas_bytes, decoder_for, unpack_body
from eventlog.tools.transfer.json_lines import from_plain, to_plain
from eventlog.tools.transfer.packed import envelope_of_record, new_record_packer
from workers.blocking import Pool

LIMIT = 1 << 24
DTYPES = [
    "|b1",
    "|i1",
    "|u1",
    "<i2",
    ">i2",
    "<u4",
    "<i8",
    ">u8",
    "<f2",
    "<f4",
    ">f8",
    "<c8",
    "<c16",
]
sizes = st.lists(st.integers(0, 4), min_size=1, max_size=4)


class Frame(msgspec.Struct):
    number: int
    pixels: numpy.ndarray[Any, Any]


@dataclass
class Plain:
    number: int
    pixels: Any


def read_back(batch: PackedBatch, kind: Any = None) -> list[Any]:
    body = memoryview(batch.payload)[areas_bytes(batch.count, batch.flags, batch.acks_bytes) :]
    return [one.event for one in unpack_body(body, batch.count, 1, decoder_for(kind))]


def through_a_batch(event: Any, kind: Any = None) -> Any:
    builder = BatchBuilder(LIMIT)
    builder.add(event)
    (back,) = read_back(builder.build(), kind)
    return back


@given(st.sampled_from(DTYPES), sizes, st.data())
def test_an_array_comes_back_with_its_dtype_and_sizes(
    dtype: str, shape: list[int], data: st.DataObject
) -> None:
    count = int(numpy.prod(shape)) * numpy.dtype(dtype).itemsize
    raw = data.draw(st.binary(min_size=count, max_size=count))
    values = numpy.frombuffer(raw, dtype).reshape(shape)
    read = through_a_batch(values, numpy.ndarray)
    assert (read.dtype, read.shape, read.tobytes()) == (values.dtype, values.shape, raw)
    assert not read.flags.writeable
    untyped = through_a_batch(values)
    assert type(untyped) is memoryview
    assert untyped.tobytes() == raw
    again = through_a_batch(untyped)
    imported = through_a_batch({"field": from_plain(to_plain(untyped))})["field"]
    assert fields_of(again) == fields_of(untyped) == fields_of(imported)


@pytest.mark.parametrize("code", "bBhHiIlLqQfd")
def test_an_array_of_the_standard_library_comes_back_as_a_view(code: str) -> None:
    view = through_a_batch(array(code, [1, 2, 3]))
    assert view.tolist() == [1, 2, 3]
    assert view.readonly


def test_values_that_lie_apart_are_stored_in_order() -> None:
    values = numpy.arange(24).reshape(4, 6)[::2, ::3].T
    assert through_a_batch(values, numpy.ndarray).tolist() == values.tolist()


def test_an_array_that_changes_after_the_call_is_stored_as_it_was_in_it() -> None:
    for count in (4, LARGE_BYTES):
        builder = BatchBuilder(LIMIT)
        values = numpy.zeros(count)
        builder.add(values)
        values[:] = 1
        (back,) = read_back(builder.build(), numpy.ndarray)
        assert not back.any()


def test_large_and_small_arrays_stand_among_other_events() -> None:
    events = [numpy.arange(3), {"a": 1}, numpy.ones(LARGE_BYTES), b"b" * LARGE_BYTES, 7]
    builder = BatchBuilder(LIMIT)
    for event in events:
        builder.add(event, "key", {"n": "1"})
    builder.add(numpy.ones(LARGE_BYTES))
    builder.truncate(5)
    first, second, third, fourth, fifth = read_back(builder.build())
    assert (first.tolist(), second, third.nbytes) == ([0, 1, 2], {"a": 1}, 8 * LARGE_BYTES)
    assert (len(fourth), fifth) == (LARGE_BYTES, 7)


def test_a_list_of_arrays_and_views_is_packed_as_each_of_them_would_be() -> None:
    views = [memoryview(array("d", [float(n)])) for n in range(3)]
    for events in (views, [numpy.full(2, n) for n in range(3)]):
        (batch,) = pack_batches(events, LIMIT, LIMIT)
        one_by_one = [through_a_batch(event) for event in events]
        read = read_back(batch)
        assert list(map(fields_of, read)) == list(map(fields_of, one_by_one))


def test_an_envelope_carries_an_array_as_append_does() -> None:
    # A view in an envelope, as an import makes it, was stored as bytes.
    for event in (memoryview(array("d", [1.5])), through_a_batch(array("B", b"xyz"))):
        read = through_a_batch(EventEnvelope(event))
        assert fields_of(read) == fields_of(event)


def test_arrays_are_fields_of_dicts_structs_and_dataclasses() -> None:
    pixels = numpy.arange(6, dtype="<u2").reshape(2, 3)
    for event in ({"number": 7, "pixels": pixels}, Frame(7, pixels), Plain(7, pixels)):
        read = through_a_batch(event)
        assert (read["number"], read["pixels"].tolist()) == (7, pixels.tolist())
        frame = through_a_batch(event, Frame)
        assert (frame.number, frame.pixels.tolist()) == (7, pixels.tolist())
    nested = through_a_batch({"several": [{"pixels": pixels}]}, dict[str, list[dict[str, Any]]])
    assert nested["several"][0]["pixels"].tolist() == pixels.tolist()


def test_a_typed_reader_gets_views_and_any_other_one_copies() -> None:
    builder = BatchBuilder(LIMIT)
    builder.add(numpy.arange(4))
    stored = bytearray(builder.build().payload)
    payload = memoryview(stored)
    (lent,) = [one.event for one in unpack_body(payload, 1, 1, decoder_for(numpy.ndarray))]
    (generic,) = [one.event for one in unpack_body(payload, 1, 1, decoder_for(NDArray[Any]))]
    (copied,) = [one.event for one in unpack_body(payload, 1, 1)]
    stored[-1] ^= 1  # the last byte of the last value
    assert lent[3] != 3
    assert generic[3] != 3
    assert copied.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(
    "event",
    [
        numpy.array(["a"], dtype=object),
        numpy.array(["2026-01-01"], dtype="M8[s]"),
        numpy.zeros(2, dtype=[("a", "<i4")]),
        numpy.array(["text"]),
        numpy.ones(1, numpy.longdouble),
        numpy.array(5),
        numpy.float32(2),
    ],
)
@pytest.mark.parametrize("is_field", [False, True])
def test_what_is_no_array_of_numbers_is_refused(event: Any, is_field: bool) -> None:
    builder = BatchBuilder(LIMIT)
    with pytest.raises(InvalidEvent, match="numpy"):
        builder.add({"field": event} if is_field else event)
    assert len(builder) == 0


def test_another_event_is_no_array_for_a_typed_reader(tmp_path: Path) -> None:
    with blocking.open(tmp_path / "log") as log:
        log.append_many([numpy.arange(2), {"a": 1}])
        with (
            log.follow(SeekPosition.BEGINNING, type=numpy.ndarray) as stream,
            pytest.raises(EventTypeMismatch, match="event 2"),
        ):
            next(stream)
        with log.follow(SeekPosition.BEGINNING) as stream:
            assert next(stream).event.tolist() == [0, 1]


def mean(frame: numpy.ndarray[Any, Any]) -> Any:
    return frame.mean(axis=0)


def test_a_handler_is_given_arrays_and_returns_them(tmp_path: Path) -> None:
    with (
        blocking.open(tmp_path / "frames") as log,
        blocking.open(tmp_path / "means") as output,
    ):
        log.append_many([numpy.full((2, 3), float(n)) for n in range(8)])
        options: dict[str, Any] = {"processes": 1, "output": output, "type": numpy.ndarray}
        with Pool(log, group="mean", handler=mean, **options) as pool:
            pool.drained()
            assert not list(pool.dead_letters())
        read = sorted(one.event.tolist() for one in output.read(1))
    assert read == [[float(n)] * 3 for n in range(8)]


def lies_in_a_segment(event: Any) -> Any:
    """Whether the array's memory is a mapped segment; whether it may be changed; and its sum."""
    frame = numpy.asarray(event["frame"] if isinstance(event, dict) else event)
    with open("/proc/self/maps") as maps:
        for line in maps:
            first, last = (int(part, 16) for part in line.split()[0].split("-"))
            if first <= frame.ctypes.data < last:
                return line.rstrip().endswith(".seg"), frame.flags.writeable, int(frame.sum())
    return None


@pytest.mark.parametrize("kind", [None, numpy.ndarray, dict[str, numpy.ndarray[Any, Any]]])
def test_a_handler_is_given_large_arrays_where_they_lie_also_in_a_dict(
    kind: Any, tmp_path: Path
) -> None:
    with (
        blocking.open(tmp_path / "frames", durability="memory") as log,
        blocking.open(tmp_path / "found", durability="memory") as output,
    ):
        for size in (100_000, 10):
            frame = numpy.ones((2, size), numpy.uint8)
            log.append(frame if kind is numpy.ndarray else {"frame": frame})
        options: dict[str, Any] = {"output": output, "type": kind, "processes": 0}
        with Pool(log, group="look", handler=lies_in_a_segment, **options) as pool:
            pool.drained()
            assert not list(pool.dead_letters())
        assert [one.event for one in output.read(1)] == [[True, False, 200_000], [False, False, 20]]


@given(st.binary(max_size=40))
def test_any_bytes_are_an_array_or_a_value_error(data: bytes) -> None:
    try:
        check(data)
    except ValueError:
        with pytest.raises(ValueError, match="array"):
            array_view(memoryview(data))
        assert msgpack.ExtType(ARRAY_EXTENSION, data) == read_extension(data)
    else:
        assert array_data(*fields_of(array_view(memoryview(data)))) == data


def read_extension(data: bytes) -> Any:
    body = msgpack.packb(
        [bytes(16), bytes(8), None, None, [msgpack.ExtType(ARRAY_EXTENSION, data)]]
    )
    (envelope,) = unpack_body(body, 1, 1)
    return envelope.event


def test_what_has_no_buffer_is_none() -> None:
    assert packed_array({"a": 1}) is None
    with pytest.raises(TypeError, match="no type"):
        as_array(Plain, memoryview(b"a"))


def test_arrays_survive_a_packed_record() -> None:
    event = {"frames": [array("h", [1, 2]), {"raw": array("B", b"xyz")}], "bytes": b"abc"}
    builder = BatchBuilder(LIMIT)
    builder.add(event)
    batch = builder.build()
    body = batch.payload[areas_bytes(batch.count, batch.flags, batch.acks_bytes) :]
    (envelope,) = unpack_body(body, 1, 1)
    again = envelope_of_record(new_record_packer()(envelope))
    read = through_a_batch(again)
    assert read["bytes"] == b"abc"
    assert read["frames"][0].tolist() == [1, 2]
    assert fields_of(read["frames"][1]["raw"]) == ("|u1", [3], b"xyz")


@pytest.mark.real_starts
def test_numpy_is_not_imported_and_not_needed(tmp_path: Path) -> None:
    """What `memoryview` cannot describe comes back as an extension, and is stored as it was."""
    with blocking.open(tmp_path / "log") as log:
        log.append_many([numpy.arange(6).reshape(2, 3), numpy.ones(2, complex), numpy.ones((0, 2))])
    program = (
        "import sys; from eventlog import blocking\n"
        f"with blocking.open({str(tmp_path / 'log')!r}) as log:\n"
        "    array, numbers, empty = [one.event for one in log.read(1)]\n"
        "    assert array.format in 'lq' and array.shape == (2, 3)\n"
        "    log.append_many([array, numbers, empty])\n"
        "assert 'numpy' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
    with blocking.open(tmp_path / "log") as log:
        events = [one.event for one in log.read(1)]
    assert [fields_of(one) for one in events[:3]] == [fields_of(one) for one in events[3:]]
