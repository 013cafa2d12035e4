"""What commands of a journal make of nothing, and snapshots that stand for them."""

from __future__ import annotations

from typing import Any

from eventlog.kafka.group_state import NO_GROUP, NO_MEMBER
from eventlog.kafka.ledger import Ledger, Replay, packed, snapshot_of
from eventlog.remote.driver import Position

SECOND_NS = 1_000_000_000
LEASE_NS = 30 * SECOND_NS
COMMANDS: list[tuple[Any, ...]] = [
    ("move", "billing", 7, True),
    ("group", "g", None, 2, 0),
    ("join", "g", 1, 0, 100, LEASE_NS),
    ("take", "g", 1, LEASE_NS, [], [3, 1, 5, None]),
    ("settle", "g", 1, LEASE_NS, [["failed", 1, 0, True, b"{}", b"copy", 5], ["done", 2, 0, 0]]),
    ("move", "billing", 3, True),
    ("retry", "g", [1]),
]


def applied(commands: list[tuple[Any, ...]]) -> Ledger:
    ledger = Ledger()
    for at, command in enumerate(commands):
        ledger.apply(command, at * SECOND_NS)
    return ledger


def test_an_acknowledgement_moves_forward_only_and_a_seek_both_ways() -> None:
    ledger = Ledger()
    for position, is_ack in ((5, True), (3, True), (4, False), (6, True)):
        ledger.apply(("move", "c", position, is_ack), 1)
    assert ledger.positions["c"].position == 6
    ledger.apply(("move", "c", 2, False), 2)
    assert ledger.positions["c"] == Position(2, 2)
    ledger.apply(("forget", "c"), 3)
    assert ledger.positions == {}


def test_a_command_of_a_later_release_changes_nothing() -> None:
    ledger = applied(COMMANDS)
    before = ledger.dump()
    assert ledger.apply(("dance", "g", 1, 2, 3), 100) is None
    assert ledger.dump() == before


def test_a_snapshot_gives_the_same_ledger() -> None:
    ledger = applied(COMMANDS)
    assert Ledger.load(ledger.dump()).dump() == ledger.dump()


def test_a_journal_whose_beginning_is_deleted_is_whole_from_its_snapshot_on() -> None:
    ledger = applied(COMMANDS[:5])
    parts = snapshot_of(ledger, 4, name=9)
    replay = Replay(first_offset=3)
    records = [packed(*COMMANDS[3]), packed(*COMMANDS[4]), packed(*COMMANDS[5]), *parts]
    for at, record in enumerate(records):
        assert replay.is_whole is False
        replay.feed(3 + at, record, (3 + at) * SECOND_NS)
    assert replay.is_whole
    replay.feed(99, packed(*COMMANDS[6]), 6 * SECOND_NS)
    assert replay.ledger.dump() == applied(COMMANDS).dump()


def test_a_member_of_which_nothing_is_heard_is_dead_and_its_events_go_to_others() -> None:
    ledger = Ledger()
    ledger.apply(("group", "g", None, 5, 0), 0)
    ledger.apply(("join", "g", 1, 0, 100, LEASE_NS), 0)
    assert ledger.apply(("take", "g", 1, LEASE_NS, [], [1, 1, 1, None]), 0) == [[1, 1]]
    ledger.apply(("join", "g", 2, 0, 101, LEASE_NS), LEASE_NS - 1)
    take: tuple[Any, ...] = ("take", "g", 2, LEASE_NS, [], [1, 1, 1, None])
    assert ledger.apply(take, LEASE_NS - 1) == []
    assert ledger.apply(take, LEASE_NS) == [[1, 2]]
    late = ("settle", "g", 1, LEASE_NS, [["done", 1, 0, 0]])
    assert ledger.apply(late, LEASE_NS) == [1]
    assert ledger.apply(("take", "g", 1, LEASE_NS, [], [1, 1, 1, None]), LEASE_NS) == NO_MEMBER


def test_a_take_whose_answer_was_lost_gives_the_same_again() -> None:
    ledger = applied(COMMANDS[:3])
    take: tuple[Any, ...] = ("take", "g", 1, LEASE_NS, [], [3, 1, 5, None])
    first = ledger.apply(take, 3)
    assert first == [[1, 1], [2, 1], [3, 1]]
    assert ledger.apply(take, 4) == first
    known = ("take", "g", 1, LEASE_NS, [1, 2, 3], [3, 1, 5, None])
    assert ledger.apply(known, 5) == [[4, 1], [5, 1]]


def test_a_settlement_that_is_repeated_is_somebody_elses_for_none_of_it() -> None:
    ledger = applied(COMMANDS[:4])
    settle = ("settle", "g", 1, LEASE_NS, [["done", 1, 0, 0], ["done", 5, 0, 0]])
    assert ledger.apply(settle, 5) == [5]
    assert ledger.apply(settle, 6) == []
    assert ledger.positions["g"].position == 1


def test_with_key_order_no_event_is_taken_while_one_of_its_key_is_busy() -> None:
    ledger = Ledger()
    ledger.apply(("group", "g", "key", 5, 0), 0)
    for member in (1, 2):
        ledger.apply(("join", "g", member, 0, 100, LEASE_NS), 0)
    keys = {1: "a", 2: "b", 3: "a", 4: "c"}
    assert ledger.apply(("take", "g", 1, LEASE_NS, [], [1, 1, 4, keys]), 0) == [[1, 1]]
    asked = [9, 9, 4, keys]
    assert ledger.apply(("take", "g", 2, LEASE_NS, [], asked), 0) == [[2, 1], [4, 1]]


def test_a_command_for_a_group_that_nobody_has_made_says_so() -> None:
    assert Ledger().apply(("join", "g", 1, 0, 100, LEASE_NS), 0) == NO_GROUP


def test_with_key_order_no_event_is_handed_out_after_one_whose_key_is_not_known() -> None:
    """Its member has ended since the sender looked: a later event of its key came before it."""
    ledger = applied(
        [
            ("group", "g", "key", 2, 0),
            ("join", "g", 1, 0, 100, LEASE_NS),
            ("join", "g", 2, 0, 200, LEASE_NS),
            ("take", "g", 1, LEASE_NS, [], [1, 1, 1, {1: "a"}]),
            ("end", "g", 1, False),
        ]
    )

    def take(keys: dict[int, str]) -> Any:
        return ledger.apply(("take", "g", 2, LEASE_NS, [], [9, 1, 3, keys]), SECOND_NS)

    assert take({2: "a", 3: "b"}) == []
    assert take({1: "a", 2: "a", 3: "b"}) == [[1, 1], [2, 1], [3, 1]]
