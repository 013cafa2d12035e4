"""`docs/format.md`: its tables and vectors are those of the code, and a reader was written from it.

The reader is a program of another language that knows nothing but that page. It reads the same logs
as this package, also while a writer is at work.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import threading
import zlib
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import pytest

from eventlog import EventEnvelope, blocking
from eventlog.checksum import crc32c
from eventlog.event.batch_builder import BatchBuilder
from eventlog.event.ids import id_after
from eventlog.event.record_batch import PackedBatch, key_hash
from eventlog.local.storage import control
from eventlog.local.storage.formats import format, offset_format  # noqa: A004 - its name
from eventlog.local.storage.formats.format import pack_batch_header
from eventlog.testing import open_storage
from tests.commands import out

ROOT: Final = Path(__file__).parents[1]
DOCUMENT: Final = (ROOT.parent / "docs" / "format.md").read_text()
READER: Final = ROOT / "readers" / "reader.js"
EXPECTED: Final = ROOT / "readers" / "expected"
GOLDEN: Final = ROOT / "golden" / "v1"
NODE: Final = shutil.which("node")
LAYOUTS: Final = [
    control.CONTROL,
    format.SEGMENT_HEADER,
    format.BATCH_HEADER,
    format.INDEX_ENTRY,
    offset_format.HEADER,
    offset_format.SLOT,
]
BEGAN: Final = datetime.fromtimestamp(1_700_000_000, UTC)


def block(mark: str) -> str:
    """What stands in the document's block behind a mark."""
    found = re.search(rf"<!-- {mark} -->\n```\n(.*?)```", DOCUMENT, re.DOTALL)
    assert found is not None, mark
    return found[1]


# --- the document ---------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda one: one.name)
def test_the_document_has_the_tables_of_the_source(layout: Any) -> None:
    _, *rows = layout.table().splitlines()
    shown = [row.split(maxsplit=3) for row in block(f"layout: {layout.name}").splitlines()]
    assert shown == [row.split(maxsplit=3) for row in rows]


def test_the_vectors_of_the_document_are_right() -> None:
    vectors = block("vectors")

    def has(name: str, value: str) -> None:
        assert re.search(rf"{re.escape(name)}\s+{value}\n", vectors), name

    has('crc32c of "123456789"', f"{crc32c(b'123456789'):08x}")
    has('crc32 of "123456789"', f"{zlib.crc32(b'123456789'):08x}")
    has('key hash of "account-7"', f"{key_hash('account-7'):08x}")
    found = re.search(r"base (\w+), row 1, ns (\d+)\s+(\w+)", vectors)
    assert found is not None
    assert id_after(bytes.fromhex(found[1]), 1, int(found[2])).hex() == found[3]


def test_the_batch_of_the_document_is_what_a_writer_stores() -> None:
    builder = BatchBuilder(4096)
    builder.add(
        EventEnvelope(
            {"a": [1, "x"]},
            id=UUID("018bcfe5-6800-7ffe-bfff-ffffffffffff"),
            timestamp=BEGAN,
            key="k",
            headers={"h": "v"},
            not_before=BEGAN + timedelta(seconds=1),
        )
    )
    packed = builder.build()
    numbers = {"base_seq_no": 1, "producer_id": 0, "producer_seq": 0, "epoch": 1}
    header = pack_batch_header(packed, append_time_ns=1_700_000_000_000_000_000, **numbers)
    assert bytes.fromhex(block("batch").replace("\n", "")) == header + packed.payload


def test_a_reader_is_short() -> None:
    assert len(READER.read_text().splitlines()) < 300


# --- the reader in another language ---------------------------------------------------------------


@pytest.fixture
def node() -> str:
    """The program that runs the reader; a machine without it is no failure, but for the CI's."""
    if NODE is None:
        if os.environ.get("CI"):
            pytest.fail("node is missing, which runs the reader of another language")
        pytest.skip("there is no node, which runs the reader of another language")
    return NODE


