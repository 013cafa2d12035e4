"""The messages about groups; `messages` has the others, and the table of all.

A member's messages are about the group that it has joined on its pipe; the others name theirs.
"""

from __future__ import annotations

from typing import NamedTuple

Ranges = tuple[tuple[int, int], ...]
"""Runs of sequence numbers, (first, last) each."""


class OpenGroup(NamedTuple):
    """A group begins after `position` if there is none of that name."""

    request_id: int
    group: str
    ordering: str
    max_deliveries: int
    position: int


class Join(NamedTuple):
    """`member_id` is random and stays the same over lost pipes; pid and start name the process."""

    request_id: int
    group: str
    member_id: int
    pid: int
    start: int


class Lease(NamedTuple):
    """At most `count` events, whose results and failures the member will report.

    A share of what there is, but up to `least`: so many the member handles at the same time.
    """

    request_id: int
    count: int  # type: ignore[assignment]
    least: int = 1


class Settle(NamedTuple):
    """These events of the lease are done."""

    request_id: int
    lease_id: int
    ranges: Ranges


class Nack(NamedTuple):
    """The event's handler failed; hand it out again, not before `delay_ns` have passed."""

    request_id: int
    lease_id: int
    seq_no: int
    delay_ns: int


class FailDelivery(NamedTuple):
    """The event's handler failed: it is handed out again after `delay_ns`, or is a dead letter.

    The writer decides by the event's deliveries; `is_final` (0 or 1) says that trying again is of
    no use. `letter` is empty while the member knows of deliveries that are left.
    """

    request_id: int
    lease_id: int
    seq_no: int
    delay_ns: int
    is_final: int
    letter: bytes


class Release(NamedTuple):
    """These events of the lease were not begun."""

    request_id: int
    lease_id: int
    ranges: Ranges


class Bury(NamedTuple):
    """The event is a dead letter; a `lease_id` of 0 says that it was condemned."""

    request_id: int
    group: str
    lease_id: int
    seq_no: int
    letter: bytes


class Leave(NamedTuple):
    """No member any more; what is still leased is given back."""

    request_id: int


class Dismiss(NamedTuple):
    """The member's process has ended, whoever still holds its pipe."""

    request_id: int
    group: str
    member_id: int


class Excuse(NamedTuple):
    """A pool that is left will end its members: nothing that they have begun has failed."""

    request_id: int
    pool_id: int


class AwaitCondemned(NamedTuple):
    """Tell me of events that no member may have any more, so that I bury them.

    Those of members that the pool named itself (`groups.pool_of`), and of pools that are gone.
    """

    request_id: int
    group: str
    pool_id: int


class AwaitDrained(NamedTuple):
    """Tell me when everything up to `seq_no` is done or dead."""

    request_id: int
    group: str
    seq_no: int


class RetryDead(NamedTuple):
    """Hand these dead letters out again, as if for the first time."""

    request_id: int
    group: str
    ranges: Ranges


class DropDead(NamedTuple):
    """Forget these dead letters."""

    request_id: int
    group: str
    ranges: Ranges


class Joined(NamedTuple):
    """The member's page is `slot`; a `lease_id` of 0 says that it has no lease."""

    request_id: int
    slot: int
    lease_id: int
    ranges: Ranges
    failures: Ranges


class Leased(NamedTuple):
    """`failures` has (event, failed deliveries) for the events that have any."""

    request_id: int
    lease_id: int
    ranges: Ranges
    failures: Ranges


class Revoke(NamedTuple):
    """Said unasked, with a `request_id` of 0."""

    request_id: int
    lease_id: int


class Passed(NamedTuple):
    """Said unasked, with a `request_id` of 0: retention deleted events before anybody had them."""

    request_id: int
    events: int
    first: int
    last: int


class Condemned(NamedTuple):
    """Each event is (number, failed deliveries, id of its last member)."""

    request_id: int
    events: tuple[tuple[int, int, int], ...]


class Counted(NamedTuple):
    """How many the request was about."""

    request_id: int
    number: int
