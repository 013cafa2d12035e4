"""Logs that were written once, by the first release of their format: read, continued, pinned."""

from __future__ import annotations

import runpy
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import pytest
from crc32c import crc32c

from eventlog import blocking
from eventlog.demo.main_job import stop_process
from eventlog.errors import CorruptLog, UnknownFormat
from eventlog.event.cause import Cause
from eventlog.event.envelope import EventEnvelope
from eventlog.event.record_batch import FLAG_CAUSED, FLAG_KEYED, key_hash
from eventlog.local.groups.stored import read_dead_letters, read_groups
from eventlog.local.storage.control import ControlPage
from eventlog.local.storage.formats.recovery import Damage
from eventlog.local.storage.reading.ranges import read_range
from eventlog.local.storage.reading.reader import LogReader
from eventlog.testing import batch_of, open_storage
from eventlog.tools.repair import repair_log
from tests.commands import out
from workers.blocking import Pool

GOLDEN: Final = Path(__file__).parents[1] / "golden"
V1: Final = GOLDEN / "v1"
LAST: Final = 24
RESULT_IDS: Final = ["018df4d8-0853-7482-a0b6-1d8e07f2947c", "018df4d8-0853-7ca9-a331-7803a9028b36"]
"""Worked out by hand from the description in `eventlog.event.results`."""


@pytest.fixture(scope="module")
def maker() -> dict[str, Any]:
    """The script that wrote them: its functions and constants."""
    return runpy.run_path(str(GOLDEN / "make.py"))


