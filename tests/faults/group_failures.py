"""Histories of a group on a system that fails a call; then the writer ends, in one way or another.

What was refused did not happen, and may be asked for once more; what was not refused is there after
the end, and each result once.
"""

from __future__ import annotations

from typing import Any, Final

from eventlog.errors import CorruptLog, EventLogError, NotALog
from eventlog.local.groups.stored import read_dead_letters
from eventlog.testing import FailingFiles
from tests.faults.groups import (
    GROUP,
    GroupWorld,
    end_in_order,
    finish,
    moment_of,
    results_in,
)
from tests.faults.histories import Step, booted
from tests.groups.world import World as GroupsWorld

ENDINGS: Final = ("kill", "close", "roll and kill")
WRITES: Final = ("write", "allocate", "create")
SYNCS: Final = ("sync", "sync_directory")
ROLLS: Final = 4


class FailingWorld(GroupWorld):
    """A group whose writer may be refused anything, and what it did not refuse."""

    def __init__(self, directory: str, ordering: str, files: FailingFiles) -> None:
        self.done: set[int] = set()
        """A member or a pool was told that these need no handling any more."""
        self.is_up = True
        self.last = 0
        super().__init__(directory, ordering, files)

    @property
    def calls(self) -> int:
        """Nothing is recorded here."""
        return 0

    def _page(self, member: Any) -> None:
        """Nobody looks at it later."""

    def settled(self, *numbers: int) -> None:
        self.done.update(numbers)

    def unsettled(self, *numbers: int) -> None:
        self.done.difference_update(numbers)

    def attempt(self, step: Step) -> bool:
        """Carry out a step as the writer does; whether it was not refused."""
        try:
            if not self.is_up:
                self.go_on()
                self.is_up = True
            self.do(step)
        except EventLogError as error:
            check_refusal(error)
            self._after_error(step, error)
            return False
        if self.desk.log.failure is not None:
            self.stop(end_in_order)  # the writer looks at each message, and leaves
        return True

    def _after_error(self, step: Step, error: EventLogError) -> None:
        if not self.is_up:
            return
        if step[0] in {"kill", "close"}:  # it is down, or could not start again
            self.stop(GroupsWorld.end)
            return
        if step[0] == "sync":
            self.desk.actor.on_sync_failed(error)
        if self.desk.log.failure is not None:
            self.stop(end_in_order)

    def stop(self, ending: Any) -> None:
        """The writer ends; if it fails at that, it is gone all the same."""
        self.is_up = False
        try:
            ending(self.desk)
        except EventLogError:
            self.desk.store.close()

    def check_done(self) -> None:
        """What was acknowledged is done."""
        if self.is_up and GROUP in self.desk.store.groups:
            lost = {number for number in self.done if not self.desk.state().is_done(number)}
            assert not lost, f"{sorted(lost)} were acknowledged, and are to be handed out"


def check_refusal(error: EventLogError) -> None:
    """A call that failed is no damage."""
    assert not isinstance(error, CorruptLog | NotALog)


def run(
    directory: str,
    steps: list[Step],
    ordering: str,
    files: FailingFiles,
    ending: str,
    *,
    soon: bool,
) -> int:
    """Carry out the steps, end, and hold the next writer to what was not refused; the refusals.

    `soon`: the end comes right after the step in which a call failed.
    """
    refused = 0
    with booted("first"):
        try:
            world = _first(directory, ordering, files)
            for step in steps:
                refused += not world.attempt(step)
                world.check_done()
                if soon and files.has_failed:
                    break
            _end(world, ending)
            files.heal()
            _check(world)
        finally:
            files.bury()
    return refused


def _first(directory: str, ordering: str, files: FailingFiles) -> FailingWorld:
    try:
        return FailingWorld(directory, ordering, files)
    except EventLogError as error:
        check_refusal(error)
        files.heal()  # a log that is never made says nothing
        return FailingWorld(directory, ordering, files)


def _end(world: FailingWorld, ending: str) -> None:
    if ending == "roll and kill":
        for _ in range(ROLLS):
            world.attempt(("fill",))
    if world.is_up:
        world.stop(end_in_order if ending == "close" else GroupsWorld.end)


def _check(world: FailingWorld) -> None:
    """The system is well again, and another writer starts."""
    desk = GroupsWorld(world.desk.directory)
    try:
        found = moment_of(desk, 0)
        results = results_in(desk.directory)
        assert results == world.stored, "results are not there as often as they were acknowledged"
        assert found.snapshot is not None or not world.done
        lost = world.done - found.done
        assert not lost, f"{sorted(lost)} were acknowledged, and are to be handed out"
        assert {letter.seq_no for letter in read_dead_letters(desk.directory)} == found.dead
        if found.snapshot is not None:
            finish(desk, found, has_sought=world.has_sought)
    finally:
        desk.end()
