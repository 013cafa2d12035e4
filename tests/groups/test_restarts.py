"""What the next writer finds of groups."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from eventlog.errors import (
    StorageFailed,
)
from eventlog.local.storage.members import STARTED
from eventlog.local.wire.group_messages import (
    Joined,
    OpenGroup,
)
from eventlog.local.wire.messages import (
    Forget,
)
from eventlog.testing import (
    KillingFiles,
)
from tests.groups.world import (
    M1,
    M2,
    Member,
    World,
)


@pytest.mark.parametrize("ending", ["close", "abandon"])
def test_leases_outlive_their_writer(world: World, ending: str) -> None:
    one, two = Member(world, M1), Member(world, M2)
    assert (one.lease(3), two.lease(3)) == ([1, 2, 3], [4, 5, 6])
    one.settle(2)
    lease_id, slot = one.lease_id, one.joined.slot
    one.nack(3, 5)
    world.restart(ending)
    assert sorted(world.absent()) == [M1, M2]
    one = Member(world, M1)
    assert one.joined == Joined(1, slot, lease_id, ((1, 3),), ((3, 1),))
    assert world.absent() == [M2]
    one.lease_id = lease_id
    one.settle(1)
    assert world.state().position == 2
    numbers = one.lease(100)
    assert not {4, 5, 6} & set(numbers)
    assert one.lease_id > lease_id


def test_the_page_of_a_member_that_comes_back_is_as_it_was(world: World) -> None:
    one = Member(world, M1)
    one.lease(3)
    one.page.states[0] = STARTED
    world.restart()
    again = Member(world, M1)
    assert again.page.states[0] == STARTED
    again.hang_up()
    assert world.state().deliveries == {1: 1}


def test_a_long_journal_is_written_anew(world: World) -> None:
    member = Member(world, M1)
    world.store._rewrite_at = 500
    seen = []
    while numbers := member.lease(2):
        member.settle(*numbers)
        seen += numbers
        size = os.path.getsize(os.path.join(world.directory, "groups"))
        world.store._rewrite_at = size + 100
    assert seen == list(range(1, 21))
    snapshot = world.state().snapshot()
    world.restart()
    assert world.state().snapshot() == snapshot
    assert os.path.getsize(os.path.join(world.directory, "groups")) < 1000


def test_all_descriptors_are_given_back(tmp_path: Path) -> None:
    files = KillingFiles()
    for ending in ("close", "abandon"):
        world = World(str(tmp_path / "log"), files)
        world.append(3, key=str)
        world.open_group(ordering="key")
        Member(world, M1).lease()
        world.end(ending)
        assert files.open_descriptors == set()


def test_a_writer_that_was_superseded_writes_nothing_of_groups(world: World) -> None:
    # It gave back what its members had, over the records of the next writer.
    one = Member(world, M1)
    one.lease(3)
    journal = Path(world.directory, "groups")
    before = journal.read_bytes()
    world.log.control.epoch += 1
    one.hang_up()
    world.actor.groups.resume_due()
    assert isinstance(world.peer().refused(OpenGroup, "new", "", 3, 0), StorageFailed)
    assert journal.read_bytes() == before


def test_a_group_that_is_made_again_is_not_given_the_results_of_the_old_one(
    world: World,
) -> None:
    # Forgotten and opened anew, so as to do everything once more; the writer was killed, and the
    # next one found the old group's acknowledgements and took them for the new one's.
    member = Member(world, M1)
    member.lease(3)
    member.results(1, 2, 3)
    member.hang_up()
    world.peer().ask(Forget, "g")
    world.open_group()
    assert world.state().position == 0
    world.restart()
    assert world.state().position == 0
    assert Member(world, M2).lease(1) == [1]
