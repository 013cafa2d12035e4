"""Histories in which one sync fails, and from then on its pages count as clean, as on Linux.

A writer whose sync fails ends. The next one, in the same boot, finds all there, and its own syncs
succeed; whatever it says of them has to be so after a loss of power.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from eventlog.errors import EventLogError
from eventlog.local.storage.files import FILES
from eventlog.testing import batch_of, open_storage, stored_events
from tests.faults.crashes import Crash, disk_after, kills
from tests.faults.disk import PowerCuts
from tests.faults.histories import Step, Trace, World, booted
from tests.faults.histories import run as run_history
from tests.faults.recorder import ForgetfulFiles, RecordingFiles, materialise

SYNCS = {"sync", "finish_sync", "positions", "close"}


def run(
    directory: str, seed: object, steps: list[Step], options: dict[str, Any], at: int
) -> tuple[Trace, bool]:
    """Carry out the steps, the sync number `at` failing; whether there were so many."""
    files = ForgetfulFiles(at)
    trace = run_history(directory, (seed, at), steps, options, files, _do)
    return trace, files.has_failed


def _do(world: World, step: Step, number: int) -> None:
    try:
        world.do(step, number)
    except EventLogError as error:
        log = world.log
        if log is not None:
            if step[0] in SYNCS and not log.failure:  # an orderly end notes it by itself
                log.fail(error)
                log.close()
            log.abandon()
        world.work = None
        world.do_open()
        assert world.log is not None
        world.known = replace(world.known, first=world.log.control.first_available)


def salvages(trace: Trace, rng: random.Random) -> Iterator[Crash]:
    """Killed at each call after the note of the failed sync, to the end of the step of both.

    By then the next writer has started, so that is at each call of the salvage.
    """
    failed = next(n for n, call in enumerate(trace.calls) if call.kind == "fail_sync")
    end = next(end for begin, end in trace.bounds if begin <= failed < end)
    for crash in kills(trace, rng, header_cuts=2):
        if failed + 1 < crash.calls <= end:
            yield crash


def check_next(directory: str, trace: Trace, crash: Crash, limit: int, rng: random.Random) -> None:
    """After that kill another writer starts, and syncs; then the power is cut."""
    materialise(crash.image, directory)
    files = RecordingFiles(disk_after(trace, crash))
    with booted("first"):
        log = open_storage(directory, files, lambda: trace.now_ns, **trace.options)
        last = log.append(batch_of("one more"))
        work = log.begin_sync()
        work.run()
        log.finish_sync(work)
        log.abandon()
        expected = stored_events(directory)
    for how, image in PowerCuts(files.disk, limit, rng):
        materialise(image, directory)
        with booted("third"):
            log = open_storage(directory, FILES, lambda: trace.now_ns)
            found = stored_events(directory)
            log.abandon()
        assert max(found) == last, f"{crash}, then {how}"
        assert found == expected, f"{crash}, then {how}"
