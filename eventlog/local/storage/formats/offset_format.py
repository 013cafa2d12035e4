"""The bytes of the offset table: layouts, and whole tables. Pure.

    +--------+--------+--------+------ - - -
    | header | slot 0 | slot 1 | ...            grown by doubling
    +--------+--------+--------+------ - - -

    offset header (64 bytes)
        0    8  magic            b"EVLOGOFF"
        8    2  version          of the format; 2: a consumer has, or had, a state
       10    2  byte_order       0x0102
       12    4  slot_bytes       of a slot
       16   48  reserved         zero

    offset slot (576 bytes)
        0    8  state            0: free, 1: a consumer; written last when a slot is made
        8    8  position         the last number behind the consumer; 0: it is at the beginning
       16    8  last_seen_ns     when the position was last set, nanoseconds since 1970
       24    4  name_bytes       of the name in UTF-8
       28    4  name_crc         CRC-32C of the name
       32    8  kept             1: its last record in the file 'states' counts, if there is one
       40   24  reserved         zero
       64  512  name             128 characters of up to 4 bytes

Once a consumer has a state, all its moves are records in `states`, and its slot stays as it was. A
release that knows nothing of states refuses such a table by its version, rather than take the slot
for the position.
"""

from __future__ import annotations

from collections.abc import Container, Iterable
from typing import Final, NamedTuple

from eventlog.checksum import crc32c
from eventlog.local.storage.formats.format import BYTE_ORDER, VERSION
from eventlog.local.storage.formats.layout import Field, Layout

FILE_NAME: Final = "offsets"
MAGIC: Final = b"EVLOGOFF"
STATES_VERSION: Final = 2
"""The version of a table in which a consumer has, or had, a state."""
NAME_BYTES_MAX: Final = 512
SLOTS_AT_FIRST: Final = 64

HEADER: Final = Layout(
    "offset header",
    Field("magic", "8s", 'b"EVLOGOFF"'),
    Field("version", "H", "of the format; 2: a consumer has, or had, a state"),
    Field("byte_order", "H", "0x0102"),
    Field("slot_bytes", "I", "of a slot"),
    Field("reserved", "48s", "zero"),
)
SLOT: Final = Layout(
    "offset slot",
    Field("state", "Q", "0: free, 1: a consumer; written last when a slot is made"),
    Field("position", "Q", "the last number behind the consumer; 0: it is at the beginning"),
    Field("last_seen_ns", "Q", "when the position was last set, nanoseconds since 1970"),
    Field("name_bytes", "I", "of the name in UTF-8"),
    Field("name_crc", "I", "CRC-32C of the name"),
    Field("kept", "Q", "1: its last record in the file 'states' counts, if there is one"),
    Field("reserved", "24s", "zero"),
    Field("name", f"{NAME_BYTES_MAX}s", "128 characters of up to 4 bytes"),
)
FREE: Final = 0
USED: Final = 1
KEPT: Final = 1


class Offset(NamedTuple):
    """One consumer: the last number behind it, when that was set, and the state it left there."""

    name: str
    position: int
    last_seen_ns: int
    state: bytes | None = None

    def is_changed_by(self, seq_no: int, state: bytes | None) -> bool:
        """Whether an acknowledgement changes it: forward only, or a new state for the position."""
        return seq_no > self.position or (seq_no == self.position and state is not None)


def header_bytes(version: int = VERSION) -> bytes:
    """The header of a table of that version."""
    return HEADER.pack(MAGIC, version, BYTE_ORDER, SLOT.size, b"")


def slot_bytes(state: int, position: int, last_seen_ns: int, name: bytes, kept: int = 0) -> bytes:
    """A slot; `name` is in UTF-8."""
    return SLOT.pack(state, position, last_seen_ns, len(name), crc32c(name), kept, b"", name)


def table_bytes(rows: Iterable[Offset]) -> bytes:
    """A whole table with these rows; those with a state are to be in `states`. Pure."""
    slots = []
    version = VERSION
    for row in rows:
        if row.state is None:
            slots.append(slot_bytes(USED, row.position, row.last_seen_ns, row.name.encode()))
        else:
            slots.append(slot_bytes(USED, 0, row.last_seen_ns, row.name.encode(), KEPT))
            version = STATES_VERSION
    return _table(slots, version)


def mended(data: bytes, bad_slots: Container[int]) -> bytes:
    """A damaged table with a header as it should be, without the rows of `bad_slots`. Pure."""
    slots = [
        bytes(SLOT.size) if slot in bad_slots else data[start : start + SLOT.size]
        for slot, start in enumerate(range(HEADER.size, len(data) - SLOT.size + 1, SLOT.size))
    ]
    has_states = any(SLOT.to_dict(slot)["kept"] for slot in slots)
    return _table(slots, STATES_VERSION if has_states else VERSION)


def _table(slots: list[bytes], version: int) -> bytes:
    size = HEADER.size + max(len(slots), SLOTS_AT_FIRST) * SLOT.size
    return (header_bytes(version) + b"".join(slots)).ljust(size, b"\0")


def is_of_this_version(data: bytes) -> bool:
    """Whether an offset table, whose header has no checksum, is of this version all the same."""
    fields = HEADER.to_dict(data)
    return bool(fields["slot_bytes"] == SLOT.size and not any(fields["reserved"]))
