"""What is left of groups after a loss of power."""

from __future__ import annotations

import errno
import os
import shutil
from collections import Counter as Counts
from collections.abc import Callable
from pathlib import Path

import pytest

from eventlog.errors import (
    StorageFailed,
)
from eventlog.local.storage.members import DONE, STARTED
from eventlog.local.wire.group_messages import (
    Counted,
    RetryDead,
)
from eventlog.local.wire.messages import (
    Ack,
    Append,
)
from eventlog.testing import (
    FailingFiles,
    KillingFiles,
    batch_of,
)
from tests.faults.histories import booted
from tests.faults.recorder import RecordingFiles
from tests.groups.world import (
    M1,
    M2,
    M3,
    Member,
    World,
    check_state,
)


def test_a_journal_keeps_its_name_when_power_is_lost(tmp_path: Path) -> None:
    # Its records were synced and its name was not: made, or written anew, shortly before a loss of
    # power, it could be gone, or be the one before, with all that had been synced since.
    class Watching(KillingFiles):
        unsynced: list[str] = []  # noqa: RUF012 - one object in all

        def rename(self, source: str, target: str) -> None:
            super().rename(source, target)
            self.unsynced.append(os.path.basename(target))

        def sync_directory(self, path: str) -> None:
            super().sync_directory(path)
            self.unsynced.clear()

    world = World(str(tmp_path / "log"), Watching(), segment_bytes=1 << 16)
    world.append(20)
    world.log.begin_sync().run()
    world.open_group()
    unsynced = []
    for _ in range(2):
        world.store.sync()
        world.log.begin_sync().run()
        unsynced.append(list(Watching.unsynced))
        Watching.unsynced.clear()
        world.store._rewrite()
    world.end()
    assert unsynced == [[], []]


def after_power_loss(tmp_path: Path, ordering: str, work: Callable[[World], None]) -> World:
    """The journals of a log with twenty events, beside the first ten of them.

    That is what a loss of power can leave: journals are synced before events are.
    """
    world = World(str(tmp_path / "log"), segment_bytes=1 << 16)
    world.append(10, key=str)
    shutil.copytree(tmp_path / "log", tmp_path / "disk")
    world.append(10, key=str)
    world.open_group(ordering=ordering)
    work(world)
    world.end()
    for name in ("groups", "dead", "members"):
        shutil.copy(tmp_path / "log" / name, tmp_path / "disk" / name)
    return World(str(tmp_path / "disk"))


@pytest.mark.parametrize("ordering", ["", "key"])
def test_an_event_whose_result_a_loss_of_power_took_is_not_done(
    tmp_path: Path, ordering: str
) -> None:
    # The journal had reached the disk and the batch of results had not: the event stayed done.
    def work(world: World) -> None:
        one = Member(world, M1)
        assert one.lease(3) == [1, 2, 3]
        one.results(1, 2)
        one.settle(3)

    world = after_power_loss(tmp_path, ordering, work)
    for _ in range(2):  # and the next start knows it too, although its numbers are used again
        assert [n for n in range(1, 11) if world.state().is_done(n)] == [3]
        world.append(20, key=str)
        world.restart()
    world.end_absent()
    assert Member(world, M3).lease(2) == [1, 2]
    world.end()


@pytest.mark.parametrize("boot", ["first", "second"])
def test_after_a_loss_of_power_only_what_lies_beside_the_lease_is_believed(
    tmp_path: Path, boot: str
) -> None:
    # The rest of a page may be of an earlier lease: events counted as done that nobody had begun.
    with booted("first"):
        world = World(str(tmp_path / "log"), segment_bytes=1 << 16)
        world.actor.handle(world.peer(), Append(0, 0, 0, 1000, 0, 0, batch_of(*[0] * 1000).payload))
        world.open_group()
        one = Member(world, M1)
        assert len(one.lease(500)) == 500
        one.page.states[:500] = bytes([DONE]) * 500
        world.end()
    with booted(boot):
        world = World(str(tmp_path / "log"))
        world.actor.groups.end_member(world.state(), M1)
        beside = 512 - 64
        assert world.state().position == (500 if boot == "first" else beside)
        assert Member(world, M3).lease(1)[0] == world.state().position + 1
        world.end()


def test_results_stay_done_when_a_loss_of_power_takes_later_events(tmp_path: Path) -> None:
    # All that was done past the position was forgotten: a group was handed its own results.
    world = World(str(tmp_path / "log"), segment_bytes=1 << 16)
    world.append(10)
    world.open_group()
    one = Member(world, M1)
    one.lease(2)
    one.results(1, 2)
    shutil.copytree(tmp_path / "log", tmp_path / "disk")
    world.append(10)
    two = Member(world, M2)
    while numbers := two.lease(3):
        if max(numbers) > 12:
            break
        two.settle(*numbers)
    world.end()
    for name in ("groups", "dead", "members"):
        shutil.copy(tmp_path / "log" / name, tmp_path / "disk" / name)
    world = World(str(tmp_path / "disk"))
    assert world.log.last_seq_no == 12
    assert all(world.state().is_done(number) for number in (11, 12))
    check_state(world.state())
    world.end()


