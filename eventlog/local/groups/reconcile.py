"""What a start makes of journal, letters and batches, each of which may have got further.

The files get to the disk each on its own, and a kill may come between any two records. So a start
looks for what one file says and another does not, and says what is missing. Pure: `reconcile` gives
the steps, and each of them is stored and applied before the next one is asked for.

===============================================  ================================================
what is found                                    what is made of it
===============================================  ================================================
a letter whose event its lease has still         the event is rejected
a letter whose event is exhausted still          the event is rejected
a letter whose event another lease has           nothing: it died in an earlier delivery
a letter whose event is handed out again         the letter is retried
a letter of an event that the log has not        the letter is dropped
a letter of a group that is forgotten            nothing: letters outlive their group
a retried letter whose event is done             the letter is dropped
a retried letter whose event is not done         nothing: the event is tried again
a retried letter of a group that is forgotten    the letter is listed again
a batch of results that the group does not know  its events are done
a batch of results that the group knows          nothing
a batch of results of an unknown group           nothing
a batch with acknowledgements that are none      nothing, and a warning
results that the log has not                     their events are handed out again
results that the log has not, before a snapshot  nothing: a snapshot is stored after its results
a group that knows events that the log has not   it forgets them
===============================================  ================================================

The last three come of a loss of power, and are on the disk before other events get those numbers.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from enum import Enum, auto
from typing import NamedTuple

import msgspec

from eventlog.api.positions import SEQ_NO_MAX
from eventlog.errors import ProtocolError
from eventlog.local.groups import records
from eventlog.local.groups.acks import unpack_acks
from eventlog.local.groups.letter_numbers import LetterNumbers
from eventlog.local.groups.ranges import Range, RangeSet, ranges_of
from eventlog.local.groups.records import GroupRecord, LetterRecord
from eventlog.local.groups.state import GroupState

logger = logging.getLogger("eventlog.writer")


class Sync(Enum):
    """A file that has to be on the disk before the next step."""

    GROUPS = auto()
    LETTERS = auto()


Step = GroupRecord | LetterRecord | Sync


class Found(NamedTuple):
    """What a start has found; `groups` and `letters` follow the steps."""

    groups: dict[str, GroupState]
    letters: LetterNumbers
    group_records: list[GroupRecord]
    letter_records: list[LetterRecord]
    acks: Sequence[tuple[int, int, bytes]]
    """Batches of results: first and last number, and what they acknowledge."""
    last_seq_no: int


def reconcile(found: Found) -> Iterator[Step]:
    """What has to be stored, in this order, so that all files say the same."""
    again = _handed_out_again(found.group_records)
    yield from _end_rejections(found, again)
    yield Sync.GROUPS
    yield from _match_letters(found, again)
    yield from _take_acks(found)
    yield from _forget_lost(found)
    yield from _end_retries(found)


# --- letters ---------------------------------------------------------------------------------


def _handed_out_again(found: list[GroupRecord]) -> dict[str, set[int]]:
    """The events of each group that were to be retried, by the journal's last word on each."""
    again: dict[str, set[int]] = defaultdict(set)
    for record in found:
        numbers = again[record.group]
        match record:
            case records.HandedOutAgain():
                numbers.update(record.seq_nos)
            case records.Rejected():
                numbers.discard(record.seq_no)
            case records.Skipped():
                numbers.difference_update([n for n in numbers if n <= record.position])
            case records.Sought() | records.Forgotten():
                numbers.clear()
    return again


def _end_rejections(found: Found, again: dict[str, set[int]]) -> Iterator[Step]:
    for record in found.letter_records:
        if isinstance(record, records.LetterStored) and _is_half_rejected(found, record):
            yield Sync.LETTERS
            yield records.Rejected(record.group, record.lease_id, record.seq_no)
            again[record.group].discard(record.seq_no)


