"""What a writer makes of what the last one left: a table of stories, then crashes by count."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from crc32c import crc32c
from hypothesis import example, given
from hypothesis import strategies as st

from eventlog.errors import CorruptLog
from eventlog.event.record_batch import PackedBatch
from eventlog.local.storage.control import ControlPage
from eventlog.local.storage.formats.format import (
    BATCH_HEADER,
    FIRST_BATCH,
    HEADER_BYTES,
    LENGTH_OFFSET,
    aligned,
    index_name,
    pack_batch_header,
    segment_name,
    unpack_batch_header,
)
from eventlog.local.storage.formats.range_sums import RangeSums
from eventlog.local.storage.formats.recovery import Damage, find_batch_after, has_data, scan_segment
from eventlog.local.storage.log.writable import WritableLog
from eventlog.local.storage.reading.reader import LogReader
from eventlog.local.storage.segment import SegmentReader
from eventlog.local.storage.starting import restart, start
from eventlog.testing import Killed, KillingFiles, batch_of, open_storage, stored_events
from eventlog.tools.repair import repair_log

SEGMENT_BYTES = 4096
PRODUCER = 77


class Place(NamedTuple):
    """Where a batch lies."""

    segment: int
    position: int
    length: int
    first: int
    last: int


def batches_in(directory: Path) -> list[Place]:
    """Every batch of the log, by walking its segments."""
    found = []
    for path in sorted(directory.glob("*.seg")):
        data = memoryview(path.read_bytes())
        position = FIRST_BATCH
        while position + HEADER_BYTES <= len(data):
            header = unpack_batch_header(data, position)
            if header.length == 0:
                break
            base = int(path.stem)
            found.append(
                Place(base, position, header.length, header.base_seq_no, header.last_seq_no)
            )
            position = aligned(position + header.length)
    return found


def patch(directory: Path, base: int, position: int, data: bytes) -> None:
    with open(directory / segment_name(base), "r+b") as file:
        file.seek(position)
        file.write(data)


def flip(directory: Path, base: int, position: int) -> None:
    byte = (directory / segment_name(base)).read_bytes()[position]
    patch(directory, base, position, bytes([byte ^ 0x55]))


@contextmanager
def control_of(directory: Path) -> Iterator[ControlPage]:
    control = ControlPage(str(directory), writable=True)
    try:
        yield control
    finally:
        control.close()


def cut_power(directory: Path, synced: int | None = None) -> None:
    """Another boot finds the log; the events up to `synced` are known to be on the disk."""
    with control_of(directory) as control:
        control.boot_id = "another boot"
        if synced is not None:
            control.synced = synced


def fill(log: WritableLog, first: int, last: int) -> None:
    """Batches of one to three events, which say their own numbers."""
    while first <= last:
        count = min(1 + first % 3, last - first + 1)
        events = [f"event {n} " + "." * 150 for n in range(first, first + count)]
        assert log.append(batch_of(*events), PRODUCER, first) == first
        first += count


def number_in(event: Any) -> int:
    return int(event.split()[1])


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log of several segments, whose writer was killed."""
    directory = tmp_path_factory.mktemp("template") / "log"
    log = open_storage(str(directory), segment_bytes=SEGMENT_BYTES)
    fill(log, 1, 60)
    log.ack("reader", 55)
    log.abandon()
    return directory


@pytest.fixture
def killed(template: Path, tmp_path: Path) -> Path:
    directory = tmp_path / "log"
    shutil.copytree(template, directory)
    return directory


def check_goes_on(directory: Path, last: int, *, lost: range = range(0)) -> list[Damage]:
    """Open, look, append, close, look again: every number is there, and the right event at it."""
    log = open_storage(str(directory))
    try:
        assert log.last_seq_no == last
        for offset in log.offsets.all():
            assert offset.position <= last
        fill(log, last + 1, last + 20)
        damages = log.damages
        log.close()
    except BaseException:
        log.abandon()
        raise
    for _ in range(2):
        runs = (
            [range(1, lost.start), range(lost.stop, last + 21)] if lost else [range(1, last + 21)]
        )
        for run in runs:
            found = stored_events(str(directory), run.start, run.stop)
            assert {n: number_in(event) for n, event in found.items()} == {n: n for n in run}
        if lost:
            with pytest.raises(CorruptLog) as caught:
                stored_events(str(directory), lost.start, lost.stop)
            assert (caught.value.seq_no, caught.value.last_seq_no) == (lost.start, lost.stop - 1)
        open_storage(str(directory)).close()  # and the next start finds the same
    return damages


