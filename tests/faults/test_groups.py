"""Groups whose writer is killed, ends, is refused something, or loses its power, at every step."""

from __future__ import annotations

import errno
import random
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from eventlog.local.storage.journal import DEAD_NAME, GROUPS_NAME
from eventlog.local.writer.server import Server
from eventlog.testing import FailingFiles, open_storage
from tests.faults import failures, group_failures, groups
from tests.faults.crashes import kills, power_cuts
from tests.faults.histories import Step
from tests.faults.recorder import RecordingFiles, arena
from tests.groups.world import M1, Member
from tests.groups.world import World as GroupsWorld

THOROUGH_EVERY = 10
SLOW = pytest.mark.slow
EACH = pytest.mark.parametrize("each", [48, pytest.param(1, marks=SLOW)], ids=["some", "each"])
"""One of 48 crashes that are found; with the slow tests, every one."""
EACH_CALL = pytest.mark.parametrize("each", [11, pytest.param(1, marks=SLOW)], ids=["some", "each"])
"""Every eleventh call fails in its turn; with the slow tests, every one."""
SEEDS = [0, *(pytest.param(seed, marks=SLOW) for seed in (1, 2))]
HEADER_CUTS = 24
"""A file's header, or a record's: the first bytes of every write."""


@pytest.fixture
def place() -> Iterator[str]:
    with arena() as directory:
        yield directory


@EACH
@pytest.mark.parametrize("ordering", ["", "key"])
def test_a_killed_writer_leaves_a_group_as_it_was(place: str, ordering: str, each: int) -> None:
    history = groups.run(place, ordering, groups.SHORT, ordering)
    number = 0
    for number, crash in enumerate(kills(history.trace, random.Random(1), HEADER_CUTS)):
        if number % each:
            continue
        groups.check(place, history, crash, is_thorough=number % THOROUGH_EVERY == 0)
    assert number > 800


@EACH
@pytest.mark.parametrize("ordering", ["", "key"])
def test_a_power_cut_leaves_results_and_acknowledgements_alike(
    place: str, ordering: str, each: int
) -> None:
    history = groups.run(place, ordering, groups.SHORT, ordering)
    number = 0
    for number, crash in enumerate(power_cuts(history.trace, 8, random.Random(1))):
        if number % each:
            continue
        groups.check(place, history, crash, is_thorough=number % THOROUGH_EVERY == 0)
    assert number > 500


@pytest.mark.parametrize("ordering", ["", "key"])
@pytest.mark.parametrize("seed", SEEDS)
def test_random_histories_of_groups(place: str, seed: int, ordering: str) -> None:
    history = groups.run(place, (seed, ordering), groups.random_history(seed, 30), ordering)
    rng = random.Random(seed)
    crashes = [*kills(history.trace, rng), *power_cuts(history.trace, 4, rng)]
    for number, crash in enumerate(rng.sample(crashes, 200)):
        groups.check(place, history, crash, is_thorough=number % THOROUGH_EVERY == 0)


@EACH
@pytest.mark.parametrize("ordering", ["", "key"])
@pytest.mark.parametrize("steps", [groups.ORDERLY, groups.DEAD], ids=["orderly", "dead"])
def test_what_a_power_cut_leaves_done_is_explained(
    place: str, steps: list[Step], ordering: str, each: int
) -> None:
    """An orderly end did not sync what groups did; a dead letter and its event both vanished."""
    history = groups.run(place, ordering, steps, ordering)
    number = 0
    for number, crash in enumerate(power_cuts(history.trace, 12, random.Random(1))):
        if number % each:
            continue
        groups.check(place, history, crash, is_thorough=number % THOROUGH_EVERY == 0)
    assert number > 400


def test_the_server_ends_as_these_histories_do(place: str, tmp_path: Path) -> None:
    """What the server does at its end, and what `end_in_order` does, leave the same unsynced."""
    unsynced = []
    for by_server in (True, False):
        shutil.rmtree(place, ignore_errors=True)
        files = RecordingFiles()
        desk = _desk_with_unsynced_groups(place, files)
        if by_server:
            desk.end()
            _serve_and_end(place, files, tmp_path)
        else:
            groups.end_in_order(desk)
        files.bury()
        journals = {name: files.disk.files[files.disk.names[name]] for name in JOURNALS}
        unsynced.append([name for name, file in journals.items() if file.versions])
    assert unsynced == [[], []]


