"""What both shells of a group's handle share: checks, and the messages of its requests."""

from __future__ import annotations

from collections.abc import Iterable

from eventlog.api.group import Exhausted
from eventlog.api.positions import SeekPosition, check_name, check_position, check_seq_no
from eventlog.config import MAX_DELIVERIES_LIMIT
from eventlog.errors import InvalidArgument, InvalidArgumentType
from eventlog.local.client.handle import LocalHandle
from eventlog.local.groups.ranges import ranges_of
from eventlog.local.storage.members import pool_of
from eventlog.local.wire.group_messages import Condemned, Ranges

RANGES_AT_ONCE = 1024
LETTER_AROUND_BYTES = 64
"""More than the numbers of a message with a dead letter take."""


def group_fields(
    handle: LocalHandle,
    name: object,
    ordering: object,
    max_deliveries: object,
    position: SeekPosition,
) -> tuple[str, str, int, int]:
    """The fields of `OpenGroup`.

    Raises:
        InvalidName, InvalidArgument, InvalidArgumentType: before anything is sent.
    """
    name = check_name(name)
    if ordering not in (None, "key"):
        raise InvalidArgument(f'ordering={ordering!r}; give None or "key"', consumer=name)
    if isinstance(max_deliveries, bool) or not isinstance(max_deliveries, int):
        raise InvalidArgumentType(f"max_deliveries={max_deliveries!r}; give a whole number")
    if not 1 <= max_deliveries <= MAX_DELIVERIES_LIMIT:
        raise InvalidArgument(
            f"max_deliveries={max_deliveries}; give 1 to {MAX_DELIVERIES_LIMIT}", consumer=name
        )
    check_position(position)
    behind = handle.reader.resolve(position, name) - 1
    return name, "" if ordering is None else "key", max_deliveries, max(behind, 0)


def number_ranges(group: str, seq_nos: Iterable[int]) -> list[Ranges]:
    """Numbers in as many messages as they need.

    Raises:
        InvalidArgument, InvalidArgumentType: they are no numbers.
    """
    if not isinstance(seq_nos, Iterable):
        raise InvalidArgumentType(
            f"the sequence numbers are {seq_nos!r:.80}; give a list of them", consumer=group
        )
    ranges = ranges_of(check_seq_no(number, consumer=group) for number in seq_nos)
    return [
        tuple(ranges[start : start + RANGES_AT_ONCE])
        for start in range(0, len(ranges), RANGES_AT_ONCE)
    ]


def number_to_drain(handle: LocalHandle, group: str, seq_no: object) -> int:
    """The event to wait for; without a number, the last one that is stored.

    Raises:
        InvalidArgument, InvalidArgumentType: it is no number.
    """
    return handle.reader.last_seq_no if seq_no is None else check_seq_no(seq_no, consumer=group)


def letter_bytes_max(handle: LocalHandle, group: str) -> int:
    """The largest dead letter that fits a frame, with the rest of its message."""
    return handle.options.frame_bytes_max - len(group.encode()) - LETTER_AROUND_BYTES


def exhausted_of(answer: Condemned) -> list[Exhausted]:
    """The events that an answer of the writer names."""
    return [
        Exhausted(
            seq_no=seq_no, deliveries=deliveries, member_id=member_id, owner=pool_of(member_id)
        )
        for seq_no, deliveries, member_id in answer.events
    ]


def check_owner(owner: object) -> int:
    """The number itself, if a pool can have it.

    Raises:
        InvalidArgument, InvalidArgumentType: none can.
    """
    if not isinstance(owner, int) or isinstance(owner, bool):
        raise InvalidArgumentType(f"owner={owner!r}; give a whole number")
    if not 0 <= owner < 2**31:
        raise InvalidArgument(f"owner={owner}; give 0 to 2**31 - 1")
    return owner