# --- the end of the log ----------------------------------------------------------------------


def test_nothing_happened(killed: Path) -> None:
    assert check_goes_on(killed, 60) == []


def test_every_byte_of_the_last_header_may_be_torn(killed: Path) -> None:
    *_, last = batches_in(killed)
    header = (killed / segment_name(last.segment)).read_bytes()[last.position :][:HEADER_BYTES]
    for place in range(HEADER_BYTES):
        for torn in (
            header[:place] + bytes(HEADER_BYTES - place),
            header[:place] + bytes([header[place] ^ 0xFF]) + header[place + 1 :],
        ):
            patch(killed, last.segment, last.position, torn)
            with SegmentOf(killed, last.segment) as view:
                scan = scan_segment(view, last.segment, trusted=last.first - 1)
            if torn == header:
                continue
            assert (scan.next_seq_no, scan.end) == (last.first, last.position), place
            assert scan.is_torn
            assert [damage.first_seq_no for damage in scan.damages] == [last.first]
    damages = check_goes_on(killed, last.first - 1)
    assert damages[0].first_seq_no == last.first


@pytest.mark.parametrize("share", [0.0, 0.3, 0.6, 0.99])
@pytest.mark.parametrize("how", ["zeros", "flip"])
def test_the_last_body_may_be_torn(killed: Path, share: float, how: str) -> None:
    *_, last = batches_in(killed)
    body = last.length - HEADER_BYTES
    place = last.position + HEADER_BYTES + int(body * share)
    if how == "flip":
        flip(killed, last.segment, place)
    else:
        patch(killed, last.segment, place, bytes(last.position + last.length - place))
    damages = check_goes_on(killed, last.first - 1)
    assert damages == [Damage(last.first, None, "a batch with a wrong checksum")]


def test_a_batch_whose_length_was_never_written_is_cut(killed: Path) -> None:
    *_, last = batches_in(killed)
    patch(killed, last.segment, last.position + 4, bytes(4))
    damages = check_goes_on(killed, last.first - 1)
    assert damages == [Damage(last.first, None, "a batch that was never finished")]


@pytest.mark.parametrize(
    "garbage", [b"\xff" * 64, b"\x01" + bytes(63), os.urandom(500), b"\x40" * 8]
)
def test_garbage_after_the_end_is_cut(killed: Path, garbage: bytes) -> None:
    *_, last = batches_in(killed)
    patch(killed, last.segment, aligned(last.position + last.length), garbage)
    damages = check_goes_on(killed, 60)
    assert [damage.first_seq_no for damage in damages] == [61]


def test_a_batch_that_was_stored_but_not_published_is_published(killed: Path) -> None:
    with control_of(killed) as control:
        control.high_water = 58
    assert check_goes_on(killed, 60) == []


def test_remains_of_a_cut_batch_never_come_back(killed: Path) -> None:
    # The first byte of an old batch is damaged; what follows it, by length, is whole. A new batch
    # of the same length in its place must not make the remains look like the next one.
    *_, before, last = batches_in(killed)
    flip(killed, before.segment, before.position + HEADER_BYTES)
    cut_power(killed, before.first - 1)
    log = open_storage(str(killed))
    assert log.last_seq_no == before.first - 1
    events = [f"other {n} " + "." * 150 for n in range(before.first, before.last + 1)]
    log.append(batch_of(*events))
    log.abandon()
    log = open_storage(str(killed))
    assert log.last_seq_no == before.last < last.first
    log.close()
    assert list(stored_events(str(killed), before.first).values()) == events


# --- the middle of the log -------------------------------------------------------------------


def test_damage_in_the_middle_of_the_last_segment_is_a_hole(killed: Path) -> None:
    *_, lost, _ = batches_in(killed)
    flip(killed, lost.segment, lost.position + HEADER_BYTES + 5)
    damages = check_goes_on(killed, 60, lost=range(lost.first, lost.last + 1))
    assert damages == [Damage(lost.first, lost.last, "a batch with a wrong checksum")]


