"""What a start makes of journal, letters and batches: a row for each case of the table."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

import pytest
from msgspec.structs import replace

from eventlog.local.groups import reconcile as module
from eventlog.local.groups import records
from eventlog.local.groups.acks import Acks, pack_acks
from eventlog.local.groups.letter_numbers import LetterNumbers
from eventlog.local.groups.reconcile import Found, Step, Sync, reconcile
from eventlog.local.groups.records import GroupRecord, LetterRecord
from eventlog.local.groups.state import GroupState

LAST: Final = 20
"""The last event of the log."""
LEASE, OTHER = 7, 8
GROUP: Final[list[GroupRecord]] = [
    records.Options("g", "", 1),
    records.Joined("g", 1, 100, 5, 0),
    records.Joined("g", 2, 101, 5, 1),
]
LEASED = records.Leased("g", LEASE, 1, [(1, 3)])
FAILED = records.Failed("g", LEASE, 1)
DONE = records.Done("g", LEASE, [(1, 1)])
LETTER = records.LetterStored("g", 1, 1, 5, b"letter", LEASE)
OF_EXHAUSTED = records.LetterStored("g", 1, 1, 5, b"letter", 0)
RETRY = records.LettersRetried("g", [(1, 1)])
DROP = records.LettersDropped("g", [(1, 1)])
AGAIN = records.HandedOutAgain("g", [1])
REJECTED = records.Rejected("g", LEASE, 1)
RESULTS = records.ResultsStored("g", LEASE, [(1, 1)], 19, 20)
BATCH = (19, 20, pack_acks(Acks("g", 1, LEASE, [(1, 1)])))
LOST = records.ResultsStored("g", LEASE, [(1, 1)], 21, 21)


class Row(NamedTuple):
    """One case: what is found, and the steps but for the sync of every start."""

    case: str
    groups: list[GroupRecord]
    letters: list[LetterRecord]
    acks: list[tuple[int, int, bytes]]
    steps: list[Step]


def snapshot_of(*found: GroupRecord) -> records.Snapshot:
    """The record that says what these do."""
    state = GroupState("g", lambda first, last: [0] * (last - first + 1))
    for record in [*GROUP, *found]:
        state.apply(record)
    return state.snapshot()


ROWS: Final = [
    Row(
        "a letter whose event its lease has still",
        [LEASED],
        [LETTER],
        [],
        [Sync.LETTERS, REJECTED],
    ),
    Row(
        "a letter whose event is exhausted still",
        [LEASED, FAILED],
        [OF_EXHAUSTED],
        [],
        [Sync.LETTERS, records.Rejected("g", 0, 1)],
    ),
    Row(
        "a letter whose event another lease has",
        [
            LEASED,
            records.GivenBack("g", LEASE, [(1, 3)]),
            records.Leased("g", OTHER, 2, [(1, 3)]),
        ],
        [LETTER],
        [],
        [],
    ),
    Row(
        "a letter whose event is handed out again",
        [LEASED, REJECTED, AGAIN],
        [LETTER],
        [],
        [RETRY],
    ),
    Row(
        "a letter of an event that the log has not",
        [records.Sought("g", LAST)],
        [records.LetterStored("g", 21, 1, 5, b"letter", LEASE)],
        [],
        [records.LettersDropped("g", [(21, 21)])],
    ),
    Row("a letter of a group that is forgotten", [records.Forgotten("g")], [LETTER], [], []),
    Row("a retried letter whose event is done", [LEASED, REJECTED], [LETTER, RETRY], [], [DROP]),
    Row(
        "a retried letter whose event is not done",
        [LEASED, REJECTED, AGAIN],
        [LETTER, RETRY],
        [],
        [],
    ),
    Row(
        "a retried letter of a group that is forgotten",
        [records.Forgotten("g")],
        [LETTER, RETRY],
        [],
        [records.LettersKept("g", [(1, 1)])],
    ),
    Row("a batch of results that the group does not know", [LEASED], [], [BATCH], [RESULTS]),
    Row("a batch of results that the group knows", [LEASED, RESULTS], [], [BATCH], []),
    Row(
        "a batch of results of an unknown group",
        [],
        [],
        [(19, 20, pack_acks(Acks("h", 1, LEASE, [(1, 1)])))],
        [],
    ),
    Row("a batch with acknowledgements that are none", [LEASED], [], [(19, 20, b"\xc1")], []),
    Row(
        "results that the log has not",
        [LEASED, LOST],
        [],
        [],
        [AGAIN, replace(snapshot_of(LEASED, DONE, AGAIN), replayed_to=LAST), Sync.GROUPS],
    ),
    Row(
        "results that the log has not, before a snapshot",
        [LEASED, LOST, snapshot_of(LEASED, DONE)],
        [],
        [],
        [],
    ),
    Row(
        "a group that knows events that the log has not",
        [records.Sought("g", LAST + 5)],
        [],
        [],
        [snapshot_of(records.Sought("g", LAST)), Sync.GROUPS],
    ),
]


def carried_out(row: Row) -> tuple[list[Step], Found]:
    """The steps of a start, and what it has come to by them."""
    groups: dict[str, GroupState] = {}
    letters = LetterNumbers()

    def apply(record: GroupRecord | LetterRecord) -> None:
        if isinstance(record, LetterRecord):
            letters.apply(record)
        elif isinstance(record, records.Forgotten):
            del groups[record.group]
        else:
            made = GroupState(record.group, lambda first, last: [0] * (last - first + 1))
            groups.setdefault(record.group, made).apply(record)

    of_groups = [*GROUP, *row.groups]
    for record in [*of_groups, *row.letters]:
        apply(record)
    found = Found(groups, letters, of_groups, row.letters, row.acks, LAST)
    steps = []
    for step in reconcile(found):
        steps.append(step)
        if not isinstance(step, Sync):
            apply(step)
    return steps, found


def without_first_sync(steps: list[Step]) -> list[Step]:
    """Every start has the groups on the disk before it changes a letter, or takes results."""
    rejections = [n for n, one in enumerate(steps) if isinstance(one, records.Rejected)]
    at = rejections[-1] + 1 if rejections else 0
    assert steps[at] is Sync.GROUPS
    return steps[:at] + steps[at + 1 :]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.case)
def test_a_start_ends_what_was_half_said(row: Row) -> None:
    steps, _ = carried_out(row)
    assert without_first_sync(steps) == row.steps


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.case)
def test_the_next_start_finds_nothing_more_to_do(row: Row) -> None:
    steps, found = carried_out(row)
    of_groups = [*row.groups, *(one for one in steps if isinstance(one, GroupRecord))]
    letters = [*row.letters, *(one for one in steps if isinstance(one, LetterRecord))]
    again, after = carried_out(row._replace(groups=of_groups, letters=letters))
    assert again == [Sync.GROUPS]
    snapshots = [{n: one.snapshot() for n, one in each.groups.items()} for each in (found, after)]
    assert snapshots[0] == snapshots[1]


def test_there_is_a_row_for_each_case_of_the_table() -> None:
    cases = re.findall(r"^(a?\w.*?)  +\w.*$", module.__doc__ or "", re.MULTILINE)
    assert cases[0] == "what is found"
    assert cases[1:] == [row.case for row in ROWS]
