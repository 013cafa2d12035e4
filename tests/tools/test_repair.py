"""Repair: real damage, to one file after the other; what comes of it, and what is kept."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable
from contextlib import closing
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from eventlog.errors import CorruptLog, LogFull, LogInUse, NotALog, UnknownFormat
from eventlog.local.rendezvous import writers_locked_out
from eventlog.local.storage.control import CONTROL, ControlPage
from eventlog.local.storage.files import Files
from eventlog.local.storage.formats.format import index_name, segment_name
from eventlog.local.storage.journal import Journal, framed, read_records
from eventlog.local.storage.reading.reader import LogReader
from eventlog.testing import Killed, KillingFiles, batch_of, open_storage, stored_events
from eventlog.tools.keep import KeepingFiles, is_kept_copy
from eventlog.tools.repair import Repair, repair_log
from eventlog.tools.verify import Verification, verify_log

EVENTS = {n: f"event {n} " + "." * 300 for n in range(1, 41)}


def fill(directory: str) -> None:
    log = open_storage(directory, segment_bytes=4096)
    for event in EVENTS.values():
        log.append(batch_of(event))
    log.ack("billing", 17)
    log.ack("audit", 30)
    log.close()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("whole") / "log"
    fill(str(directory))
    return directory


@pytest.fixture
def log(whole: Path, tmp_path: Path) -> Path:
    shutil.copytree(whole, tmp_path / "log")
    return tmp_path / "log"


def bases(log: Path) -> list[int]:
    return sorted(int(path.stem) for path in log.glob("*.seg"))


def segment(log: Path, place: int) -> Path:
    return log / segment_name(bases(log)[place])


def flip(path: Path, place: int, bits: int = 0xFF) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= bits
    path.write_bytes(content)


def verified(log: Path) -> Verification:
    reader = LogReader(str(log))
    try:
        return verify_log(reader)
    finally:
        reader.close()


def positions(log: Path) -> dict[str, int | None]:
    reader = LogReader(str(log))
    try:
        return {state.name: state.last_acked for state in reader.consumers()}
    finally:
        reader.close()


def names(log: Path) -> list[str]:
    return sorted(os.listdir(log))


def check_goes_on(log: Path, last: int) -> None:
    """What a writer then does: nothing is found damaged, and numbers go on."""
    opened = open_storage(str(log))
    assert opened.damages == []
    assert opened.append(batch_of("next")) == last + 1
    opened.close()
    assert stored_events(str(log), last + 1) == {last + 1: "next"}


def test_a_sound_log_is_left_as_it_is(log: Path) -> None:
    before = {name: (log / name).read_bytes() for name in names(log)}
    assert repair_log(str(log)) == Repair()
    assert {name: (log / name).read_bytes() for name in names(log)} == before
    assert verified(log) == Verification(events=40, batches=40, segments=len(bases(log)))


def test_a_torn_tail_is_cut_and_kept_aside(log: Path) -> None:
    last = segment(log, -1)
    content = last.read_bytes()
    end = len(content.rstrip(b"\0")) + 8 & ~7
    with open(last, "r+b") as file:
        file.seek(end)
        file.write(content[64 : 64 + 200])
    damaged = last.read_bytes()
    assert "torn tail" in " ".join(verified(log).notes)
    report = repair_log(str(log))
    assert report.lost == []
    assert report.done == ["cut a torn tail after event 40 (event 37 in the place of 41)"] or (
        "cut a torn tail after event 40" in report.done[0]
    )
    assert report.kept == [last.name + ".damaged"]
    assert (log / report.kept[0]).read_bytes() == damaged
    assert last.read_bytes() == content
    assert stored_events(str(log)) == EVENTS
    assert verified(log).notes == []
    check_goes_on(log, 40)


@pytest.mark.parametrize("how", ["missing", "empty", "flipped", "foreign"])
@pytest.mark.parametrize("place", [0, -1])
def test_an_index_is_made_again(log: Path, place: int, how: str) -> None:
    path = log / index_name(bases(log)[place])
    before = path.read_bytes().rstrip(b"\0")
    if how == "missing":
        path.unlink()
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "flipped":
        flip(path, 3)
    else:
        shutil.copy(log / index_name(bases(log)[1]), path)
    assert verified(log).is_whole
    assert "index of segment" in (said := " ".join(verified(log).notes)) or "no index" in said
    report = repair_log(str(log))
    assert len(report.done) == 1
    assert report.lost == []
    assert report.kept == ([] if how == "missing" else [path.name + ".damaged"])
    assert path.read_bytes().rstrip(b"\0") == before
    assert verified(log).notes == []
    check_goes_on(log, 40)


def test_damage_in_the_middle_is_reported_by_its_numbers_and_never_hidden(log: Path) -> None:
    flip(segment(log, 1), 64 + 100)
    first = bases(log)[1]
    (problem,) = verified(log).problems
    assert f"events {first} to {first} " in problem
    content = segment(log, 1).read_bytes()
    for _ in range(2):
        report = repair_log(str(log))
        assert (report.done, report.kept) == ([], [])
        assert segment(log, 1).read_bytes() == content
        assert verified(log).problems == [problem]


def test_damage_in_the_middle_stays_although_the_tail_is_cut(log: Path) -> None:
    flip(segment(log, -1), 64 + 100)
    first = bases(log)[-1]
    with open(segment(log, -1), "r+b") as file:
        file.seek(-200, os.SEEK_END)
        file.write(b"rubbish")
    report = repair_log(str(log))
    assert "cut a torn tail after event 40" in report.done[0]
    assert f"events {first} to {first} " in verified(log).problems[0]
    assert verified(log).events == 39


def test_a_copy_from_another_boot_is_not_cut_at_its_first_damage(log: Path) -> None:
    """A writer cuts at a hole after the last sync, as after a loss of power; a repair does not."""
    with open(log / "control", "r+b") as file:
        file.seek(CONTROL.offset("synced"))
        file.write((5).to_bytes(8, "little"))
        file.seek(CONTROL.offset("writer_pid"))
        file.write((999_999).to_bytes(8, "little") + bytes(8) + b"another boot".ljust(36, b"\0"))
    first = bases(log)[-2]
    flip(segment(log, -2), 64 + 100)
    (log / index_name(bases(log)[0])).unlink()
    report = repair_log(str(log))
    assert report.lost == []
    assert f"events {first} to {first} " in verified(log).problems[0]
    assert verified(log).events == 39


@pytest.mark.parametrize("place", [0, 1, -1])
@pytest.mark.parametrize("byte", [0, 8, 20, 61])
def test_a_segment_header_is_made_again(log: Path, place: int, byte: int) -> None:
    path = segment(log, place)
    flip(path, byte)
    damaged = path.read_bytes()
    assert not verified(log).is_whole
    report = repair_log(str(log))
    assert f"made the header of segment {int(path.stem)} again" in report.done[0]
    assert report.lost == []
    assert path.name + ".damaged" in report.kept
    assert (log / (path.name + ".damaged")).read_bytes() == damaged
    assert verified(log).problems == []
    assert stored_events(str(log)) == EVENTS
    check_goes_on(log, 40)


@pytest.mark.parametrize("size", [0, 30, 64, 100, 1000, 3000])
def test_a_segment_that_was_cut_short_loses_its_own_events_only(log: Path, size: int) -> None:
    first, following = bases(log)[1:3]
    os.truncate(segment(log, 1), size)
    repair_log(str(log))
    found = verified(log)
    assert not found.is_whole
    assert f"to {following - 1} " in " ".join(found.problems)
    reader = LogReader(str(log))
    assert reader.last_seq_no == 40
    reader.close()
    assert found.events >= 40 - (following - first)


@pytest.mark.parametrize("size", [0, 30, 64, 100, 1000])
def test_a_last_segment_that_was_cut_short_is_said_to_be(log: Path, size: int) -> None:
    os.truncate(segment(log, -1), size)
    before = segment(log, -1).read_bytes()
    name = segment(log, -1).name
    first = bases(log)[-1]
    report = repair_log(str(log))
    (lost,) = [text for text in report.lost if "to 40" in text] or [""]
    rest = verified(log)
    # Either the numbers stay taken and the log says that they are damaged, or they are free again.
    assert lost or f"{first} to 40" in " ".join(rest.problems)
    assert (log / name).exists() or (log / (name + ".damaged")).read_bytes() == before


def test_a_missing_segment_is_reported_by_its_numbers(log: Path) -> None:
    first, following = bases(log)[1:3]
    segment(log, 1).unlink()
    repair_log(str(log))
    assert f"events {first} to {following - 1} " in " ".join(verified(log).problems)


def control_words(log: Path) -> tuple[int, int]:
    page = ControlPage(str(log))
    try:
        return page.first_available, page.high_water
    finally:
        page.close()


@pytest.mark.parametrize("byte", [0, 3, 8, 10, 12, 20, 36, 40, 44, 520])
def test_a_damaged_control_page_is_made_again(log: Path, byte: int) -> None:
    flip(log / "control", byte)
    damaged = (log / "control").read_bytes()
    report = repair_log(str(log))
    assert report.done[0] == "made the control page again"
    # The options have a checksum of their own, so damage beside them leaves them known.
    assert bool(report.lost) == (byte in (12, 40, 520))
    assert "control.damaged" in report.kept
    assert (log / "control.damaged").read_bytes() == damaged
    assert control_words(log) == (1, 40)
    assert verified(log).is_whole
    assert stored_events(str(log)) == EVENTS
    check_goes_on(log, 40)


@pytest.mark.parametrize("how", ["missing", "empty", "short", "zeros"])
def test_a_lost_control_page_is_made_from_the_segments(log: Path, how: str) -> None:
    path = log / "control"
    content = path.read_bytes()
    path.unlink()
    if how != "missing":
        path.write_bytes({"empty": b"", "short": content[:100], "zeros": bytes(4096)}[how])
    report = repair_log(str(log))
    assert report.done[0] == "made the control page again"
    assert "options" in report.lost[0]
    assert control_words(log) == (1, 40)
    assert verified(log).is_whole
    assert positions(log) == {"audit": 30, "billing": 17}
    check_goes_on(log, 40)


@pytest.mark.parametrize("trace", ["segment", "batch", "lease", "state", "recent"])
def test_a_lost_control_page_gives_no_epoch_twice(log: Path, trace: str) -> None:
    """It began at 0 again, and with it the numbers of leases: members had those of others."""
    with closing(ControlPage(str(log), writable=True)) as control:
        control.epoch = 6
    writer = open_storage(str(log))
    if trace in ("segment", "batch"):
        for _ in range(20 if trace == "segment" else 1):
            writer.append(batch_of("." * 300))
    writer.close()
    lease = 7 << 32 | 3
    snapshot: list[Any] = ["", 3, 0, [], [], [], [], [], [], 0]
    snapshot[7] = [[9, 1, 1, 0, [lease] if trace == "recent" else []]]
    snapshot[8] = [[lease, 9, [[1, 1]], [[1, 1]]]] if trace == "state" else []
    with closing(Journal(str(log), "groups")) as groups:
        groups.append(["state", "g", *snapshot])
        if trace == "lease":
            groups.append(["lease", "g", lease, 9, [[1, 1]]])
    os.truncate(log / "control", 4000)
    repair_log(str(log))
    with closing(open_storage(str(log))) as writer:
        assert writer.control.epoch > 7


@pytest.mark.parametrize(
    ("name", "value"), [("first_available", 2**40), ("first_available", 5), ("high_water", 2**50)]
)
def test_marks_that_contradict_the_segments_are_mended(log: Path, name: str, value: int) -> None:
    with open(log / "control", "r+b") as file:
        file.seek(CONTROL.offset(name))
        file.write(value.to_bytes(8, "little"))
    report = repair_log(str(log))
    assert report.done or report.lost
    assert control_words(log) == (1, 40)
    assert verified(log).is_whole
    assert stored_events(str(log)) == EVENTS
    assert "control.damaged" in report.kept


@pytest.mark.parametrize("name", ["writer_pid", "writer_start", "epoch", "boot_id", "synced"])
def test_nonsense_in_any_other_mark_keeps_nobody_from_the_log(log: Path, name: str) -> None:
    """A pid of more than 31 bits was an OverflowError wherever a log's writer was asked for."""
    with open(log / "control", "r+b") as file:
        file.seek(CONTROL.offset(name))
        file.write(b"\xff" * 8)
    tear(log)
    assert verified(log).is_whole
    assert len(repair_log(str(log)).done) == 1
    assert verified(log).notes == []
    assert stored_events(str(log)) == EVENTS
    check_goes_on(log, 40)


