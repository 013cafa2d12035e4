"""What becomes of events whose member is gone, and of those that retention has deleted. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from eventlog.local.groups import records
from eventlog.local.groups.holders import Lease
from eventlog.local.groups.ranges import Range, RangeSet
from eventlog.local.groups.state import GroupState
from eventlog.local.storage.members import DONE, FAILED, NOT_STARTED, STARTED


def begun_in(lease: Lease, page: bytes) -> list[int]:
    """The events of a lease whose handlers ran when its member left that page."""
    begun = (seq_no for seq_no, state in _rows(lease, page) if state == STARTED)
    return [seq_no for seq_no in begun if seq_no in lease.open]


def settlement(
    group: GroupState, lease: Lease, page: bytes, *, is_excused: bool = False
) -> list[records.Failed | records.Done | records.GivenBack]:
    """The records by which a lease ends whose member is gone and has left that page.

    `is_excused`: the member's pool ended it by leaving, so that nothing has failed.
    """
    done, back = RangeSet(), RangeSet()
    ends: list[records.Failed | records.Done | records.GivenBack] = []
    begun = [] if is_excused else begun_in(lease, page)
    for seq_no, state in _rows(lease, page):
        if seq_no not in lease.open:
            continue
        if state == FAILED:
            ends.append(records.Failed(group.name, lease.lease_id, seq_no))
        elif state == STARTED and not is_excused:
            if len(begun) == 1 or not group.is_last_delivery(seq_no):
                ends.append(records.Failed(group.name, lease.lease_id, seq_no))
            else:
                back.add(seq_no, seq_no)
        else:
            (done if state == DONE else back).add(seq_no, seq_no)
    if done:
        ends.append(records.Done(group.name, lease.lease_id, list(done)))
    if back:
        ends.append(records.GivenBack(group.name, lease.lease_id, list(back)))
    return ends


def lost_before(group: GroupState, first_available: int, kept: RangeSet) -> list[Range]:
    """Events that retention deleted and nobody will handle; `kept` are not among them.

    Nor are those that members have, or that a pool is to make dead letters of.
    """
    behind, lost = first_available - 1, RangeSet()
    if behind > group.position:
        lost.add(group.position + 1, behind)
    for first, last in group.again:
        if first <= behind:
            lost.add(first, min(last, behind))
    leased = [ranges for lease in group.leases.values() for ranges in lease.open]
    exhausted = [(seq_no, seq_no) for seq_no in group.exhausted]
    for first, last in (*group.done, *leased, *exhausted, *kept):
        lost.remove(first, last)
    return list(lost)


def _rows(lease: Lease, page: bytes) -> Iterator[tuple[int, int]]:
    """Each event of a lease with its state on the page."""
    numbers = (n for first, last in lease.given for n in range(first, last + 1))
    for row, seq_no in enumerate(numbers):
        yield seq_no, page[row] if row < len(page) else NOT_STARTED