def read_by(node: str, directory: Path, *numbers: int) -> tuple[list[Any], dict[str, Any]]:
    """The events that the reader prints, and what it says last."""
    done = subprocess.run(
        [node, str(READER), str(directory), *map(str, numbers)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    *events, end = map(json.loads, done.stdout.splitlines())
    return events, end


def refused_by(node: str, directory: Path) -> tuple[list[Any], str]:
    """The events that it prints before it refuses one, and what it says then."""
    done = subprocess.run(
        [node, str(READER), str(directory)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 3, done.stderr
    return list(map(json.loads, done.stdout.splitlines())), done.stderr


def exported(directory: Path) -> list[Any]:
    """What this package reads."""
    return list(map(json.loads, out("export", str(directory)).splitlines()))


@pytest.mark.parametrize("name", ["orderly", "killed", "causes", "due", "groups"])
def test_golden_logs_hold_what_their_expected_files_say(name: str) -> None:
    wanted = [json.loads(line) for line in (EXPECTED / f"{name}.jsonl").read_text().splitlines()]
    assert exported(GOLDEN / name) == wanted


@pytest.mark.parametrize("name", ["orderly", "killed", "causes", "due", "groups"])
def test_another_language_reads_the_golden_logs(node: str, name: str) -> None:
    events, _ = read_by(node, GOLDEN / name)
    wanted = [json.loads(line) for line in (EXPECTED / f"{name}.jsonl").read_text().splitlines()]
    assert events == wanted


def test_another_language_reads_every_kind_of_event_and_position(node: str, tmp_path: Path) -> None:
    import array

    log = open_storage(str(tmp_path / "log"), segment_bytes=8192)
    events: list[Any] = [
        *(0, 127, 128, 255, 256, 65_536, 2**32, 2**64 - 1, -1, -32, -33, -128, -129, -(2**31)),
        *(-(2**63), 1.5, float("inf"), float("-inf"), float("nan"), True, False, None),
        *("", "a" * 31, "ü" * 40, "x" * 300, "🎈"),
        *(b"", b"a" * 300, [], list(range(20)), {}, {"a": {str(n): n for n in range(20)}}),
        *({1: 2}, {"$a": 1}, UUID(int=7), BEGAN, datetime(1969, 1, 1, 0, 0, 0, 5, UTC)),
        *(datetime(2600, 1, 1, tzinfo=UTC), array.array("d", [1.5, 2.5])),
    ]
    for number, event in enumerate(events):
        key = f"key {number}" if number % 3 == 0 else None
        headers = {"n": str(number)} if number % 4 == 0 else None
        log.append(batch_of_one(event, key, headers))
    log.append(batch_of_many(300))
    log.ack("reader", 17)
    log.seek("читатель", 3)
    for position in (5, 9):
        log.ack("with a state", position, b"state")
    log.close()
    found, end = read_by(node, tmp_path / "log")
    assert found == exported(tmp_path / "log")
    assert end["positions"] == {"reader": 17, "читатель": 3, "with a state": 9}
    part, _ = read_by(node, tmp_path / "log", 30, 50)
    assert part == found[29:50]


def batch_of_one(event: Any, key: str | None, headers: dict[str, str] | None) -> PackedBatch:
    builder = BatchBuilder(1 << 20)
    builder.add(event, key, headers)
    return builder.build()


def batch_of_many(count: int) -> PackedBatch:
    builder = BatchBuilder(1 << 20)
    for number in range(count):
        builder.add(number)
    return builder.build()


def test_another_language_refuses_damage_and_what_it_does_not_know(
    node: str, tmp_path: Path
) -> None:
    log = open_storage(str(tmp_path / "log"), segment_bytes=8192)
    for number in range(3):
        log.append(batch_of_one(number, None, None))
    log.close()
    [segment] = (tmp_path / "log").glob("*.seg")
    whole = bytearray(segment.read_bytes())
    size = (int.from_bytes(whole[64 + 4 : 64 + 8], "little") + 7) // 8 * 8
    second = 64 + size

    def changed(at: int, value: int, *, mends: bool) -> None:
        data = bytearray(whole)
        data[second + at] = value
        if mends:
            length = int.from_bytes(data[second + 4 : second + 8], "little")
            sum_of = crc32c(bytes(data[second + 4 : second + length]))
            data[second : second + 4] = sum_of.to_bytes(4, "little")
        segment.write_bytes(data)

    changed(64, 0x00, mends=False)
    events, said = refused_by(node, tmp_path / "log")
    assert [one["event"] for one in events] == [0]
    assert "event 2: its checksum" in said
    changed(44, 0x40, mends=True)
    _, said = refused_by(node, tmp_path / "log")
    assert "event 2: flags 64" in said
    segment.write_bytes(whole)
    page = bytearray((tmp_path / "log" / "control").read_bytes())
    page[8] = 2
    (tmp_path / "log" / "control").write_bytes(page)
    assert "format version 2" in refused_by(node, tmp_path / "log")[1]


@pytest.fixture
def busy(tmp_path: Path) -> Iterator[blocking.EventLog]:
    """A log that somebody appends to, batches of all sizes, with keys and times, all the time."""
    is_over = threading.Event()

    def work() -> None:
        with blocking.open(tmp_path / "log") as log:
            number = 0
            while not is_over.is_set():
                number += 1
                later = (
                    EventEnvelope({"n": number}, not_before=BEGAN) if number % 5 == 0 else number
                )
                log.append(later, key=f"key {number % 7}" if number % 2 else None)
                log.append_many([{"n": number, "text": "x" * (number % 300)}] * (number % 20 + 1))
                log.ack("reader", number)

    with blocking.open(tmp_path / "log", segment_bytes=1 << 16) as log:
        thread = threading.Thread(target=work)
        thread.start()
        try:
            yield log
        finally:
            is_over.set()
            thread.join()


def test_another_language_reads_a_log_that_is_written_meanwhile(
    node: str, busy: blocking.EventLog
) -> None:
    seen = 0
    for _ in range(2):
        while (busy.last_seq_no() or 0) < seen + 300:
            busy.synced()
        seen = busy.last_seq_no() or 0
        start = seen - 250
        events, end = read_by(node, Path(busy.path), start)
        assert end["high_water"] >= seen
        assert [one["seq_no"] for one in events] == list(range(start, end["high_water"] + 1))
        lines = out("export", busy.path, "--from", str(start), "--to", str(end["high_water"]))
        assert events == list(map(json.loads, lines.splitlines()))


def test_it_needs_nothing_of_this_package() -> None:
    """What it requires is what comes with the language."""
    assert set(re.findall(r'require\("(\w+)"\)', READER.read_text())) == {"fs", "path"}