def test_events_above_a_low_mark_are_published(log: Path) -> None:
    with open(log / "control", "r+b") as file:
        file.seek(CONTROL.offset("high_water"))
        file.write((20).to_bytes(8, "little"))
    assert "not published" in " ".join(verified(log).notes)
    assert "published the events 21 to 40" in repair_log(str(log)).done
    assert stored_events(str(log)) == EVENTS


@pytest.mark.parametrize("byte", [0, 8, 10, 12])
def test_an_offset_table_with_a_damaged_header_keeps_its_consumers(log: Path, byte: int) -> None:
    flip(log / "offsets", byte)
    assert not verified(log).is_whole
    report = repair_log(str(log))
    assert report.done == ["made the offset table again, with 2 consumer(s)"]
    assert report.kept == ["offsets.damaged"]
    assert positions(log) == {"audit": 30, "billing": 17}
    assert verified(log).is_whole
    check_goes_on(log, 40)


def test_an_offset_table_that_was_cut_short_keeps_what_is_left(log: Path) -> None:
    os.truncate(log / "offsets", 64 + 576 + 100)
    report = repair_log(str(log))
    assert positions(log) in ({}, {"billing": 17})
    assert report.kept == ["offsets.damaged"] or report == Repair()
    check_goes_on(log, 40)