def _is_half_rejected(found: Found, letter: records.LetterStored) -> bool:
    """Only if its event is still in the very lease, or exhausted, as it was."""
    state = found.groups.get(letter.group)
    if state is None or letter.seq_no not in found.letters.listed[letter.group]:
        return False
    if not letter.lease_id:
        return letter.seq_no in state.exhausted
    lease = state.leases.get(letter.lease_id)
    return lease is not None and letter.seq_no in lease.open


def _match_letters(found: Found, again: dict[str, set[int]]) -> Iterator[Step]:
    for name in list(found.letters.listed):
        lost = found.letters.after(name, found.last_seq_no)
        if lost:
            yield records.LettersDropped(name, ranges_of(lost))
        state = found.groups.get(name)
        wanted = again[name] | set(() if state is None else state.again.numbers())
        retried = [n for n in found.letters.listed[name].numbers() if n in wanted]
        if retried:
            yield records.LettersRetried(name, ranges_of(retried))


def _end_retries(found: Found) -> Iterator[Step]:
    for name, retried in list(found.letters.retried.items()):
        state, numbers = found.groups.get(name), list(retried.numbers())
        if state is None:
            if numbers:
                yield records.LettersKept(name, ranges_of(numbers))
        elif done := [n for n in numbers if state.is_done(n)]:
            yield records.LettersDropped(name, ranges_of(done))


# --- batches of results ----------------------------------------------------------------------


def _take_acks(found: Found) -> Iterator[Step]:
    for base, last, area in found.acks:
        try:
            acks = unpack_acks(area)
        except ProtocolError as error:
            logger.warning("acknowledgements of batch %d: %s", base, error)
            continue
        state = found.groups.get(acks.group)
        if state is not None and base > state.replayed_to:
            yield records.ResultsStored(acks.group, acks.lease_id, acks.ranges, base, last)


# --- what a loss of power took ---------------------------------------------------------------


def _forget_lost(found: Found) -> Iterator[Step]:
    lost = _lost_results(found)
    is_changed = False
    for name, state in found.groups.items():
        numbers = [n for n in lost[name].numbers() if n <= found.last_seq_no and state.is_done(n)]
        if numbers:
            yield records.HandedOutAgain(name, numbers)
        snapshot = snapshot_to(state, found.last_seq_no)
        if snapshot is not None:
            yield snapshot
        is_changed |= bool(numbers) or snapshot is not None
    if is_changed:
        yield Sync.GROUPS


def _lost_results(found: Found) -> dict[str, RangeSet]:
    """The events whose results were stored in batches that the log does not have."""
    lost: dict[str, RangeSet] = defaultdict(RangeSet)
    for record in found.group_records:
        match record:
            case records.ResultsStored(last_result=last) if last > found.last_seq_no:
                for one in record.ranges:
                    lost[record.group].add(*one)
            case records.Snapshot() | records.Sought() | records.Forgotten():
                lost.pop(record.group, None)  # what a snapshot says of results is on the disk
    return lost


def snapshot_to(state: GroupState, last_seq_no: int) -> records.Snapshot | None:
    """The snapshot without events after that number; `None` if the state knows of none."""

    def cut(ranges: Iterable[Range]) -> list[Range]:
        kept = RangeSet(ranges)
        kept.remove(last_seq_no + 1, SEQ_NO_MAX)
        return list(kept)

    whole = state.snapshot()
    part = msgspec.structs.replace(
        whole,
        position=min(whole.position, last_seq_no),
        done=cut(whole.done),
        again=cut(whole.again),
        deliveries=[one for one in whole.deliveries if one[0] <= last_seq_no],
        exhausted=[one for one in whole.exhausted if one[0] <= last_seq_no],
        replayed_to=min(whole.replayed_to, last_seq_no),
    )
    given_to = [last for lease in whole.leases for _, last in lease.given]
    if part == whole and max(given_to, default=0) <= last_seq_no:
        return None
    leases = [one._replace(given=cut(one.given), open=cut(one.open)) for one in whole.leases]
    return msgspec.structs.replace(part, leases=[one for one in leases if one.open])