def test_a_group_and_what_a_snapshot_says_of_results_are_on_the_disk(tmp_path: Path) -> None:
    # A loss of power took a new group, or a batch that a rewritten journal counted on: results
    # were stored twice, or never.
    files = RecordingFiles()
    world = World(str(tmp_path / "log"), files, segment_bytes=1 << 16)
    world.append(10)
    world.open_group()
    journal = files.disk.durable_names["groups"]
    assert files.disk.files[journal].versions == {}
    one = Member(world, M1)
    one.lease(2)
    one.results(1, 2)
    world.store._rewrite()
    (segment,) = (one for name, one in files.disk.durable_names.items() if name.endswith(".seg"))
    assert files.disk.files[segment].versions == {}
    world.end()


def unsynced(files: RecordingFiles, name: str) -> object:
    """What of the file a loss of power may take."""
    return files.disk.files[files.disk.names[name]].versions


def test_what_groups_did_is_on_the_disk_after_an_orderly_end(tmp_path: Path) -> None:
    # The next start looks for it in no batch: after a loss of power, events were handed out again.
    files = RecordingFiles()
    world = World(str(tmp_path / "log"), files, segment_bytes=1 << 16)
    world.append(10)
    world.open_group()
    one = Member(world, M1)
    one.lease(3)
    one.results(1)
    one.reject(2)
    assert unsynced(files, "groups")
    world.end("close")
    assert not unsynced(files, "groups")
    assert not unsynced(files, "dead")


def test_a_sync_of_the_groups_that_fails_is_no_orderly_end(tmp_path: Path) -> None:
    files = FailingFiles(errno.EIO, {"sync"}, 10**9)
    world = World(str(tmp_path / "log"), files, segment_bytes=1 << 16)
    world.append(10)
    world.open_group()
    Member(world, M1).lease(3)
    files.calls, files._at = 0, 1
    with pytest.raises(StorageFailed):
        world.end("close")
    world.start()
    assert world.state().in_flight == 3
    assert world.log.control.writer_pid != 0
    world.end()


def test_a_letter_is_on_the_disk_before_its_event_is_done_and_back_before_it_is_dropped(
    tmp_path: Path,
) -> None:
    # The two files reach the disk on their own: a loss of power took event and letter.
    files = RecordingFiles()
    world = World(str(tmp_path / "log"), files, segment_bytes=1 << 16)
    world.append(10)
    world.open_group()
    one = Member(world, M1)
    one.lease(3)
    one.reject(2)
    assert not unsynced(files, "dead")
    assert unsynced(files, "groups"), "buried"
    one.hang_up()
    assert type(world.peer().ask(RetryDead, "g", ((2, 2),))) is Counted
    assert not unsynced(files, "groups")
    assert unsynced(files, "dead"), "dropped"
    world.end()


@pytest.mark.parametrize("starts_again", [False, True])
def test_a_sync_that_fails_while_a_journal_is_rewritten_is_not_tried_again(
    tmp_path: Path, starts_again: bool
) -> None:
    files = FailingFiles(errno.EIO, {"sync"}, 10**9)
    world = World(str(tmp_path / "log"), files, segment_bytes=1 << 16)
    world.append(10)
    world.open_group()
    one = Member(world, M1)
    one.lease(2)
    one.results(1, 2)
    work = world.log.begin_sync()
    files.calls, files._at = 0, 1
    world.store._rewrite()
    work.run()
    world.log.finish_sync(work)
    assert world.log.control.synced == 0, "what a later sync says is not believed"
    with pytest.raises(StorageFailed):
        world.store.sync()
    refused = world.peer().refused(Append, 0, 0, 1, 0, 0, batch_of("more").payload)
    assert isinstance(refused, StorageFailed)
    if starts_again:
        world.restart()
        assert world.log.append(batch_of("more")) == 13
    world.end()


@pytest.mark.parametrize("ordering", ["", "key"])
def test_a_lease_of_events_that_a_loss_of_power_took_is_forgotten(
    tmp_path: Path, ordering: str
) -> None:
    # They were handed out before they were there, or (with keys in order) the writer ended by an
    # assertion, again and again; and what the dead member had done counted for the new events.
    def work(world: World) -> None:
        Member(world, M1).lease(3)
        two = Member(world, M2)
        numbers: list[int] = []
        for _ in range(4):
            numbers = two.lease(3)
        two.page.states[:2] = bytes([DONE, STARTED])
        assert min(numbers) > 8

    world = after_power_loss(tmp_path, ordering, work)
    assert world.log.last_seq_no == 10
    world.end_absent()
    three = Member(world, M3)
    seen: list[int] = []
    while numbers := three.lease(100):
        assert max(numbers) <= world.log.last_seq_no
        three.settle(*numbers)
        seen += numbers
    three.hang_up()
    world.append(10)
    three = Member(world, M3)
    while numbers := three.lease(100):
        three.settle(*numbers)
        seen += numbers
    world.end()
    assert set(seen) >= set(range(11, 21)), "these were never handed out"
    assert Counts(seen).most_common(1)[0][1] == 1


def test_a_dead_letter_of_an_event_that_a_loss_of_power_took_stands_for_no_other(
    tmp_path: Path,
) -> None:
    # A new event got the number of the dead one, and was a dead letter at the next start.
    def work(world: World) -> None:
        world.peer().ask(Ack, "g", 14)
        member = Member(world, M1)
        assert member.lease(1) == [15]
        member.reject(15)

    world = after_power_loss(tmp_path, "", work)
    world.end_absent()
    world.append(10)
    world.restart()
    member = Member(world, M2)
    seen: list[int] = []
    while numbers := member.lease(100):
        member.settle(*numbers)
        seen += numbers
    world.end()
    assert 15 in seen
