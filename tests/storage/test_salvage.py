"""After a failed sync: the note, the copies, and who has the old files open."""

from __future__ import annotations

import errno
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from eventlog import blocking
from eventlog.errors import EventLogError, StorageFailed
from eventlog.local import rendezvous
from eventlog.local.groups.stored import read_dead_letters
from eventlog.local.storage.control import ControlPage
from eventlog.local.storage.identity import boot_id, boot_word
from eventlog.local.storage.log.writable import WritableLog
from eventlog.local.storage.reading.reader import LogReader
from eventlog.local.storage.segment import SegmentReader
from eventlog.local.storage.starting.salvage import doubtful
from eventlog.local.wire.messages import Append, Appended, Failed, error_of
from eventlog.testing import FailingFiles, batch_of, open_storage, stored_events
from tests.faults.disk import PowerCuts
from tests.faults.histories import booted
from tests.faults.recorder import ForgetfulFiles, arena, materialise
from tests.groups.world import M1, Member, Peer, World
from tests.writer.test_writer_process import ENVIRONMENT, stop_writer_of

SEGMENT_BYTES = 4096
NEVER = 10**9


@pytest.fixture
def directory() -> Iterator[str]:
    with arena() as place:
        yield place


@pytest.fixture
def path(tmp_path: Path) -> Iterator[str]:
    """Where a log may be made; its writer is ended after the test."""
    place = str(tmp_path / "log")
    yield place
    stop_writer_of(place)


def fail_sync(log: WritableLog) -> None:
    """A sync of the log fails, and its writer ends."""
    log.fail(StorageFailed("the disk is ill", path=log.directory))
    log.close()


def inodes(directory: str) -> dict[str, int]:
    return {path.name: path.stat().st_ino for path in Path(directory).iterdir()}


def note_of(directory: str) -> int:
    control = ControlPage(directory)
    try:
        return control.sync_failed
    finally:
        control.close()


def sync(log: WritableLog) -> None:
    work = log.begin_sync()
    work.run()
    log.finish_sync(work)


# --- which files -----------------------------------------------------------------------------

NAMES = [f"{base:020}.seg" for base in (1, 4, 9)]


@pytest.mark.parametrize(
    ("synced", "expected"),
    [(0, NAMES), (2, NAMES), (3, NAMES[1:]), (7, NAMES[1:]), (8, NAMES[2:]), (99, NAMES[2:])],
)
def test_segments_with_events_past_the_mark_are_in_doubt_and_the_last_one(
    synced: int, expected: list[str]
) -> None:
    others = ["control", f"{1:020}.idx", "groups", "members", "offsets", "producers", "x.new"]
    found = doubtful([*others, *NAMES], synced)
    assert found == ["groups", *expected, "offsets"]


def test_a_log_without_a_segment_has_little_in_doubt() -> None:
    assert doubtful(["control"], 0) == []
    assert doubtful(["control", "dead", "offsets"], 7) == ["dead", "offsets"]


def test_only_a_failed_sync_makes_a_start_copy(directory: str) -> None:
    log = open_storage(directory, segment_bytes=SEGMENT_BYTES)
    log.append(batch_of(1))
    log.abandon()
    before = inodes(directory)
    open_storage(directory).abandon()
    assert inodes(directory) == before
    log = open_storage(directory)
    fail_sync(log)
    assert note_of(directory) == boot_word(boot_id())
    open_storage(directory).abandon()
    after = inodes(directory)
    assert {name for name in before if after[name] != before[name]} == {
        f"{1:020}.seg",
        "offsets",
    }
    assert note_of(directory) == 0
    assert os.stat(os.path.join(directory, f"{1:020}.seg")).st_size == SEGMENT_BYTES


@pytest.mark.parametrize(("durability", "boot"), [("memory", ""), ("disk", "another")])
def test_the_note_means_nothing_in_memory_or_after_a_reboot(
    directory: str, durability: str, boot: str
) -> None:
    log = open_storage(directory, segment_bytes=SEGMENT_BYTES, durability=durability)
    log.append(batch_of(1))
    sync(log)
    fail_sync(log)
    before = inodes(directory)
    with booted(boot or boot_id()):
        open_storage(directory).abandon()
    after = inodes(directory)
    assert {name: after[name] for name in before} == before
    assert note_of(directory) == 0


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC], ids=errno.errorcode.get)
def test_a_salvage_that_fails_is_done_again(directory: str, number: int) -> None:
    kinds = ("open_read", "create", "allocate", "read", "write", "sync", "rename", "names")
    for at in range(1, 100):
        log = open_storage(directory, segment_bytes=SEGMENT_BYTES)
        last = log.append(batch_of("x" * 900))
        fail_sync(log)
        files = FailingFiles(number, (*kinds, "sync_directory"), at)
        try:
            open_storage(directory, files).abandon()
        except EventLogError:
            assert note_of(directory) in (0, boot_word(boot_id()))
        assert files.open_descriptors == set()
        if not files.has_failed:
            break
        assert max(stored_events(directory)) == last
    assert at > 15