def test_two_holes_are_reported_as_two(killed: Path) -> None:
    places = [
        place for place in batches_in(killed) if place.segment == batches_in(killed)[-1].segment
    ]
    for lost in (places[0], places[2]):
        flip(killed, lost.segment, lost.position + HEADER_BYTES + 5)
    log = open_storage(str(killed))
    log.close()
    assert [(damage.first_seq_no, damage.last_seq_no) for damage in log.damages] == [
        (places[0].first, places[0].last),
        (places[2].first, places[2].last),
    ]


def test_a_damaged_length_in_the_middle_loses_no_other_batch(killed: Path) -> None:
    *_, lost, _ = batches_in(killed)
    patch(killed, lost.segment, lost.position + 4, (2**32 - 1).to_bytes(4, "little"))
    check_goes_on(killed, 60, lost=range(lost.first, lost.last + 1))


def test_a_page_of_zeros_in_a_sealed_segment_is_met_by_readers_only(killed: Path) -> None:
    lost = batches_in(killed)[2]
    patch(killed, lost.segment, lost.position, bytes(lost.length))
    assert check_goes_on(killed, 60, lost=range(lost.first, lost.last + 1)) == []


def test_a_damaged_batch_in_a_sealed_segment_hides_no_other_one(killed: Path) -> None:
    # A reader that went on after the damage began at the index entry before it, walked into the
    # damage again, and reported the events that it was asked for as lost.
    lost = batches_in(killed)[3]
    flip(killed, lost.segment, lost.position + HEADER_BYTES + 1)
    assert check_goes_on(killed, 60, lost=range(lost.first, lost.last + 1)) == []
    for place in batches_in(killed):
        if place != lost:
            found = stored_events(str(killed), place.first, place.last + 1)
            assert list(found) == list(range(place.first, place.last + 1))


# --- a loss of power -------------------------------------------------------------------------


def test_a_whole_log_survives_a_loss_of_power(killed: Path) -> None:
    cut_power(killed, 10)
    assert check_goes_on(killed, 60) == []


def test_an_unsynced_hole_is_cut_with_all_that_comes_after_it(killed: Path) -> None:
    places = batches_in(killed)
    hole = next(place for place in places if place.segment > 1)
    patch(killed, hole.segment, hole.position, bytes(hole.length))
    cut_power(killed, hole.first - 1)
    damages = check_goes_on(killed, hole.first - 1)
    assert damages[0].first_seq_no == hole.first


def test_a_hole_in_what_was_synced_is_kept_and_reported(killed: Path) -> None:
    hole = batches_in(killed)[2]
    patch(killed, hole.segment, hole.position, bytes(hole.length))
    cut_power(killed, 0)
    with control_of(killed) as control:
        control.synced = 60
    check_goes_on(killed, 60, lost=range(hole.first, hole.last + 1))


def test_positions_go_back_with_events_that_vanished_without_a_trace(killed: Path) -> None:
    # The page with the positions had reached the disk and the last batches had not: nothing but
    # zeros after event 50. The consumer stayed at 55 and never saw the next events 51 to 55.
    places = [place for place in batches_in(killed) if place.last > 50]
    for place in places:
        patch(killed, place.segment, place.position, bytes(place.length))
    cut_power(killed, places[0].first - 1)
    with control_of(killed) as control:
        control.high_water = places[0].first - 1
    log = open_storage(str(killed))
    try:
        assert log.last_seq_no == places[0].first - 1
        reader = log.offsets.find("reader")
        assert reader is not None
        assert reader.position == log.last_seq_no
    finally:
        log.close()


def test_a_position_past_the_end_survives_the_death_of_processes(killed: Path) -> None:
    log = open_storage(str(killed))
    log.seek("future", 1000)  # `SeekPosition.sequence(1001)` waits for it
    log.abandon()
    log = open_storage(str(killed))
    offset = log.offsets.find("future")
    log.close()
    assert offset is not None
    assert offset.position == 1000