@pytest.fixture(params=["orderly", "killed"])
def copied(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    directory = tmp_path / "log"
    shutil.copytree(V1 / request.param, directory)
    return directory


def envelopes_in(directory: Path) -> dict[int, EventEnvelope]:
    log = LogReader(str(directory))
    try:
        found = [one for batch in read_range(log, 0, None) for one in batch]
    finally:
        log.close()
    return {one.seq_no: one for one in found if one.seq_no is not None}


def check_content(directory: Path, maker: dict[str, Any]) -> None:
    found = envelopes_in(directory)
    assert list(found)[:LAST] == list(range(1, LAST + 1))
    odd = maker["ODD"]
    assert [found[n].event for n in range(1, len(odd) + 1)] == odd
    keyed, plain, headed, own, made = (found[len(odd) + n] for n in range(1, 6))
    assert (keyed.event, keyed.key, keyed.headers) == ("keyed", "key", None)
    assert (plain.event, plain.key, plain.headers) == ("plain", None, None)
    assert (headed.event, headed.key, headed.headers) == ("headed", None, {"h": "v"})
    assert (own.event, own.id, own.timestamp) == ("own id", UUID(int=5), maker["MOMENT"])
    assert own.key == "own key"
    assert made.id.version == 7
    assert [found[n].event[0] for n in range(17, LAST + 1)] == list("01234567")


def test_a_golden_log_is_read_without_a_writer(copied: Path, maker: dict[str, Any]) -> None:
    check_content(copied, maker)
    log = LogReader(str(copied))
    states = {state.name: (state.last_acked, state.lag) for state in log.consumers()}
    assert states == {"reader": (17, LAST - 17), "читатель": (3, LAST - 3)}
    assert log.find_time(maker["START_NS"]) == 1
    assert (log.options.segment_bytes, log.options.durability) == (4096, "disk")
    assert log.control.log_id == bytes(range(1, 17))
    log.close()


def test_a_golden_log_is_continued(copied: Path, maker: dict[str, Any]) -> None:
    control = ControlPage(str(copied))
    was_killed = control.writer_pid != 0
    control.close()
    log = open_storage(str(copied))
    torn = [Damage(LAST + 1, None, "a batch with a wrong checksum")]
    assert log.damages == (torn if was_killed else [])
    for count in range(1, 11):  # what its producer repeats is known
        assert log.append(batch_of("again"), maker["PRODUCER"], count) <= LAST
    assert log.append(batch_of("continued")) == LAST + 1
    log.ack("reader", LAST + 1)
    assert log.control.epoch == 2
    log.close()
    check_content(copied, maker)
    assert envelopes_in(copied)[LAST + 1].event == "continued"


def test_todays_code_writes_the_same_bytes(tmp_path: Path, maker: dict[str, Any]) -> None:
    maker["make"](tmp_path)
    for path in sorted(V1.rglob("*")):
        if path.is_file():
            written = tmp_path / path.relative_to(V1)
            assert written.read_bytes() == path.read_bytes(), path.name
    names = {path.relative_to(tmp_path) for path in tmp_path.rglob("*")}
    assert names == {path.relative_to(V1) for path in V1.rglob("*")}


def test_a_golden_log_has_its_states(tmp_path: Path) -> None:
    wanted = [
        ("moved on", 8, None),
        ("plain", 9, None),
        ("reader", 7, bytes(range(256))),
        ("читатель", 4, "состояние".encode()),
    ]
    log = LogReader(str(V1 / "states"))
    assert [(one.name, one.last_acked, one.state) for one in log.consumers()] == wanted
    log.close()
    shutil.copytree(V1 / "states", tmp_path / "log")
    continued = open_storage(str(tmp_path / "log"))
    continued.ack("reader", 8, b"eight")
    found = [(one.name, one.position, one.state) for one in continued.offsets.all()]
    assert found == [*wanted[:2], ("reader", 8, b"eight"), wanted[3]]
    continued.close()


def test_a_golden_log_has_its_causes(maker: dict[str, Any]) -> None:
    found = envelopes_in(V1 / "causes")
    resize = [Cause(UUID(int=1), 7, "resize")] * 2
    assert [one.event for one in found.values()] == [
        *("plain", "first", "second", "own", "plain", "without")
    ]
    assert [one.cause for one in found.values()] == [
        *(None, *resize, maker["OTHER_CAUSE"], None, None)
    ]
    assert [one.key for one in found.values()] == [None, "ключ", "ключ", None, None, None]
    assert [str(found[n].id) for n in (2, 3)] == RESULT_IDS


def test_a_release_that_knows_no_causes_refuses_them_and_reads_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(V1 / "causes", tmp_path / "log")
    monkeypatch.setattr("eventlog.local.storage.formats.format.FLAGS_KNOWN", FLAG_KEYED)
    log = LogReader(str(tmp_path / "log"))
    with pytest.raises(CorruptLog, match=r"events 1 to 5 .*unknown flags \(0x3\)"):
        list(read_range(log, 1, None))
    [[last]] = read_range(log, 6, None)
    assert last.event == "without"
    log.close()


def test_a_golden_log_has_its_due_times(maker: dict[str, Any]) -> None:
    found = envelopes_in(V1 / "due")
    due, end = maker["DUE"], maker["END"]
    assert [(one.event, one.not_before, one.expires) for one in found.values()] == [
        ("before", None, None),
        ("later", due, None),
        ("plain", None, None),
        ("both", due, end),
        ("after", None, None),
    ]
    control = ControlPage(str(V1 / "due"))
    assert (control.due_from, control.due_to) == (2, 4)
    control.close()


def test_a_release_that_knows_no_due_times_refuses_them_and_reads_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(V1 / "due", tmp_path / "log")
    monkeypatch.setattr(
        "eventlog.local.storage.formats.format.FLAGS_KNOWN", FLAG_KEYED | FLAG_CAUSED
    )
    log = LogReader(str(tmp_path / "log"))
    with pytest.raises(CorruptLog, match=r"events 2 to 4 .*unknown flags \(0x5\)"):
        list(read_range(log, 1, None))
    [[last]] = read_range(log, 5, None)
    assert last.event == "after"
    log.close()


# --- the rule for versions, as `storage.formats.format` has it -------------------------------


@pytest.fixture(params=["orderly", "killed", "causes", "due", "groups"])
def in_use(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Path, int]]:
    """A copy of a golden log, and the number of its last event; its writer is ended afterwards."""
    directory = tmp_path / "log"
    shutil.copytree(V1 / request.param, directory)
    log = LogReader(str(directory))
    last = log.last_seq_no
    log.close()
    yield directory, last
    with blocking.open(directory) as opened:
        pid = opened.status().writer_pid
    assert pid is not None
    stop_process(pid)


def test_every_command_goes_on_with_a_golden_log(in_use: tuple[Path, int], tmp_path: Path) -> None:
    directory, last = in_use
    path = str(directory)
    assert "whole" in out("verify", path)
    before = out("export", path).splitlines()
    assert len(before) == last
    assert out("append", path, given='{"new": 1}\n') == f"{last + 1}\n"
    assert "whole" in out("verify", path)
    assert out("export", path).splitlines()[:-1] == before
    out("backup", path, str(tmp_path / "copy"))
    assert out("export", str(tmp_path / "copy")).splitlines()[:-1] == before
    assert "whole" in out("verify", "--repair", str(tmp_path / "copy"))