def test_a_sync_that_fails_at_the_start_is_noted_too(directory: str) -> None:
    # The start after that found clean pages, and took the segments for synced.
    log = open_storage(directory, segment_bytes=SEGMENT_BYTES)
    for _ in range(7):
        log.append(batch_of("x" * 1800))
    log.abandon()
    with pytest.raises(StorageFailed):
        open_storage(directory, FailingFiles(errno.EIO, {"sync"}, 1))
    assert note_of(directory) == boot_word(boot_id())


def test_a_sync_that_fails_at_the_end_is_noted_too(directory: str) -> None:
    files = FailingFiles(errno.ENOSPC, {"sync"}, NEVER)
    log = open_storage(directory, files)
    log.append(batch_of(1))
    files.calls, files._at = 0, 1
    with pytest.raises(StorageFailed):
        log.close()
    assert note_of(directory) == boot_word(boot_id())


def test_a_full_disk_at_the_end_is_no_failed_sync(directory: str) -> None:
    # The next start would have to have room for copies.
    files = FailingFiles(errno.ENOSPC, {"create"}, NEVER)
    log = open_storage(directory, files)
    log.append(batch_of(1))
    files.calls, files._at = 0, 1
    with pytest.raises(EventLogError):
        log.close()
    assert note_of(directory) == 0


# --- who has the old files open --------------------------------------------------------------


@pytest.mark.parametrize("durable_only", [False, True])
@pytest.mark.parametrize("stored", [0, 1, 2, 3])
def test_a_reader_in_the_old_file_goes_on_in_the_copy(
    directory: str, stored: int, durable_only: bool
) -> None:
    # It looked for the next event where nobody writes any more, and took the log for damaged.
    log = open_storage(directory, segment_bytes=SEGMENT_BYTES)
    for number in range(1, stored + 1):
        log.append(batch_of(f"{number} " + "x" * 1200))
    sync(log)
    reader = LogReader(directory)
    batches = reader.batches(1, durable_only=durable_only)

    def read() -> list[int]:
        found = []
        while (batch := batches.next_batch()) is not None:
            found += [int(one.event.split()[0]) for one in batch.envelopes(directory)]
        return found

    assert read() == list(range(1, stored + 1))
    fail_sync(log)
    log = open_storage(directory)
    for number in range(stored + 1, stored + 8):
        assert log.append(batch_of(f"{number} " + "x" * 1200)) == number
        sync(log)
        if number != stored + 2:  # the reader is late once, and a roll comes in between
            assert read()[-1] == number
    assert batches.next_seq_no == log.last_seq_no + 1
    batches.close()
    reader.close()
    log.close()


def test_a_segment_knows_whether_a_copy_took_its_place(directory: str) -> None:
    log = open_storage(directory, segment_bytes=SEGMENT_BYTES)
    log.append(batch_of(1))
    segment = SegmentReader(directory, 1)
    found = [segment.is_replaced]
    fail_sync(log)
    open_storage(directory).close()
    found.append(segment.is_replaced)
    segment.close()
    assert found == [False, True]


def test_a_reader_of_positions_follows_to_the_new_table(directory: str) -> None:
    log = open_storage(directory)
    log.append(batch_of(*range(9)))
    log.ack("consumer", 3)
    reader = LogReader(directory)
    assert reader.position_of("consumer") == 3
    assert [state.last_acked for state in reader.consumers()] == [3]
    fail_sync(log)
    log = open_storage(directory)
    log.ack("consumer", 7)
    log.ack("another", 1)
    assert reader.position_of("consumer") == 7
    assert reader.position_of("another") == 1
    assert [state.last_acked for state in reader.consumers()] == [1, 7]
    log.close()
    os.unlink(os.path.join(directory, "offsets"))
    assert reader.position_of("consumer") == 7, "that of a deleted log is what it was"
    reader.close()


# --- groups ----------------------------------------------------------------------------------