def test_a_damaged_row_is_reported_and_the_others_stay(log: Path) -> None:
    flip(log / "offsets", 64 + 64 + 2)
    assert "row" in verified(log).problems[0]
    report = repair_log(str(log))
    assert "the position of the consumer" in report.lost[0]
    assert "event 17" in report.lost[0]
    assert positions(log) == {"audit": 30}
    assert verified(log).is_whole


def journal(log: Path, name: str, count: int = 3) -> bytes:
    opened = Journal(str(log), name)
    for number in range(1, count + 1):
        record = ["dead", "g", number, 1, 5, b"letter" * 20, 0]
        if name == "groups":
            record = ["state", "g", "", 3, number, [], [], [], [], [], [], 0]
        opened.append(record)
    opened.close()
    return (log / name).read_bytes()


@pytest.mark.parametrize("name", ["groups", "dead"])
def test_a_journals_torn_record_is_cut(log: Path, name: str) -> None:
    content = journal(log, name)
    (log / name).write_bytes(content + framed(["seek", "g", 1])[:-2])
    assert verified(log).is_whole
    report = repair_log(str(log))
    assert report.done == [f"cut the file {name!r} after its last whole record"]
    assert report.kept == [f"{name}.damaged"]
    assert (log / name).read_bytes().rstrip(b"\0") == content.rstrip(b"\0")


