"""What the simulation found, told step by step."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from eventlog.local.storage.members import PAGE
from tests.simulation.members import Member
from tests.simulation.world import SEGMENT_BYTES, Plan, World, simulate

OPTIONS = {"segment_bytes": SEGMENT_BYTES, "durability": "memory"}
QUIET = Plan(
    steps=0,
    fault_share=0.0,
    producers=1,
    subscribers=0,
    members=1,
    ordering="",
    max_deliveries=2,
    options=OPTIONS,
)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """One member, and no faults but those of the test."""
    made = World(1, str(tmp_path / "log"), QUIET)
    made.writer.spare()
    made.populate()
    yield made
    made.close()


def go_on(world: World, until: Callable[[], object]) -> None:
    for _ in range(10_000):
        if until():
            return
        world.take_step()
    raise AssertionError("that never happens")


def member_of(world: World) -> Member | None:
    return next((one for one in world.clients if isinstance(one, Member)), None)


def test_a_member_that_is_taken_for_a_new_one_still_signs_its_page(world: World) -> None:
    """Its pipe was dropped, and it was given the page that it had, wiped: it was nobody's then.

    So when it died, what it had begun was given back as if it had not been: an event that killed
    its workers would have killed them for ever.
    """
    go_on(world, lambda: (one := member_of(world)) and one.link and one.page)
    member = member_of(world)
    assert member is not None
    assert member.link is not None
    world.break_pipe(member.link)
    # As after as many joins as there are pages.
    world.writer.actor.groups.store._next_slot = member.membership.slot
    go_on(world, lambda: any(entry.what == "handling" for entry in world.history))
    (begun,) = [entry for entry in world.history if entry.what == "handling"]
    world.kill(member)
    go_on(world, lambda: sum(e.what == "handling" for e in world.history) > 1 or world.violations)
    assert world.violations == []
    again = [entry.fields for entry in world.history if entry.what == "handling"][1]
    assert (again["seq_no"], again["attempt"]) == (begun.fields["seq_no"], 2)


@pytest.mark.parametrize("seed", [100645, 103978, 202934, 366719053])
def test_seeds_that_found_something(seed: int) -> None:
    """Results whose answer was lost, whose store was refused; events of the same key behind.

    And a batch that retention deleted before any snapshot knew its producer.
    """
    assert simulate(seed).violations == []


def test_results_are_refused_in_order_when_the_page_was_wiped_meanwhile(world: World) -> None:
    """The writer took the member for a new one, whose page counted nothing yet.

    What had been counted as handled, before the results were refused, was taken back from nothing:
    a ValueError ended the worker.
    """
    go_on(world, lambda: (one := member_of(world)) and one.is_storing)
    member = member_of(world)
    assert member is not None
    assert member.link is not None
    world.break_pipe(member.link)
    world.writer.actor.groups.store._next_slot = member.membership.slot
    member._hear()
    member._connect()
    while not member.membership.has_joined:
        while member.link.to_writer:
            world.writer._hear(member.link)
        member._hear()
    go_on(world, lambda: any(e.fields.get("error") == "StaleLease" for e in world.history))
    assert member.page is not None
    assert member.page.words[PAGE.word("handled")] == 0
    assert world.violations == []