JOURNALS = (GROUPS_NAME, DEAD_NAME)


def _desk_with_unsynced_groups(place: str, files: RecordingFiles) -> GroupsWorld:
    desk = GroupsWorld(place, files, segment_bytes=4096)
    desk.append(3)
    desk.open_group()
    member = Member(desk, M1)
    one, two, three = member.lease()
    member.settle(one)
    member.results(two)
    member.reject(three)
    return desk


def _serve_and_end(place: str, files: RecordingFiles, tmp_path: Path) -> None:
    """A server that is told to end as soon as it is ready."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "socket"))
    listener.listen()
    server = Server(open_storage(place, files), listener, linger_s=None)

    def end() -> None:
        server.nursery.cancel_scope.cancel()

    trio.run(server.run, end)


@pytest.mark.parametrize("count", [3, pytest.param(15, marks=SLOW)])
@pytest.mark.parametrize("ordering", ["", "key"])
def test_recovery_of_groups_may_be_killed_and_lose_its_power_too(
    place: str, ordering: str, count: int
) -> None:
    rng = random.Random(f"recovery {ordering}")
    number = 0
    for steps in (groups.SHORT, groups.ORDERLY, groups.DEAD):
        shutil.rmtree(place, ignore_errors=True)
        history = groups.run(place, ordering, steps, ordering)
        crashes = [*kills(history.trace, rng, HEADER_CUTS), *power_cuts(history.trace, 4, rng)]
        for crash in rng.sample(crashes, count):
            found = list(groups.crashes_of_recovery(place, history, crash, 2, rng))
            for again in rng.sample(found, min(20, len(found))):
                groups.check(place, history, again, is_thorough=number % THOROUGH_EVERY == 0)
                number += 1
    assert number > 33 * count


@pytest.mark.parametrize("ordering", ["", "key"])
@pytest.mark.parametrize("seed", SEEDS)
def test_the_power_is_cut_twice(place: str, seed: int, ordering: str) -> None:
    """What the next writer did after the first time is held to what the first time left."""
    history = groups.run(place, (seed, ordering), groups.random_history(seed, 30), ordering)
    rng = random.Random(seed)
    number = 0
    for first in rng.sample(list(power_cuts(history.trace, 4, rng)), 10):
        steps = groups.after_a_crash(rng, 15)
        again = groups.run(place, (seed, ordering, str(first)), steps, ordering, (history, first))
        cuts = list(power_cuts(again.trace, 4, rng))
        for crash in rng.sample(cuts, min(20, len(cuts))):
            groups.check(place, again, crash, is_thorough=number % THOROUGH_EVERY == 0)
            number += 1
    assert number > 100


@EACH_CALL
@pytest.mark.parametrize("soon", [True, False], ids=["soon", "later"])
@pytest.mark.parametrize("ending", group_failures.ENDINGS)
def test_any_call_may_fail_before_a_writer_of_groups_ends(
    place: str, ending: str, each: int, *, soon: bool
) -> None:
    """One write to the journal failed, the writer ended, and results were stored twice."""
    for at in range(1, 1000, each):
        shutil.rmtree(place, ignore_errors=True)
        number, torn = failures.ERRORS[at % 2], at % 4 < 2
        files = FailingFiles(number, failures.KINDS, at, torn=torn)
        try:
            group_failures.run(place, groups.SHORT, "", files, ending, soon=soon)
        except Exception as error:
            error.add_note(f"{errno.errorcode[number]} at call {at}, {torn=}, {ending}, {soon=}")
            raise
        if not files.has_failed:
            break
    assert 60 < at < 999


@EACH_CALL
@pytest.mark.parametrize("kinds", [group_failures.WRITES, group_failures.SYNCS])
@pytest.mark.parametrize("ending", group_failures.ENDINGS)
def test_calls_fail_for_ever_before_a_writer_of_groups_ends(
    place: str, ending: str, kinds: tuple[str, ...], each: int
) -> None:
    for at in range(1, 1000, each):
        shutil.rmtree(place, ignore_errors=True)
        files = FailingFiles(errno.ENOSPC, kinds, at, for_ever=True, torn=at % 2 == 0)
        try:
            group_failures.run(place, groups.SHORT, "key", files, ending, soon=at % 3 == 0)
        except Exception as error:
            error.add_note(f"ENOSPC from call {at} on, {ending}")
            raise
        if not files.has_failed:
            break
    assert 5 < at < 999
