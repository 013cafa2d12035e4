"""Options that were changed after the log was made: where they lie in the control page. Pure.

::

    changed options (12 bytes)
        0    4  length           of the MessagePack that follows; 0: nothing was ever changed
        4    4  crc              CRC-32C of all that follows
        8    4  identity_crc     `crc` of the control page, once its first options are these too

    then a map: {"options": as in the control page, "changed": names of those that were changed}

The options lie twice in the page: this second place is stored, and on the disk, before the first
one is touched, which earlier releases read. So one of the two is whole whenever a writer is killed,
and the second counts if it is. The next writer stores the first anew from it, if need be.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import msgpack

from eventlog.checksum import crc32c
from eventlog.config import LogOptions
from eventlog.errors import CorruptLog
from eventlog.local.storage.formats.layout import Field, Layout

CHANGES_OFFSET: Final = 2048
CHANGES: Final = Layout(
    "changed options",
    Field("length", "I", "of the MessagePack that follows; 0: nothing was ever changed"),
    Field("crc", "I", "CRC-32C of all that follows"),
    Field("identity_crc", "I", "`crc` of the control page, once its first options are these too"),
)
_COVERED: Final = CHANGES.offset("identity_crc")


class Change(NamedTuple):
    """The second place, whole."""

    options: LogOptions
    names: frozenset[str]
    identity_crc: int


def pack_change(change: Change) -> bytes:
    """The bytes of the second place."""
    packed = msgpack.packb({"options": change.options.to_dict(), "changed": sorted(change.names)})
    head = CHANGES.pack(len(packed), 0, change.identity_crc)
    crc = crc32c(head[_COVERED:] + packed)
    return CHANGES.pack(len(packed), crc, change.identity_crc) + packed


def unpack_change(page: bytes | memoryview) -> Change | None:
    """What lies in the second place of the page; `None` if there is nothing, or nothing whole."""
    length, crc, identity_crc = CHANGES.unpack_from(page, CHANGES_OFFSET)
    start = CHANGES_OFFSET + CHANGES.size
    covered = bytes(page[CHANGES_OFFSET + _COVERED : start + length])
    if not length or start + length > len(page) or crc32c(covered) != crc:
        return None
    try:
        fields = msgpack.unpackb(bytes(page[start : start + length]))
        options = LogOptions.from_dict(fields["options"])
        return Change(options, frozenset(map(str, fields["changed"])), identity_crc)
    except (CorruptLog, LookupError, TypeError, ValueError, msgpack.UnpackException):
        return None