def test_what_groups_did_is_on_the_disk_after_a_failed_sync(directory: str) -> None:
    # A second writer synced journals whose pages were clean: results were on the disk, and that
    # their events were done was not.
    found = 0
    for at in range(1, 100):
        shutil.rmtree(directory, ignore_errors=True)
        files = ForgetfulFiles(NEVER)
        with booted("first"):
            world = World(directory, files, segment_bytes=SEGMENT_BYTES)
            world.append(10)
            world.open_group()
            files.at = files.syncs + at
            try:
                _work(world)
            except EventLogError as error:
                world.actor.on_sync_failed(error)
                found += 1
            world.end()
            if not files.has_failed:
                files.bury()
                break
            world.start(files)
            _sync_all(world)
            snapshot, last = _group(world), world.log.last_seq_no
            letters = read_dead_letters(directory, "g")
            world.end()
        files.bury()
        for how, image in PowerCuts(files.disk, 12, random.Random(at)):
            materialise(image, directory)
            with booted("second"):
                again = World(directory)
                assert again.log.last_seq_no == last, how
                assert _group(again) == snapshot, how
                assert read_dead_letters(directory, "g") == letters, how
                again.end()
    assert found > 3


def _work(world: World) -> None:
    one = Member(world, M1)
    one.lease(8)
    one.results(1, 2)
    _sync_all(world)
    one.settle(3)
    one.reject(4)
    _sync_all(world)
    one.results(5, 6)
    _sync_all(world)


def _sync_all(world: World) -> None:
    """As the writer does."""
    work = world.log.begin_sync()
    world.store.sync()
    work.run()
    world.log.finish_sync(work)
    world.log.sync_positions()


def _group(world: World) -> Any:
    state = world.store.groups.get("g")
    return None if state is None else state.snapshot()


# --- what is said ----------------------------------------------------------------------------


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC], ids=errno.errorcode.get)
def test_a_sync_that_finds_the_disk_full_is_no_full_log(directory: str, number: int) -> None:
    # `LogFull` says that nothing was stored; whoever then appended once more had the event twice.
    files = FailingFiles(number, {"sync"}, NEVER)
    world = World(directory, files, durability="sync")
    peer = Peer(world)
    peer.tell(Append, 0, 0, 1, 0, 0, batch_of("event").payload)
    assert peer.said == []
    files.calls, files._at = 0, 1
    with pytest.raises(StorageFailed) as caught:
        world.log.begin_sync().run()
    world.actor.on_sync_failed(caught.value)
    (answer,) = peer.said
    assert isinstance(answer, Failed)
    error = error_of(answer)
    assert type(error) is StorageFailed
    assert "since the last sync" in str(error)
    world.restart("close")
    assert list(stored_events(directory).values()) == ["event"]
    world.end()


def test_records_that_are_refused_are_no_failed_sync(directory: str) -> None:
    files = FailingFiles(errno.EIO, {"write"}, NEVER)
    world = World(directory, files)
    world.append(3)
    world.open_group()
    one = Member(world, M1)
    one.lease(2)
    files.calls, files._at = 0, 3  # the batch is two writes, then comes the record
    assert type(one.results(1)) is Appended
    assert world.log.failure is not None
    assert note_of(directory) == 0
    world.end()


FAILING_WRITER = """
import errno, os, sys

real = os.fdatasync

def fdatasync(descriptor):
    if os.path.exists(sys.argv[1] + ".ill"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    real(descriptor)

os.fdatasync = fdatasync
from eventlog.local.writer.__main__ import main
sys.exit(main())
"""


def test_a_writer_whose_sync_failed_says_so_and_the_next_one_goes_on(path: str) -> None:
    with blocking.open(path, durability="sync") as log:
        log.append(1)
    stop_writer_of(path)
    Path(path, rendezvous.LOG_NAME).unlink()
    command = [sys.executable, "-c", FAILING_WRITER, path]
    writer = subprocess.Popen(command, stdout=subprocess.PIPE, env=ENVIRONMENT)
    assert writer.stdout is not None
    assert writer.stdout.read() == rendezvous.READY
    writer.stdout.close()
    with blocking.open(path) as log:
        assert log.append(2) == 2
        Path(path + ".ill").touch()
        with pytest.raises(StorageFailed):
            log.append(3)
        assert writer.wait(30) == 1
        assert "ended in order" not in Path(path, rendezvous.LOG_NAME).read_text()
        Path(path + ".ill").unlink()
        assert log.append(4) == 4
        log.synced()
        assert [envelope.event for envelope in log.read(1)] == [1, 2, 3, 4]
    assert note_of(path) == 0
