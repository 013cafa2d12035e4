"""Events with due times: as values, in batches, in files, and on their way to other logs."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventlog import EventEnvelope, InvalidArgument, SeekPosition, blocking
from eventlog.errors import InvalidEvent
from eventlog.event.batch_builder import EVENT_OVERHEAD_BYTES, BatchBuilder
from eventlog.event.due import DUE_BYTES, Due
from eventlog.event.filters import EventFilter, unpack_matching
from eventlog.event.record_batch import (
    FLAG_DUE,
    FLAG_KEYED,
    PackedBatch,
    areas_bytes,
    due_area,
    note_due,
    unpack_body,
)
from eventlog.event.stored_batch import StoredBatch, identity
from eventlog.local.groups.letter_content import envelope_of_letter, fitting_letter
from eventlog.local.storage.control import ControlPage
from eventlog.testing import open_storage
from eventlog.tools.repair import repair_log
from eventlog.tools.transfer.json_lines import envelope_of_line, line_of
from eventlog.tools.transfer.packed import envelope_of_record, new_record_packer
from tests.commands import out

LIMIT = 1 << 20
DUE = datetime(2030, 1, 1, tzinfo=UTC)
END = datetime(2030, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
moments = st.integers(1, 7_000_000_000_000_000).map(
    lambda microseconds: datetime.fromtimestamp(0, UTC) + timedelta(microseconds=microseconds)
)
Times = tuple[datetime | None, datetime | None]


def make_sense(times: Times) -> bool:
    return times[0] is None or times[1] is None or times[0] < times[1]


spans: st.SearchStrategy[Times] = st.tuples(st.none() | moments, st.none() | moments).filter(
    make_sense
)


def unpacked(batch: PackedBatch, base_seq_no: int = 1) -> list[EventEnvelope]:
    """The events of a batch, as any reader has them."""
    body = memoryview(batch.payload)[areas_bytes(batch.count, batch.flags, batch.acks_bytes) :]
    envelopes = unpack_body(body, batch.count, base_seq_no)
    note_due(envelopes, due_area(batch.flags, batch.count, batch.payload))
    return envelopes


def batch_with(*events: object, keys: bool = False) -> PackedBatch:
    builder = BatchBuilder(LIMIT)
    for number, event in enumerate(events):
        builder.add(event, f"key {number}" if keys else None)
    return builder.build()


@given(st.lists(spans, min_size=1, max_size=20), st.booleans())
def test_events_of_a_batch_have_their_own_times_or_none(times: list[Times], keys: bool) -> None:
    envelopes = [EventEnvelope(n, not_before=a, expires=b) for n, (a, b) in enumerate(times)]
    batch = batch_with(*envelopes, keys=keys)
    has_times = any(pair != (None, None) for pair in times)
    assert batch.flags == (FLAG_DUE if has_times else 0) | (FLAG_KEYED if keys else 0)
    back = unpacked(batch)
    assert [(one.not_before, one.expires) for one in back] == times
    assert [one.event for one in back] == list(range(len(times)))


def test_a_time_of_1970_is_a_time() -> None:
    # It was stored as 0, which is none: an event that had expired for ever lived for ever.
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    [envelope] = unpacked(batch_with(EventEnvelope(1, expires=epoch)))
    assert (envelope.not_before, envelope.expires) == (None, epoch)
    [envelope] = unpacked(batch_with(EventEnvelope(1, not_before=epoch, expires=DUE)))
    assert (envelope.not_before, envelope.expires) == (epoch, DUE)


def test_events_without_times_make_the_batch_that_they_always_made() -> None:
    builder = BatchBuilder(LIMIT)
    builder.add(EventEnvelope(1, not_before=DUE))
    with_times = builder.bytes
    builder.build()
    builder.add(EventEnvelope(1))
    assert builder.bytes == with_times - DUE_BYTES
    batch = builder.build()
    assert batch.flags == 0
    [envelope] = unpacked(batch)
    assert envelope.columns.due is None
    assert (envelope.not_before, envelope.expires) == (None, None)


def test_a_batch_counts_the_times_of_all_its_events() -> None:
    """So that no batch outgrows its segment, whichever event brings the first time."""
    builder = BatchBuilder(LIMIT)
    for n in range(10):
        builder.add(n)
    plain = builder.bytes
    builder.add(EventEnvelope(10, expires=DUE))
    builder.add(11)
    assert builder.add_all([12, 13], LIMIT) == []
    least = plain + 4 * (EVENT_OVERHEAD_BYTES + 1) + 14 * DUE_BYTES
    assert least <= builder.bytes <= least + 1, "a list is counted with its length"
    size = builder.bytes
    assert len(builder.build().payload) <= size


def test_a_batch_that_is_cut_forgets_the_times_of_what_was_cut() -> None:
    builder = BatchBuilder(LIMIT)
    builder.add(1)
    builder.add(EventEnvelope(2, not_before=DUE))
    builder.truncate(1)
    assert builder.build().flags == 0


def test_an_envelope_with_times_is_a_value() -> None:
    envelope = EventEnvelope("e", not_before=DUE, expires=END)
    assert pickle.loads(pickle.dumps(envelope)) == envelope
    assert envelope != EventEnvelope("e", not_before=DUE, id=envelope.id)
    moved = envelope.__replace__(expires=END + timedelta(days=1))
    assert (moved.not_before, moved.expires) == (DUE, END + timedelta(days=1))
    assert envelope.__replace__(event="f").not_before == DUE
    assert copy.copy(envelope) == envelope
    assert f"not_before={DUE!r}, expires={END!r}" in repr(envelope)
    assert "not_before" not in repr(EventEnvelope("e"))
    with pytest.raises(InvalidArgument, match=r"expires=2030-01-01.* is not after not_before="):
        EventEnvelope("e", not_before=END, expires=DUE)


def test_a_filter_gives_each_event_its_own_times() -> None:
    batch = batch_with(
        EventEnvelope(0), EventEnvelope(1, not_before=DUE), EventEnvelope(2, expires=END), keys=True
    )
    body = batch.payload[areas_bytes(batch.count, batch.flags, 0) :]
    found = unpack_matching(body, batch.count, 1, EventFilter(keys=["key 2"]))
    note_due(found, due_area(batch.flags, batch.count, batch.payload))
    assert [(one.event, one.not_before, one.expires) for one in found] == [(2, None, END)]


def test_a_dead_letter_has_the_times_of_its_event() -> None:
    envelope = EventEnvelope({"a": 1}, seq_no=7, not_before=DUE, expires=END)
    back = envelope_of_letter(fitting_letter(4096, envelope, error="x"), 7)
    assert back is not None
    assert (back.not_before, back.expires) == (DUE, END)


@pytest.fixture
def log(tmp_path: Path) -> Iterator[blocking.EventLog]:
    with blocking.open(tmp_path / "log") as opened:
        opened.append("plain")
        opened.append_many([EventEnvelope("timed", not_before=DUE, expires=END), "beside"])
        opened.append("due", key="k", not_before=DUE)
        yield opened


def test_an_export_has_the_times_and_an_import_takes_them(log: blocking.EventLog) -> None:
    pack = new_record_packer()
    for envelope in log.read(1):
        for back in (envelope_of_line(line_of(envelope)), envelope_of_record(pack(envelope))):
            assert (back.not_before, back.expires) == (envelope.not_before, envelope.expires)
    assert '"not_before": "2030-01-01T00:00:00Z", "expires": "2030-01-02T03:04:05.678901000Z"' in (
        line_of(next(iter(log.read(2))))
    )
    for wrong in ('"not_before": 5', '"expires": "2030"', '"expires": "1970-01-01T00:00:00Z"'):
        with pytest.raises(InvalidEvent):
            envelope_of_line(f'{{"event": 1, {wrong}}}')


def test_commands_carry_the_times_to_other_logs(log: blocking.EventLog, tmp_path: Path) -> None:
    path = log.path
    lines = out("export", path)
    for form in ("jsonl", "msgpack"):
        place = str(tmp_path / form)
        out("export", path, str(tmp_path / f"file.{form}"), "--format", form)
        out("import", place, str(tmp_path / f"file.{form}"))
        assert out("export", place) == lines
    out("mirror", path, str(tmp_path / "twin"))
    out("compare", path, str(tmp_path / "twin"))
    assert out("export", str(tmp_path / "twin")) == lines
    out("backup", path, str(tmp_path / "copy"))
    assert out("export", str(tmp_path / "copy")) == lines
    control = ControlPage(str(tmp_path / "copy"))
    assert (control.due_from, control.due_to) == (2, 4)
    control.close()


def test_a_batch_on_its_way_to_another_log_is_copied_with_its_times(log: blocking.EventLog) -> None:
    with log.follow(SeekPosition.BEGINNING, type=msgspec.Raw) as stream:
        raw = next(events for events in stream.batches() if len(events) == 2)
    batch = StoredBatch(raw).packed()
    assert batch is not None
    assert [one.due for one in unpacked(batch)] == [one.due for one in raw]
    assert [identity(one)[-1] for one in StoredBatch(raw)] == [one.due for one in raw]


def test_a_command_appends_with_times_and_shows_them(tmp_path: Path) -> None:
    path = str(tmp_path / "log")
    out("append", path, "1", "--not-before", "15m", "--expires", "2h")
    out("append", path, "2", "--not-before", "2030-01-01T00:00:00+00:00")
    with blocking.open(path) as opened:
        first, second = opened.read(1)
    stored = first.stored_at
    assert stored is not None
    assert first.not_before is not None
    assert first.expires is not None
    assert abs(first.not_before - stored - timedelta(minutes=15)) < timedelta(minutes=1)
    assert abs(first.expires - stored - timedelta(hours=2)) < timedelta(minutes=1)
    assert second.not_before == DUE
    assert '"not_before": "2030-01-01T00:00:00Z"' in out("tail", path, "-n", "1", "--json")
    assert out("tail", path, "--where", "expires != null", "--format", "{seq_no}") == "1\n"
    assert out("tail", path, "--where", 'not_before > "2029-01-01"', "--format", "{seq_no}") == (
        "2\n"
    )


# --- what a start, a loss of power or a repair make of the marks ----------------------------------


def timed(*times: int) -> PackedBatch:
    return batch_with(*(EventEnvelope(n, not_before=DUE) if n else 0 for n in times))


def test_a_writer_marks_where_events_have_times(tmp_path: Path) -> None:
    log = open_storage(str(tmp_path / "log"), segment_bytes=4096)
    log.append(timed(0))
    assert (log.control.due_from, log.control.due_to) == (0, 0)
    log.append(timed(0, 1))
    log.append(timed(0))
    log.append(timed(1))
    assert (log.control.due_from, log.control.due_to) == (2, 5)
    log.close()


def test_marks_that_a_loss_of_power_took_are_found_again(tmp_path: Path) -> None:
    directory = tmp_path / "log"
    log = open_storage(str(directory), segment_bytes=4096)
    log.append(timed(0))
    before = (directory / "control").read_bytes()
    log.append(timed(0, 1))
    log.abandon()
    (directory / "control").write_bytes(before)
    again = open_storage(str(directory))
    assert (again.control.due_from, again.control.due_to) == (2, 3)
    again.close()


def test_a_repair_that_makes_the_page_anew_takes_every_event_for_one_with_times(
    tmp_path: Path,
) -> None:
    directory = tmp_path / "log"
    log = open_storage(str(directory), segment_bytes=4096)
    log.append(timed(0, 1))
    log.close()
    (directory / "control").unlink()
    repair_log(str(directory))
    control = ControlPage(str(directory))
    assert (control.due_from, control.due_to) == (1, 2)
    control.close()


def test_due_times_are_numbers_in_their_order() -> None:
    assert EventEnvelope(1, not_before=DUE).due == Due(1_893_456_000_000_000_000, 0)
