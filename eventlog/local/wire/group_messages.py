"""The messages about groups; `messages` has the others, and says how a message is declared.

A member's messages are about the group that it has joined on its pipe; the others name theirs.
"""

from typing import Annotated

from msgspec import Meta

from eventlog.config import LEASE_RANGES_MAX
from eventlog.local.wire.messages import Answer, Number, Request

Ranges = Annotated[
    tuple[tuple[Number, Number], ...],
    Meta(max_length=LEASE_RANGES_MAX, examples=[((3, 4), (6, 6))]),
]
"""Runs of sequence numbers, (first, last) each; or pairs of a number and what it counts."""
Triples = Annotated[
    tuple[tuple[Number, Number, Number], ...],
    Meta(max_length=LEASE_RANGES_MAX, examples=[((2, 3, 4),)]),
]


class OpenGroup(Request, tag=8):
    """Make the group, beginning after `position`, if there is none of that name."""

    needs_log = True

    group: str
    ordering: Annotated[str, Meta(examples=["key"])]
    max_deliveries: Number
    position: Number


# --- members -------------------------------------------------------------------------------------


class Joined(Answer, tag=71):
    """The member's page is `slot`; a `lease_id` of 0 says that it has no lease."""

    slot: Number
    lease_id: Number
    ranges: Ranges
    failures: Ranges


class Join(Request, tag=9):
    """Become a member, or go on as one.

    `member_id` is random and stays the same over lost pipes; pid and start name the process.
    """

    answer = Joined
    needs_log = True

    group: str
    member_id: Number
    pid: Number
    start: Number


class Leave(Request, tag=15):
    """Be no member any more; what is still leased is given back."""


class Leased(Answer, tag=72):
    """`failures` has (event, failed deliveries) for the events that have any."""

    lease_id: Number
    ranges: Ranges
    failures: Ranges


class Lease(Request, tag=10):
    """Lease at most `count` events, whose results and failures the member will report.

    A share of what there is, but up to `least`: so many the member handles at the same time.
    """

    answer = Leased
    waits = True

    count: Number
    least: Number = 1


class Settle(Request, tag=11):
    """These events of the lease are done."""

    lease_id: Number
    ranges: Ranges


class Release(Request, tag=13):
    """These events of the lease were not begun: give them to somebody else."""

    lease_id: Number
    ranges: Ranges


class Nack(Request, tag=12):
    """The event's handler failed; hand it out again, not before `delay_ns` have passed.

    Members of earlier releases say this.
    """

    lease_id: Number
    seq_no: Number
    delay_ns: Number


class FailDelivery(Request, tag=26):
    """The event's handler failed: it is handed out again after `delay_ns`, or is a dead letter.

    The writer decides by the event's deliveries; `is_final` (0 or 1) says that trying again is of
    no use. `letter` is empty while the member knows of deliveries that are left.
    """

    lease_id: Number
    seq_no: Number
    delay_ns: Number
    is_final: Number
    letter: bytes


class Revoke(Answer, tag=73):
    """Others are idle, so give back what can be given back of the lease; said unasked."""

    lease_id: Number


class Passed(Answer, tag=77):
    """Retention deleted events before anybody had them; said unasked."""

    events: Number
    first: Number
    last: Number


# --- pools and operators -------------------------------------------------------------------------


class Condemned(Answer, tag=74):
    """Each event is (number, failed deliveries, id of its last member)."""

    events: Triples


class AwaitCondemned(Request, tag=16):
    """Tell me of events that no member may have any more, so that I bury them.

    Those of members that the pool named itself (`groups.pool_of`), and of pools that are gone.
    """

    answer = Condemned
    waits = True

    group: str
    pool_id: Number


class Bury(Request, tag=14):
    """The event is a dead letter; a `lease_id` of 0 says that it was condemned."""

    needs_log = True

    group: str
    lease_id: Number
    seq_no: Number
    letter: bytes


class Dismiss(Request, tag=20):
    """The member's process has ended, whoever still holds its pipe."""

    needs_log = True

    group: str
    member_id: Number


class Excuse(Request, tag=25):
    """A pool that is left will end its members: nothing that they have begun has failed."""

    pool_id: Number


class AwaitDrained(Request, tag=17):
    """Tell me when everything up to `seq_no` is done or dead."""

    waits = True

    group: str
    seq_no: Number


class Counted(Answer, tag=75):
    """How many the request was about."""

    number: Number


class RetryDead(Request, tag=18):
    """Hand these dead letters out again, as if for the first time."""

    answer = Counted
    needs_log = True

    group: str
    ranges: Ranges


class RetryCorrected(Request, tag=34):
    """Put this letter in the place of a dead one, and hand the event out with what it holds."""

    answer = Counted
    may_be_unknown = True
    needs_log = True

    group: str
    seq_no: Number
    letter: bytes


class DropDead(Request, tag=19):
    """Forget these dead letters."""

    answer = Counted
    needs_log = True

    group: str
    ranges: Ranges
