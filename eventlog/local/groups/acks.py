"""Acknowledgements that travel with a batch of results, so that both are stored in one step. Pure.

The area before a batch's body (see `record_batch`) then holds one MessagePack array::

    [group, member_id, lease_id, [[first, last], ...]]

The checksum that makes the batch whole makes the acknowledgement whole too: after a crash either
both are there, and recovery tells the group, or neither is. That is all of "exactly once".
"""

from __future__ import annotations

from typing import NamedTuple

import msgpack

from eventlog.api.positions import SEQ_NO_MAX
from eventlog.errors import ProtocolError
from eventlog.local.groups.ranges import Range


class Acks(NamedTuple):
    """Events of a lease that are done."""

    group: str
    member_id: int
    lease_id: int
    ranges: list[Range]


def pack_acks(acks: Acks) -> bytes:
    """The bytes of the area."""
    packed: bytes = msgpack.packb(acks)
    return packed


def unpack_acks(area: bytes | memoryview) -> Acks:
    """What the area says.

    Raises:
        ProtocolError: it says nothing of the kind, whatever the bytes are.
    """
    try:
        group, member_id, lease_id, ranges = msgpack.unpackb(area)
        pairs = [(first, last) for first, last in ranges]
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        raise ProtocolError(f"a batch with acknowledgements that are none: {error}") from error
    numbers = [member_id, lease_id, *(number for pair in pairs for number in pair)]
    if not isinstance(group, str) or not all(type(number) is int for number in numbers):
        raise ProtocolError("a batch with acknowledgements of other types")
    if not all(1 <= first <= last <= SEQ_NO_MAX for first, last in pairs):
        raise ProtocolError("a batch that acknowledges what are no events")
    return Acks(group, member_id, lease_id, pairs)
