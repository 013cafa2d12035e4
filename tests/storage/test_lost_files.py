"""Files of a log that are lost while nobody looks: each is said, and no event is passed over.

Without its first segment a log was "whole" after the next start: the segment that was there counted
as the first one that retention had left. Without `offsets` or `groups`, empty ones were made, and
nobody was told; nor when segments were put back that were older than the positions.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from eventlog import CorruptLog, Retention, blocking
from eventlog.api.positions import SeekPosition
from eventlog.local.storage.journal import DEAD_NAME, GROUPS_NAME
from eventlog.local.storage.log.writable import WritableLog
from eventlog.local.storage.reading.reader import LogReader
from eventlog.local.storage.starting import start
from eventlog.local.storage.starting.missing import missing_files
from eventlog.local.writer.__main__ import describe
from eventlog.testing import batch_of, open_storage, stored_events
from eventlog.tools.doctor.examine import examine
from eventlog.tools.repair import repair_log
from eventlog.tools.verify import verify_log
from tests.writer.test_writer_process import stop_writer_of

SMALL: dict[str, Any] = {"segment_bytes": 4096, "max_event_bytes": 2048}
EVENTS = 12


@pytest.fixture
def directory(tmp_path: Path) -> str:
    """A log of six segments of two events, and a consumer at event 10."""
    place = str(tmp_path / "log")
    log = open_storage(place, **SMALL)
    fill(log, EVENTS)
    log.ack("c", 10)
    log.close()
    return place


def fill(log: WritableLog, count: int) -> None:
    for _ in range(count):
        log.append(batch_of(bytes(1900)))


def segments(directory: str) -> list[Path]:
    return sorted(path for path in Path(directory).iterdir() if path.suffix == ".seg")


def problems(directory: str) -> list[str]:
    log = LogReader(directory)
    try:
        return verify_log(log).problems
    finally:
        log.close()


def said(directory: str, about: str, level: str) -> list[str]:
    return [one.what for one in examine(directory) if (one.about, one.level) == (about, level)]


@pytest.mark.parametrize("count", [1, 2, 5])
@pytest.mark.parametrize("ends_orderly", [True, False])
def test_the_first_segments_are_missed_also_after_a_start_and_an_append(
    directory: str, count: int, ends_orderly: bool
) -> None:
    for path in segments(directory)[:count]:
        path.unlink()
    log = open_storage(directory)
    assert [describe(one, log.last_seq_no) for one in log.damages] == [
        f"the events 1 to {2 * count} are damaged and not served: their segments are missing"
    ]
    assert log.append(batch_of("next")) == EVENTS + 1
    if ends_orderly:
        log.close()
    else:
        log.abandon()
    with pytest.raises(CorruptLog) as caught:
        stored_events(directory)
    assert (caught.value.seq_no, caught.value.last_seq_no) == (1, 2 * count)
    assert list(stored_events(directory, 2 * count + 1)) == list(range(2 * count + 1, EVENTS + 2))
    assert any(f"events 1 to {2 * count} " in text for text in problems(directory))
    assert any(
        "segment of event 1 is missing" in one for one in said(directory, "files", "problem")
    )


def test_all_segments_are_missed(directory: str) -> None:
    for path in segments(directory):
        path.unlink()
    log = open_storage(directory)
    assert log.append(batch_of("next")) == EVENTS + 1
    log.close()
    with pytest.raises(CorruptLog) as caught:
        stored_events(directory)
    assert (caught.value.seq_no, caught.value.last_seq_no) == (1, EVENTS)
    assert list(stored_events(directory, EVENTS + 1)) == [EVENTS + 1]


def test_what_retention_deleted_is_not_missed(tmp_path: Path) -> None:
    directory = str(tmp_path / "log")
    log = open_storage(directory, retention=Retention(max_bytes=3 * 4096), **SMALL)
    fill(log, EVENTS)
    log.close()
    log = open_storage(directory)
    assert log.damages == []
    assert log.control.first_available > 1
    log.close()
    assert problems(directory) == []


def test_retention_passes_what_is_missing(tmp_path: Path) -> None:
    directory = str(tmp_path / "log")
    log = open_storage(directory, retention=Retention(max_bytes=8 * 4096), **SMALL)
    fill(log, EVENTS)
    log.close()
    segments(directory)[0].unlink()
    log = open_storage(directory)
    fill(log, EVENTS)
    log.close()
    assert problems(directory) == []


def test_after_a_reboot_a_log_in_memory_begins_with_what_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Its marks were never synced, so that they do not say what retention had deleted.
    directory = str(tmp_path / "log")
    log = open_storage(directory, durability="memory", **SMALL)
    fill(log, EVENTS)
    log.close()
    segments(directory)[0].unlink()
    monkeypatch.setattr(start, "boot_id", lambda: "another boot")
    log = open_storage(directory)
    assert log.control.first_available == 3
    log.abandon()


def test_a_repair_says_which_events_are_missing(directory: str) -> None:
    segments(directory)[0].unlink()
    assert any("events 1 to 2" in one for one in repair_log(directory).lost)
    assert any("events 1 to 2 " in text for text in problems(directory))


# --- the other files -------------------------------------------------------------------------


def test_a_missing_offset_table_is_said_before_and_at_the_start(directory: str) -> None:
    os.unlink(os.path.join(directory, "offsets"))
    assert any("'offsets' is missing" in text for text in problems(directory))
    assert any("'offsets' is missing" in one for one in said(directory, "files", "problem"))
    log = open_storage(directory)
    assert [one for one in log.warnings if "'offsets' is missing" in one]
    log.close()


def test_a_log_without_groups_or_positions_misses_nothing(tmp_path: Path) -> None:
    directory = str(tmp_path / "log")
    log = open_storage(directory, **SMALL)
    assert log.warnings == []
    log.abandon()
    assert problems(directory) == []


@pytest.mark.parametrize(
    ("names", "epoch", "missing"),
    [
        ({"control"}, 0, []),
        ({"control"}, 1, ["'offsets'"]),
        ({"offsets"}, 1, []),
        ({"offsets", "groups"}, 1, []),
        ({"offsets", "groups", "dead"}, 1, []),
        ({"offsets", "groups", "dead", "members"}, 1, []),
        ({"offsets", "groups", "members"}, 1, ["'dead'"]),
        ({"offsets", "dead", "members"}, 1, ["'groups'"]),
        ({"members"}, 1, ["'offsets'", "'groups'", "'dead'"]),
    ],
)
def test_what_is_missing_is_known_by_what_is_there(
    names: set[str], epoch: int, missing: list[str]
) -> None:
    found = missing_files(names, epoch)
    assert len(found) == len(missing)
    assert all(name in text for name, text in zip(missing, found, strict=True))


def test_the_writer_tells_which_files_were_missing(tmp_path: Path) -> None:
    path = str(tmp_path / "log")
    with blocking.open(path) as log:
        log.append(1)
        log.ack("c", 1)
        with log.group("g"):
            pass
    stop_writer_of(path)
    assert {GROUPS_NAME, DEAD_NAME} <= set(os.listdir(path))
    os.unlink(os.path.join(path, GROUPS_NAME))
    os.unlink(os.path.join(path, "offsets"))
    with blocking.open(path) as log:
        log.append(2)
    stop_writer_of(path)
    lines = Path(path, "writer.log").read_text()
    assert "the file 'offsets' is missing" in lines
    assert "the file 'groups' is missing" in lines
    assert any("'groups' is missing" in one for one in said(path, "writer", "note"))


# --- an older copy ---------------------------------------------------------------------------


@pytest.fixture
def restored(directory: str) -> str:
    """The log with all files but `offsets` from a copy that was made at event 12."""
    copy = directory + ".copy"
    shutil.copytree(directory, copy)
    log = open_storage(directory)
    fill(log, 6)
    log.ack("c", 17)
    log.ack("other", 3)
    log.close()
    shutil.copy(os.path.join(directory, "offsets"), copy)
    shutil.rmtree(directory)
    os.rename(copy, directory)
    return directory


def test_positions_that_are_newer_than_the_events_are_a_warning_with_a_command(
    restored: str,
) -> None:
    (warning,) = said(restored, "consumers", "warning")
    assert "'c' waits for event 18, and the last one is 12" in warning
    (finding,) = [one for one in examine(restored) if one.what == warning]
    assert finding.do is not None
    assert f"eventlog seek {{log}} 'c' {EVENTS + 1}" in finding.do
    log = open_storage(restored)
    (warning,) = log.warnings
    assert f"eventlog seek {restored} 'c' {EVENTS + 1}" in warning
    log.close()


def test_that_command_helps(restored: str) -> None:
    log = open_storage(restored)
    log.seek("c", EVENTS)
    log.append(batch_of("next"))
    log.close()
    reader = LogReader(restored)
    assert reader.resolve(SeekPosition.LAST_ACKNOWLEDGED, "c") == EVENTS + 1
    reader.close()
    log = open_storage(restored)
    assert log.warnings == []
    log.close()