@pytest.mark.parametrize("byte", [0, 8, 10, 11])
@pytest.mark.parametrize("name", ["groups", "dead"])
def test_a_journals_header_is_made_again(log: Path, name: str, byte: int) -> None:
    content = journal(log, name)
    flip(log / name, byte)
    assert not verified(log).is_whole
    assert repair_log(str(log)).lost == []
    assert (log / name).read_bytes() == content


@pytest.fixture
def with_state(log: Path) -> Path:
    opened = open_storage(str(log))
    opened.ack("billing", 20, b"sum: 5")
    opened.close()
    return log


@pytest.mark.parametrize("byte", [0, 8, 10, 11])
def test_states_with_a_damaged_header_lose_nothing(with_state: Path, byte: int) -> None:
    """Repair looked at the positions first, which need the states, and refused the log."""
    content = (with_state / "states").read_bytes()
    flip(with_state / "states", byte)
    problems = verified(with_state).problems
    assert ["'states'" in text for text in problems] == [True]
    report = repair_log(str(with_state))
    assert (report.lost, report.kept) == ([], ["states.damaged"])
    assert (with_state / "states").read_bytes() == content
    assert positions(with_state) == {"audit": 30, "billing": 20}
    check_goes_on(with_state, 40)


def test_a_state_that_cannot_be_mended_is_named_and_positions_stay(with_state: Path) -> None:
    flip(with_state / "states", 10)
    flip(with_state / "states", 30)
    report = repair_log(str(with_state))
    assert report.kept == ["states.damaged"]
    assert any("'billing' is lost: it goes on after event 17" in text for text in report.lost)
    assert positions(with_state) == {"audit": 30, "billing": 17}
    check_goes_on(with_state, 40)


