"""Histories on a system that fails a call: the n-th, or all from the n-th on until it is healed."""

from __future__ import annotations

import errno
from typing import Any, Final

from eventlog.errors import CorruptLog, EventLogError, NotALog
from eventlog.local.storage.reading.reader import LogReader
from eventlog.testing import FailingFiles, batch_of, open_storage, stored_events
from tests.faults.histories import Step, World

KINDS: Final = (
    *("open_read", "open_write", "create", "allocate", "write", "read", "map"),
    *("sync", "sync_directory", "rename", "unlink", "names"),
)
ERRORS: Final = (errno.ENOSPC, errno.EIO)
_SYNCS: Final = {"sync", "finish_sync"}


def run(directory: str, steps: list[Step], options: dict[str, Any], files: FailingFiles) -> int:
    """Carry out the steps and hold the log to what was acknowledged; how many were refused.

    Errors are the package's own, a failed append gives no number, a failed sync ends the writer,
    and nothing stays open.
    """
    world = World(directory, files, options)
    refused = 0
    for number, step in enumerate(steps):
        try:
            if world.log is None:
                world.do(("open",), number)
            world.do(step, number) if step != ("open",) or world.log is None else None
        except EventLogError as error:
            refused += 1
            after_error(world, step, error)
        if world.log is not None:
            assert world.log.last_seq_no == world.known.last
    files.heal()
    finish(world)
    return refused


def after_error(world: World, step: Step, error: EventLogError) -> None:
    """What the writer does: after a failed sync it ends, and so it does if it can't start."""
    assert not isinstance(error, CorruptLog | NotALog)
    log = world.log
    if log is None:
        return
    if step[0] == "jump":
        step = step[2:]  # what was done meanwhile
    if step[0] in _SYNCS:
        log.fail(error)
        last, synced = log.last_seq_no, log.control.synced
        try:
            log.append(batch_of("refused"))
            raise AssertionError("an append after a failed sync")
        except EventLogError:
            assert (log.last_seq_no, log.control.synced) == (last, synced)
        log.close()
    if step[0] in _SYNCS or step[0] in {"kill", "close"}:
        log.abandon()
        world.log, world.work = None, None


def finish(world: World) -> None:
    """The system is well again: everything is there, and the log goes on."""
    log = world.log
    if log is None:
        log = open_storage(world.directory, world.files, **world.options)
    check_known(world)
    for name in world.known.positions:
        log.offsets.forget(name)
    assert log.append(batch_of("more")) == world.known.last + 1
    log.close()
    assert isinstance(world.files, FailingFiles)
    assert world.files.open_descriptors == set(), "descriptors were left open"
    world.events[world.known.last + 1] = "more"
    log = open_storage(world.directory)
    log.abandon()
    found = stored_events(world.directory)
    assert found == {number: world.events[number] for number in found}
    assert world.known.last + 1 in found


def check_known(world: World) -> None:
    """Every event that retention left, and every position."""
    found = stored_events(world.directory)
    assert found == {number: world.events[number] for number in found}
    log = LogReader(world.directory)
    assert list(found) == list(range(log.first_available, world.known.last + 1))
    log.close()
