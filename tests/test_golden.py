"""Logs that were written once, by the first release of their format: read, continued, pinned."""

from __future__ import annotations

import runpy
import shutil
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import pytest

from eventlog.envelope import EventEnvelope
from eventlog.record_batch import key_hash
from eventlog.storage.control import ControlPage
from eventlog.storage.reader import LogReader, read_range
from eventlog.storage.recovery import Damage
from eventlog.testing import batch_of, open_storage

GOLDEN: Final = Path(__file__).parent / "golden"
V1: Final = GOLDEN / "v1"
LAST: Final = 24


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