@pytest.mark.parametrize("name", ["groups", "states"])
def test_the_error_of_a_damaged_header_names_the_file_and_the_field(log: Path, name: str) -> None:
    """It said that the file has format version 1, and that this program reads version 1."""
    journal(log, name)
    flip(log / name, 10)
    with pytest.raises(CorruptLog, match=f"'{name}'.*byte order mark is 0x.*verify --repair"):
        read_records(str(log), name)


def test_a_damaged_dead_letter_takes_no_other_one_along(log: Path) -> None:
    content = journal(log, "dead")
    flip(log / "dead", 40)
    assert not verified(log).is_whole
    report = repair_log(str(log))
    assert report.lost == ["at least one dead letter"]
    assert report.kept == ["dead.damaged"]
    length = (len(content) - 16) // 3
    assert (log / "dead").read_bytes() == content[:16] + content[16 + length :]
    assert verified(log).is_whole


def test_what_groups_did_after_a_damaged_record_is_not_believed(log: Path) -> None:
    content = journal(log, "groups")
    flip(log / "groups", 16 + (len(content) - 16) // 3 + 12)
    report = repair_log(str(log))
    assert "what groups did" in report.lost[0]
    assert report.kept == ["groups.damaged"]
    assert verified(log).is_whole


# --- what repair refuses ------------------------------------------------------------------------


def set_version(path: Path, crc_at: int) -> None:
    from crc32c import crc32c

    content = bytearray(path.read_bytes())
    content[8] = 9
    content[crc_at : crc_at + 4] = crc32c(content[:crc_at]).to_bytes(4, "little")
    path.write_bytes(content)


@pytest.mark.parametrize(("name", "crc_at"), [("control", 44), (segment_name(1), 60)])
def test_another_version_is_no_damage(log: Path, name: str, crc_at: int) -> None:
    set_version(log / name, crc_at)
    before = {one: (log / one).read_bytes() for one in names(log)}
    with pytest.raises(UnknownFormat, match="version 9"):
        repair_log(str(log))
    assert {one: (log / one).read_bytes() for one in names(log)} == before


def test_what_is_no_log_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "control").write_text("#!/bin/sh\n" * 1000)
    with pytest.raises(NotALog):
        repair_log(str(tmp_path))
    assert names(tmp_path) == ["control"]


def test_nobody_else_may_have_the_log_meanwhile(log: Path) -> None:
    with writers_locked_out(str(log)):
        with pytest.raises(LogInUse, match="served"), writers_locked_out(str(log)):
            pass
        opened = os.open(log / "writer.lock", os.O_RDONLY)
        os.close(opened)
    with writers_locked_out(str(log)):
        pass


def test_without_room_for_the_copy_nothing_is_changed(
    log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flip(segment(log, 0), 0)
    before = segment(log, 0).read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Files, "copy", full)
    with pytest.raises(LogFull):
        repair_log(str(log))
    assert segment(log, 0).read_bytes() == before
    assert not [name for name in names(log) if is_kept_copy(name) or name.endswith(".new")]


def test_copies_of_several_repairs_stand_beside_each_other(log: Path) -> None:
    contents = []
    for byte in (0, 20):
        flip(segment(log, 0), byte)
        contents.append(segment(log, 0).read_bytes())
        repair_log(str(log))
    copies = [log / (segment_name(1) + ending) for ending in (".damaged", ".damaged.2")]
    assert [copy.read_bytes() for copy in copies] == contents
    assert all(is_kept_copy(copy.name) for copy in copies)
    assert not is_kept_copy(segment_name(1))


DAMAGES: list[Callable[[random.Random, Path], object]] = [
    lambda rnd, path: os.truncate(path, rnd.randrange(path.stat().st_size + 1)),
    lambda rnd, path: flip(path, rnd.randrange(path.stat().st_size)),
    lambda rnd, path: path.write_bytes(
        path.read_bytes()[: rnd.randrange(path.stat().st_size)].ljust(path.stat().st_size, b"\xaa")
    ),
    lambda rnd, path: path.unlink(),
]