def test_a_position_past_the_end_survives_an_append_that_was_cut_off(killed: Path) -> None:
    # What was cut had never been published, and yet the position was moved back to the last event.
    log = open_storage(str(killed))
    log.seek("future", 1000)
    log.abandon()
    *_, last = batches_in(killed)
    patch(killed, last.segment, aligned(last.position + last.length), b"\x01" * 40)
    log = open_storage(str(killed))
    assert [damage.first_seq_no for damage in log.damages] == [61]
    offset = log.offsets.find("future")
    log.close()
    assert offset is not None
    assert offset.position == 1000


def test_the_log_ends_before_an_unsynced_segment_without_its_header(killed: Path) -> None:
    # More segments followed it, of which some data was on the disk. They were kept behind a hole,
    # although none of their events had been synced.
    places = batches_in(killed)
    lost = sorted({place.segment for place in places})[-3]
    patch(killed, lost, 0, bytes(100))
    cut_power(killed, lost - 1)
    damages = check_goes_on(killed, lost - 1)
    assert [(damage.first_seq_no, damage.last_seq_no) for damage in damages] == [(lost, None)]


def test_numbers_begin_at_1_when_power_is_lost_before_the_first_segment_has_its_name(
    killed: Path,
) -> None:
    # The mark had reached the disk and the segment's name had not: the next event was number 61,
    # and retention was said to have deleted those before.
    for path in [*killed.glob("*.seg"), *killed.glob("*.idx"), killed / "offsets"]:
        path.unlink()
    cut_power(killed, 0)
    log = open_storage(str(killed))
    assert (log.last_seq_no, log.control.first_available) == (0, 1)
    log.close()


def test_a_start_killed_while_it_drops_segments_leaves_no_hole(killed: Path) -> None:
    # They were deleted from the first one on, so the next start took the rest for the log.
    places = batches_in(killed)
    for base in {place.segment for place in places}:
        patch(killed, base, 0, bytes(SEGMENT_BYTES))
    cut_power(killed, 0)
    killed_starts = 0
    for at in range(1, 100):
        directory = killed.with_name(f"start-{at}")
        shutil.copytree(killed, directory)
        files = KillingFiles(at)
        try:
            open_storage(str(directory), files).abandon()
            break
        except Killed:
            killed_starts += 1
        finally:
            files.bury()
        log = open_storage(str(directory))
        assert (log.last_seq_no, log.control.first_available) == (0, 1), at
        log.abandon()
    assert killed_starts > 10


def test_an_unsynced_segment_that_lost_its_header_is_dropped(killed: Path) -> None:
    # The name had reached the disk, nothing else. The start failed with "no log there", because
    # the segment was dropped and then looked at again.
    last = batches_in(killed)[-1]
    size = (killed / segment_name(last.segment)).stat().st_size
    patch(killed, last.segment, 0, bytes(size))
    cut_power(killed, 5)
    check_goes_on(killed, last.segment - 1)


def test_after_a_loss_of_power_the_next_writer_starts_from_the_disk(killed: Path) -> None:
    cut_power(killed, 5)
    log = open_storage(str(killed))
    assert log.control.synced == 60
    log.close()