def test_a_golden_group_goes_on_where_it_was(tmp_path: Path) -> None:
    directory = tmp_path / "log"
    shutil.copytree(V1 / "groups", directory)
    (group,) = read_groups(directory)
    assert (group.name, group.ordering, group.max_deliveries) == ("группа", "key", 3)
    assert (group.position, group.lag, group.in_flight, group.dead_letters) == (4, 6, 1, 1)
    (letter,) = read_dead_letters(directory)
    assert (letter.seq_no, letter.event, letter.error) == (4, "text", "ValueError: 1")
    pid = None
    try:
        with blocking.open(directory) as log:
            pid = log.status().writer_pid
            with Pool(log, group="группа", handler=abs, ordering="key", max_deliveries=3) as pool:
                pool.drained()
        (group,) = read_groups(directory)
        assert (group.position, group.lag) == (10, 0)
    finally:
        if pid is not None:
            stop_process(pid)


def with_version(path: Path, version: int, crc_at: int | None) -> None:
    content = bytearray(path.read_bytes())
    content[8:10] = version.to_bytes(2, "little")
    if crc_at is not None:
        content[crc_at : crc_at + 4] = crc32c(content[:crc_at]).to_bytes(4, "little")
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("name", "crc_at"),
    [
        ("control", 44),
        ("00000000000000000001.seg", 60),
        ("offsets", None),
        ("groups", None),
        ("dead", None),
    ],
)
def test_a_version_that_is_not_known_is_named_and_nothing_is_touched(
    tmp_path: Path, name: str, crc_at: int | None
) -> None:
    directory = tmp_path / "log"
    shutil.copytree(V1 / "groups", directory)
    with_version(directory / name, 3, crc_at)
    before = {path.name: path.read_bytes() for path in directory.iterdir()}
    with pytest.raises(UnknownFormat, match="version 3"):
        read_all(directory)
    with pytest.raises(UnknownFormat, match="version 3"):
        blocking.open(directory).append(1)
    if crc_at is not None:  # of the others it cannot be told from damage
        with pytest.raises(UnknownFormat, match="version 3"):
            repair_log(str(directory))
    for path in directory.iterdir():
        if path.name in ("control", name) or path.suffix == ".seg":
            assert (
                path.read_bytes()[: 64 if path.name != name else None]
                == (before[path.name][: 64 if path.name != name else None])
            )


def read_all(directory: Path) -> None:
    """What needs no writer."""
    envelopes_in(directory)
    log = LogReader(str(directory))
    try:
        log.consumers()
    finally:
        log.close()
    read_groups(directory)
    read_dead_letters(directory)


@pytest.mark.parametrize("place", [52, 48, 59])
def test_what_is_in_reserve_may_be_used_by_a_later_minor_addition(
    tmp_path: Path, maker: dict[str, Any], place: int
) -> None:
    """A reserved byte that is set changes nothing for a program that does not know it."""
    directory = tmp_path / "log"
    shutil.copytree(V1 / "orderly", directory)
    for path in directory.glob("*.seg"):
        content = bytearray(path.read_bytes())
        content[place] = 7
        content[60:64] = crc32c(content[:60]).to_bytes(4, "little")
        path.write_bytes(content)
    check_content(directory, maker)


PINNED: Final = {
    ("00000000000000000001.seg", 0, 64): """
        45564c4f47534547 01000201 40004000 0100000000000000 0010000000000000
        0100000000000000 00002a36fe9c9717 000000000000000000000000 e0d68223""",
    ("00000000000000000001.seg", 68, 60): """
        16010000 0100000000000000 00ca c471fe9c9717 0000000000000000
        0000000000000000 0b000000 0000 4000 01000000 00000000 0000000000000000""",
    ("00000000000000000001.idx", 0, 20): """
        0100000000000000 00cac471fe9c9717 40000000""",
    ("control", 0, 40): """
        45564c4f4743544c 01000201 71000000 0102030405060708090a0b0c0d0e0f10
        00002a36fe9c9717""",
    ("control", 64, 56): """
        1800000000000000 1800000000000000 0100000000000000 0100000000000000
        0000000000000000 0903000000000000 3030303030303030""",
    ("offsets", 0, 16): "45564c4f474f4646 01000201 40020000",
    ("offsets", 64, 32): """
        0100000000000000 1100000000000000 000ca178019d9717 06000000 a069d967""",
    ("offsets", 128, 8): "7265616465720000",
    ("producers", 0, 8): "45564c4f47505244",
}


@pytest.mark.parametrize("place", PINNED, ids=lambda place: f"{place[0]}-{place[1]}")
def test_the_bytes_are_where_the_documentation_says(place: tuple[str, int, int]) -> None:
    """Typed by hand, so that no layout can change together with what reads it."""
    name, start, size = place
    content = (V1 / "orderly" / name).read_bytes()[start : start + size]
    assert content.hex(" ") == bytes.fromhex(PINNED[place]).hex(" ")


def test_the_hash_of_a_key_never_changes() -> None:
    assert key_hash("123456789") == 0xCBF43926  # the check value of every table of CRCs
    assert key_hash(None) == 0
    assert key_hash("") == 0
