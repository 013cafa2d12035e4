"""The records of a log's groups: what the files `groups` and `dead` hold, one type for each.

A record is stored as a MessagePack array: its tag, the name of its group, and the fields (the file
around it is in `storage.journal`). Members, leases and events go by their numbers; `ranges` are
pairs (first, last).

File `groups`::

    options   ordering, max_deliveries
              How the group hands its events out.
    seek      position
              The group begins anew after `position`: no lease that it gave counts any more.
    skip      position
              Every event up to `position` is done, whoever has it.
    member    member_id, pid, start, slot
              A process has joined: its pid and start time, and the slot of its page.
    gone      member_id
              A member has left, or its process has ended.
    lease     lease_id, member_id, ranges
              The member works on these events.
    done      lease_id, ranges
              These events are done; a lease of 0 says that retention deleted them.
    results   lease_id, ranges, first_result, last_result
              These events are done; their results, stored in the same step, are not for this group.
    back      lease_id, ranges
              These events of a lease were not begun; others may have them.
    failed    lease_id, seq_no
              A delivery has ended without success; the last one exhausts the event.
    buried    lease_id, seq_no
              The event is a dead letter now; a lease of 0 says that it was exhausted.
    again     seq_nos
              These events are handed out once more, as if for the first time.
    state     ordering, max_deliveries, position, done, again, deliveries, exhausted, members,
              leases, replayed_to
              All that the group is; it stands for every record before it.
    forget
              There is no such group any more.

File `dead`::

    dead      seq_no, deliveries, failed_ns, letter, lease_id
              An event is a dead letter, since the lease of that number; 0 if it was exhausted.
    retry     ranges
              These letters are not listed while their events are tried again.
    kept      ranges
              These letters are listed again: their retry has ended without success.
    drop      ranges
              These letters are gone.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import msgspec

from eventlog.local.groups.ranges import Range

Ordering = Literal["", "key"]


class _Record(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """What all records begin with."""

    group: str


class Options(_Record, frozen=True, tag="options"):
    """How the group hands its events out."""

    ordering: Ordering
    max_deliveries: int


class Sought(_Record, frozen=True, tag="seek"):
    """The group begins anew after `position`: no lease that it gave counts any more."""

    position: int


class Skipped(_Record, frozen=True, tag="skip"):
    """Every event up to `position` is done, whoever has it."""

    position: int


class Joined(_Record, frozen=True, tag="member"):
    """A process has joined: its pid and start time, and the slot of its page."""

    member_id: int
    pid: int
    start: int
    slot: int


class Left(_Record, frozen=True, tag="gone"):
    """A member has left, or its process has ended."""

    member_id: int


class Leased(_Record, frozen=True, tag="lease"):
    """The member works on these events."""

    lease_id: int
    member_id: int
    ranges: list[Range]


class Done(_Record, frozen=True, tag="done"):
    """These events are done; a lease of 0 says that retention deleted them."""

    lease_id: int
    ranges: list[Range]


class ResultsStored(_Record, frozen=True, tag="results"):
    """These events are done; their results, stored in the same step, are not for this group."""

    lease_id: int
    ranges: list[Range]
    first_result: int
    last_result: int


class GivenBack(_Record, frozen=True, tag="back"):
    """These events of a lease were not begun; others may have them."""

    lease_id: int
    ranges: list[Range]


class Failed(_Record, frozen=True, tag="failed"):
    """A delivery has ended without success; the last one exhausts the event."""

    lease_id: int
    seq_no: int


class Rejected(_Record, frozen=True, tag="buried"):
    """The event is a dead letter now; a lease of 0 says that it was exhausted."""

    lease_id: int
    seq_no: int


class HandedOutAgain(_Record, frozen=True, tag="again"):
    """These events are handed out once more, as if for the first time."""

    seq_nos: list[int]


class SnapshotMember(NamedTuple):
    """A member in a `Snapshot`; `recent` are leases of its that are through."""

    member_id: int
    pid: int
    start: int
    slot: int
    recent: list[int]


class SnapshotLease(NamedTuple):
    """A lease in a `Snapshot`: the events that it was given, and those still open."""

    lease_id: int
    member_id: int
    given: list[Range]
    open: list[Range]


class Snapshot(_Record, frozen=True, tag="state"):
    """All that the group is; it stands for every record before it."""

    ordering: Ordering
    max_deliveries: int
    position: int
    done: list[Range]
    again: list[Range]
    deliveries: list[tuple[int, int]]
    exhausted: list[tuple[int, int]]
    members: list[SnapshotMember]
    leases: list[SnapshotLease]
    replayed_to: int


class Forgotten(_Record, frozen=True, tag="forget"):
    """There is no such group any more."""


class LetterStored(_Record, frozen=True, tag="dead"):
    """An event is a dead letter, since the lease of that number; 0 if it was exhausted."""

    seq_no: int
    deliveries: int
    failed_ns: int
    letter: bytes
    lease_id: int


class LettersRetried(_Record, frozen=True, tag="retry"):
    """These letters are not listed while their events are tried again."""

    ranges: list[Range]


class LettersKept(_Record, frozen=True, tag="kept"):
    """These letters are listed again: their retry has ended without success."""

    ranges: list[Range]


class LettersDropped(_Record, frozen=True, tag="drop"):
    """These letters are gone."""

    ranges: list[Range]


GroupRecord = (
    Options
    | Sought
    | Skipped
    | Joined
    | Left
    | Leased
    | Done
    | ResultsStored
    | GivenBack
    | Failed
    | Rejected
    | HandedOutAgain
    | Snapshot
    | Forgotten
)
LetterRecord = LetterStored | LettersRetried | LettersKept | LettersDropped


def group_record(stored: list[Any]) -> GroupRecord:
    """The record that the file `groups` has as this array.

    Raises:
        ValueError: no writer has stored that.
    """
    return msgspec.convert(stored, GroupRecord)  # type: ignore[no-any-return]


def letter_record(stored: list[Any]) -> LetterRecord:
    """The record that the file `dead` has as this array.

    Raises:
        ValueError: no writer has stored that.
    """
    return msgspec.convert(stored, LetterRecord)  # type: ignore[no-any-return]