@pytest.mark.parametrize(
    # 280 damages every batch of a segment: its index is then rightly empty, and was called wrong.
    # 1817 takes the last segment and the end of the one before it, which was called a torn tail.
    "seed",
    [*range(60), 280, 1817],
)
def test_whatever_is_damaged_nothing_else_is_lost(log: Path, seed: int) -> None:
    """One or two files, any damage: what is served is right, a repair loses none of it, and what
    is not as it was before is kept."""
    rnd = random.Random(seed)
    journal(log, "groups")
    for _ in range(rnd.choice((1, 2))):
        path = log / rnd.choice([n for n in names(log) if n != "producers"])
        if path.stat().st_size:
            rnd.choice(DAMAGES)(rnd, path)
    damaged = {name: (log / name).read_bytes() for name in names(log)}
    try:
        report = repair_log(str(log))
    except UnknownFormat:
        return  # a flip made a version of it that might exist
    now = {name: (log / name).read_bytes() for name in names(log)}
    for name, content in damaged.items():
        if name != "producers" and now.get(name, b"").rstrip(b"\0") != content.rstrip(b"\0"):
            kept = [one for one in report.kept if one.startswith(name + ".damaged")]
            assert kept or name == "control", (seed, name)
            assert all(now[one] == content for one in kept), (seed, name)
    found = verified(log)
    assert found.notes == [] or "waits for" in " ".join(found.notes), (seed, report)
    reader = LogReader(str(log))
    served = reader.batches(reader.first_available)
    reader.close()
    served.close()
    again = repair_log(str(log))
    assert again.done == [], (seed, report)
    if found.is_whole:
        last = control_words(log)[1]
        assert stored_events(str(log), control_words(log)[0]) == {
            n: EVENTS[n] for n in range(control_words(log)[0], last + 1)
        }


class MortalFiles(KeepingFiles, KillingFiles):
    """Keeps copies, and dies at a call."""

    def __init__(self, at: int) -> None:
        KillingFiles.__init__(self, at, torn=True)
        KeepingFiles.__init__(self)


def tear(log: Path) -> Path:
    last = segment(log, -1)
    content = last.read_bytes()
    with open(last, "r+b") as file:
        file.seek(len(content.rstrip(b"\0")) + 8 & ~7)
        file.write(content[64 : 64 + 200])
    return last


def damage_all(log: Path) -> list[Path]:
    """Everything that can be mended without a loss, at once."""
    (log / index_name(bases(log)[0])).write_bytes(b"\xaa" * 100)
    flip(segment(log, 1), 20)
    flip(log / "control", 20)
    flip(log / "offsets", 12)
    journal(log, "dead")
    flip(log / "dead", 8)
    return [tear(log), segment(log, 1), *(log / name for name in ("control", "offsets", "dead"))]


@pytest.mark.parametrize(
    "each", [5, pytest.param(1, marks=pytest.mark.slow)], ids=["each fifth", "each"]
)
def test_a_repair_that_is_killed_at_any_call_loses_nothing(
    whole: Path, tmp_path: Path, each: int
) -> None:
    """And the next one ends what it began."""
    for at in count(1, each):
        log = tmp_path / str(at)
        shutil.copytree(whole, log)
        damaged = {path.name: path.read_bytes() for path in damage_all(log)}
        files = MortalFiles(at)
        try:
            report = repair_log(str(log), files)
        except Killed:
            files.bury()
        else:
            assert len(report.done) >= 6
            break
        repair_log(str(log))
        assert verified(log).problems == verified(log).notes == [], at
        assert stored_events(str(log)) == EVENTS, at
        assert positions(log) == {"audit": 30, "billing": 17}, at
        for name, content in damaged.items():
            copies = [path.read_bytes() for path in log.glob(f"{name}.damaged*")]
            assert content in [copy.ljust(len(content), b"\0") for copy in copies], (at, name)
        shutil.rmtree(log)
    assert at > 50


def test_the_door_that_keeps_copies_knows_what_it_made_itself(tmp_path: Path) -> None:
    files = KeepingFiles()
    path = str(tmp_path / "file")
    for content in (b"first", b"second"):
        descriptor = files.create(path)
        files.write(descriptor, [content], 0)
        files.close(descriptor)
    assert files.copies == {}