def test_without_a_boot_id_a_kill_may_have_been_a_loss_of_power(
    killed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the system has none, "" was equal to "": what the power took was called damage."""
    monkeypatch.setattr(start, "boot_id", lambda: "")
    with control_of(killed) as control:
        control.boot_id, control.synced = "", 20
    last = batches_in(killed)[-1]
    flip(killed, last.segment, last.position + 70)
    log = open_storage(str(killed))
    assert log.last_seq_no == last.first - 1
    assert log.offsets.lowest() == min(55, last.first - 1)
    assert log.control.synced == 20, "it may have been a kill: nobody synced the rest"
    log.abandon()
    hole = next(place for place in batches_in(killed) if place.first > 20)
    flip(killed, hole.segment, hole.position + 70)
    check_goes_on(killed, hole.first - 1)


def test_the_orderly_end_of_an_earlier_writer_does_not_vouch_for_a_later_one(
    killed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The control page on the disk said "orderly end" until the first sync of positions; a loss of
    # power before it kept the next start from looking behind the old end of the log.
    open_storage(str(killed)).close()
    synced: list[int] = []
    monkeypatch.setattr(
        ControlPage, "sync", lambda page: synced.append(page.writer_pid), raising=True
    )
    log = open_storage(str(killed))
    assert synced == [os.getpid()]
    log.abandon()


# --- files that are missing, or too many -----------------------------------------------------


def test_a_damaged_segment_header_loses_its_segment_only(killed: Path) -> None:
    second = sorted(killed.glob("*.seg"))[1]
    flip(killed, int(second.stem), 20)
    log = open_storage(str(killed))
    fill(log, 61, 70)
    log.close()
    first, last = int(second.stem), int(sorted(killed.glob("*.seg"))[2].stem) - 1
    assert list(stored_events(str(killed), 1, first)) == list(range(1, first))
    assert list(stored_events(str(killed), last + 1)) == list(range(last + 1, 71))
    with pytest.raises(CorruptLog) as caught:
        stored_events(str(killed), first, last + 1)
    assert caught.value.seq_no == first


def test_a_damaged_last_segment_header_uses_no_number_again(killed: Path) -> None:
    last = max(killed.glob("*.seg"))
    flip(killed, int(last.stem), 20)
    log = open_storage(str(killed))
    assert log.append(batch_of("after")) == 61
    assert [(d.first_seq_no, d.last_seq_no) for d in log.damages] == [(int(last.stem), 60)]
    log.close()
    assert stored_events(str(killed), 61) == {61: "after"}


def test_a_missing_index_is_made_again_as_it_was(killed: Path) -> None:
    before = {path.name: path.read_bytes().rstrip(b"\0") for path in killed.glob("*.idx")}
    for path in killed.glob("*.idx"):
        path.unlink()
    open_storage(str(killed)).close()
    after = {path.name: path.read_bytes().rstrip(b"\0") for path in killed.glob("*.idx")}
    assert after == before
    assert len(after) > 2


@pytest.mark.parametrize("content", [b"", b"\0" * 100, b"\xff" * 240, os.urandom(240)])
def test_a_damaged_index_makes_nothing_wrong(killed: Path, content: bytes) -> None:
    for path in killed.glob("*.idx"):
        path.write_bytes(content)
    assert check_goes_on(killed, 60) == []


def test_leftovers_are_removed(killed: Path) -> None:
    left = [
        segment_name(61) + ".new",
        index_name(61),
        index_name(7777),
        "producers.new",
        "offsets.new",
        "control.new",
    ]
    for name in left:
        (killed / name).write_bytes(b"left behind")
    assert check_goes_on(killed, 60) == []
    there = os.listdir(killed)
    assert [name for name in left if name in there and name != index_name(61)] == []


def test_a_retired_segment_that_was_not_deleted_yet_is_deleted(killed: Path) -> None:
    first, second = sorted(killed.glob("*.seg"))[:2]
    with control_of(killed) as control:
        control.first_available = int(second.stem)
    log = open_storage(str(killed))
    log.close()
    assert not first.exists()
    assert not first.with_suffix(".idx").exists()
    assert list(stored_events(str(killed))) == list(range(int(second.stem), 61))


@pytest.mark.parametrize("first_available", [1 << 23, 2, 60, 2**64 - 1])
def test_a_damaged_mark_deletes_no_segment(killed: Path, first_available: int) -> None:
    # One flipped bit, and all segments but the last were taken for retired.
    with control_of(killed) as control:
        control.first_available = first_available
    assert check_goes_on(killed, 60) == []


@pytest.mark.parametrize("how", ["missing", "damaged", "empty"])
def test_a_lost_snapshot_of_the_producers_is_no_damage(killed: Path, how: str) -> None:
    snapshot = killed / "producers"
    if how == "missing":
        snapshot.unlink()
    else:
        snapshot.write_bytes(b"" if how == "empty" else b"EVLOGPRDxxxxyyyy")
    assert check_goes_on(killed, 60) == []


def test_an_orderly_end_is_followed_by_a_quick_start(
    killed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = open_storage(str(killed))
    log.close()
    is_quick: list[bool] = []

    def noted(*args: Any, **kwargs: Any) -> Any:
        is_quick.append(kwargs.get("start") is not None)
        return scan_segment(*args, **kwargs)

    with monkeypatch.context() as patched:
        patched.setattr(restart, "scan_segment", noted)
        patched.setattr(SegmentReader, "scan", noted)
        open_storage(str(killed)).close()
    assert is_quick == [True]
    assert check_goes_on(killed, 60) == []


def test_numbers_are_not_used_again_when_all_segments_are_gone(killed: Path) -> None:
    for path in killed.glob("*.seg"):
        path.unlink()
    log = open_storage(str(killed))
    assert log.append(batch_of("after")) == 61
    log.close()


def test_each_start_raises_the_epoch(killed: Path) -> None:
    epochs = []
    for _ in range(3):
        log = open_storage(str(killed))
        epochs.append(log.control.epoch)
        log.close()
    assert epochs == [2, 3, 4]


# --- arbitrary bytes -------------------------------------------------------------------------


class SegmentOf:
    """The bytes of a segment, for `with`."""

    def __init__(self, directory: Path, base: int) -> None:
        self._reader = SegmentReader(str(directory), base)

    def __enter__(self) -> memoryview:
        return self._reader.view

    def __exit__(self, *_: object) -> None:
        self._reader.close()


@given(st.binary(max_size=400), st.integers(0, 5), st.booleans())
@example(bytes(FIRST_BATCH + HEADER_BYTES), 3, False)
def test_a_scan_of_arbitrary_bytes_ends_where_it_began(
    data: bytes, trusted: int, is_end_clean: bool
) -> None:
    view = memoryview(bytes(FIRST_BATCH) + data)
    scan = scan_segment(view, 1, trusted, is_end_clean=is_end_clean)
    assert (scan.end, scan.next_seq_no) == (FIRST_BATCH, 1)


headers = st.builds(
    lambda length, base, count: BATCH_HEADER.pack(
        0, length, base, 1, 0, 0, count, 0, HEADER_BYTES, 1, 0, b""
    ),
    st.integers(0, 2**32 - 1) | st.integers(60, 300),
    st.integers(0, 2**64 - 1) | st.integers(0, 4),
    st.integers(0, 2**32 - 1),
)


@given(st.lists(headers | st.binary(max_size=40), max_size=6))
def test_headers_that_lie_are_no_batches(pieces: list[bytes]) -> None:
    view = memoryview(bytes(FIRST_BATCH) + b"".join(pieces))
    assert scan_segment(view, 1, 0).next_seq_no == 1
    assert find_batch_after(view, FIRST_BATCH, 1, len(view)) is None


@given(st.data())
def test_any_damage_to_a_segment_gives_a_part_of_what_was_there(
    template: Path, data: st.DataObject
) -> None:
    base = batches_in(template)[-1].segment
    content = bytearray((template / segment_name(base)).read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(FIRST_BATCH, len(content) - 1))
        damage = data.draw(st.binary(min_size=1, max_size=100))[: len(content) - place]
        content[place : place + len(damage)] = damage
    seen: list[int] = []
    scan = scan_segment(
        memoryview(bytes(content)),
        base,
        data.draw(st.integers(0, 70)),
        on_batch=lambda header, _: seen.extend(range(header.base_seq_no, header.last_seq_no + 1)),
    )
    lost = [
        n for first, last, _ in scan.damages if last is not None for n in range(first, last + 1)
    ]
    assert sorted(seen + lost) == list(range(base, scan.next_seq_no))
    assert scan.next_seq_no <= 61


@given(st.integers(0, 9000), st.integers(0, 9000))
def test_data_is_found_wherever_it_is(size: int, place: int) -> None:
    content = bytearray(size)
    if place < size:
        content[place] = 1
    assert has_data(memoryview(bytes(content)), 0) == (place < size)


def test_a_batch_is_found_after_any_number_of_zeros(template: Path) -> None:
    place = batches_in(template)[0]
    content = (template / segment_name(place.segment)).read_bytes()
    batch = content[place.position : place.position + place.length]
    for gap in (0, 8, 4032, 4088, 4096, 4104, 8192 - 64, 12_288):
        view = memoryview(bytes(gap) + batch)
        found = find_batch_after(view, 0, 1, len(view))
        assert found is not None
        assert found[0] == gap


def test_a_segment_full_of_garbage_is_scanned_in_reasonable_time() -> None:
    garbage = os.urandom(1 << 20)
    assert scan_segment(memoryview(bytes(FIRST_BATCH) + garbage), 1, 0).is_torn


def test_headers_in_a_payload_that_all_lie_alike_cost_little(template: Path) -> None:
    """Each claimed to cover the rest of the segment, which was summed for each: hours in 64 MiB."""
    lie = BATCH_HEADER.pack(1, 30 << 20, 2, 0, 0, 0, 1, 0, HEADER_BYTES, 1, 0, b"")
    place = batches_in(template)[1]
    content = (template / segment_name(place.segment)).read_bytes()
    batch = content[place.position : place.position + place.length]
    lies = lie * 15_000
    view = memoryview(lies + batch + bytes(32 << 20))
    begun = time.process_time()
    found = find_batch_after(view, 0, 2, len(lies + batch))
    assert found is not None
    assert found[0] == len(lies)
    assert time.process_time() - begun < 10, "each claim was summed by itself"


def batch_bytes(base_seq_no: int, batch: PackedBatch) -> bytes:
    header = pack_batch_header(
        batch, base_seq_no=base_seq_no, append_time_ns=1, producer_id=0, producer_seq=0, epoch=1
    )
    return (header + bytes(batch.payload)).ljust(aligned(len(header) + len(batch.payload)), b"\0")


def carrying(batch: bytes) -> bytes:
    """A payload with that batch at every alignment: one of them is a place for batches."""
    return b"".join(bytes(shift) + batch + bytes(8 - shift) for shift in range(8))


def test_a_batch_in_a_damaged_payload_is_not_taken_for_the_next_one(tmp_path: Path) -> None:
    """An event whose bytes were those of a segment: readers were served what lay in them."""
    log = open_storage(str(tmp_path), segment_bytes=1 << 16)
    log.append(batch_of("one"))
    log.append(batch_of(carrying(batch_bytes(3, batch_of("forged")))))
    log.append(batch_of("three"))
    log.append(batch_of("four"))
    log.abandon()
    damaged = batches_in(tmp_path)[1]
    flip(tmp_path, 1, damaged.position + 100)
    assert stored_events(str(tmp_path), 3) == {3: "three", 4: "four"}
    log = open_storage(str(tmp_path))
    assert [damage[:2] for damage in log.damages] == [(2, 2)]
    log.close()
    assert stored_events(str(tmp_path), 3) == {3: "three", 4: "four"}


def test_a_batch_in_a_torn_payload_is_not_published_by_a_repair(tmp_path: Path) -> None:
    """After a loss of power a repair trusted whatever was whole, whatever number it had."""
    log = open_storage(str(tmp_path), segment_bytes=1 << 16)
    log.append(batch_of("one"))
    log.append(batch_of(carrying(batch_bytes(1000, batch_of("forged")))))
    log.abandon()
    torn = batches_in(tmp_path)[1]
    patch(tmp_path, 1, torn.position + LENGTH_OFFSET, bytes(4))
    cut_power(tmp_path, 1)
    with control_of(tmp_path) as control:
        control.high_water = 1
    repair_log(str(tmp_path))
    assert stored_events(str(tmp_path)) == {1: "one"}
    log = open_storage(str(tmp_path))
    assert log.append(batch_of("two")) == 2
    log.close()


@given(st.binary(max_size=20_000), st.data())
def test_sums_of_ranges_are_those_of_their_bytes(content: bytes, data: st.DataObject) -> None:
    places = st.integers(0, len(content))
    start = data.draw(places)
    sums = RangeSums(memoryview(content), start)
    for _ in range(3):
        begin, end = sorted(max(data.draw(places), start) for _ in range(2))
        assert sums.sum_of(begin, end) == crc32c(content[begin:end])


def test_a_reader_reads_a_killed_log_without_any_writer(killed: Path) -> None:
    log = LogReader(str(killed))
    assert log.last_seq_no == 60
    log.close()
    assert list(stored_events(str(killed))) == list(range(1, 61))
