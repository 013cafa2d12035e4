"""`Cause`: the event that a result came from, and the column of a batch that holds them. Pure.

Few events have a cause, and those of one batch mostly have one source in common (a log and a
group). So the column lists the sources once, and has a row only for each event with a cause::

    sources   array of [log_id, group]: 16 bytes, str
    rows      bytes: 4 for each event that has a cause, its place in the batch, ascending
    which     bytes: 4 for each of them, the place of its source in `sources`
    seq_nos   bytes: 8 for each of them, the number of the event that it came from

All numbers are little-endian. Nothing is converted until a cause is asked for.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from operator import ge
from typing import Any, Final
from uuid import UUID

from eventlog.config import NAME_CHARACTERS_MAX
from eventlog.errors import InvalidArgument, InvalidArgumentType

SEQ_NO_MAX: Final = 2**63 - 1
LOG_ID_BYTES: Final = 16
CAUSE_FIELDS: Final = {"log_id", "seq_no", "group"}
ROW_BYTES: Final = 16
"""What a cause takes in a batch, beside its source."""
SOURCE_OVERHEAD_BYTES: Final = 64
"""What a source takes at most, beside the name of its group and with the column's own lengths."""

Column = tuple[list[tuple[bytes, str]], bytes, bytes, bytes]
"""The column, as it is packed and unpacked."""


@dataclass(frozen=True, slots=True)
class Cause:
    """What a result came from: event `seq_no` of the log `log_id`, handled by `group`.

    `log_id` is what the `status` of that log says.
    """

    log_id: UUID
    seq_no: int
    group: str

    def __post_init__(self) -> None:
        """Check the types and the ranges."""
        if not isinstance(self.log_id, UUID):
            raise InvalidArgumentType(f"the log of the cause is {self.log_id!r}; give a uuid.UUID")
        if isinstance(self.seq_no, bool) or not isinstance(self.seq_no, int):
            raise InvalidArgumentType(
                f"the number of the cause is {self.seq_no!r}; give a whole number"
            )
        if not 1 <= self.seq_no <= SEQ_NO_MAX:
            raise InvalidArgument(f"the number of the cause is {self.seq_no}; numbers start at 1")
        if not isinstance(self.group, str):
            raise InvalidArgumentType(f"the group of the cause is {self.group!r}; give a string")
        if not 1 <= len(self.group) <= NAME_CHARACTERS_MAX or not self.group.isprintable():
            raise InvalidArgument(
                f"the group of the cause is {self.group!r:.200}; give 1 to {NAME_CHARACTERS_MAX}"
                " printable characters"
            )


class Causes:
    """The causes of a batch, by the rows of their events."""

    __slots__ = ("_column", "_found")

    def __init__(self, column: Column) -> None:
        self._column = column
        self._found: dict[int, tuple[int, int]] | None = None

    def of_row(self, row: int) -> Cause | None:
        """The cause of the event in that row, if it has one."""
        if self._found is None:
            _, *columns = self._column
            rows, which, seq_nos = map(_numbers, columns, (4, 4, 8))
            self._found = dict(zip(rows, zip(which, seq_nos, strict=True), strict=True))
        found = self._found.get(row)
        if found is None:
            return None
        log_id, group = self._column[0][found[0]]
        return Cause(UUID(bytes=log_id), found[1], group)


class OneCause:
    """The column of an envelope that stands alone."""

    __slots__ = ("_cause",)

    def __init__(self, cause: Cause) -> None:
        self._cause = cause

    def of_row(self, _row: int) -> Cause:
        """The cause."""
        return self._cause


def packed_cause(cause: Cause) -> dict[str, Any]:
    """A cause by itself, for MessagePack: a map with the names of its fields."""
    return {"log_id": cause.log_id.bytes, "seq_no": cause.seq_no, "group": cause.group}


def unpacked_cause(packed: Any) -> Cause:
    """The inverse of `packed_cause`.

    Raises:
        InvalidArgument, InvalidArgumentType: it is none; both are a `ValueError` or `TypeError`.
    """
    if not isinstance(packed, dict) or packed.keys() != CAUSE_FIELDS:
        raise InvalidArgument(
            f"the cause is {packed!r:.200}; give an object with log_id, seq_no and group"
        )
    log_id = packed["log_id"]
    if not isinstance(log_id, bytes) or len(log_id) != LOG_ID_BYTES:
        raise InvalidArgument(f"the log of the cause is {log_id!r:.60} instead of 16 bytes")
    return Cause(UUID(bytes=log_id), packed["seq_no"], packed["group"])


def pack_causes(causes: Mapping[int, Cause]) -> Column:
    """The column of events with causes, by their rows."""
    sources: dict[tuple[bytes, str], int] = {}
    rows = sorted(causes)
    ordered = [causes[row] for row in rows]
    which = [sources.setdefault(source_of(one), len(sources)) for one in ordered]
    seq_nos = [one.seq_no for one in ordered]
    count = len(rows)
    return (
        list(sources),
        struct.pack(f"<{count}I", *rows),
        struct.pack(f"<{count}I", *which),
        struct.pack(f"<{count}Q", *seq_nos),
    )


def source_of(cause: Cause) -> tuple[bytes, str]:
    """What causes of one log and group have in common."""
    return cause.log_id.bytes, cause.group


def causes_of(column: Any, count: int) -> Causes:
    """The causes in a batch of `count` events.

    Raises:
        ValueError: the column is none.
    """
    if not isinstance(column, list | tuple) or len(column) != 4:
        raise ValueError("the causes are not four columns")
    sources, *columns = column
    if not isinstance(sources, list) or not all(map(_is_source, sources)):
        raise ValueError("the sources of causes are none")
    if not all(isinstance(one, bytes) for one in columns):
        raise ValueError("the causes are no bytes")
    rows, which, seq_nos = columns
    found = len(rows) // 4
    if (len(rows), len(which), len(seq_nos)) != (4 * found, 4 * found, 8 * found):
        raise ValueError("the causes have another length")
    numbers = _numbers(rows, 4)
    if any(map(ge, numbers, (*numbers[1:], count))):
        raise ValueError("the causes are of events that are not there")
    if max(_numbers(which, 4), default=-1) >= len(sources):
        raise ValueError("a cause has a source that is not there")
    of_them = _numbers(seq_nos, 8)
    if of_them and not 1 <= min(of_them) <= max(of_them) <= SEQ_NO_MAX:
        raise ValueError("a cause has a number that no event has")
    return Causes((sources, rows, which, seq_nos))


def _is_source(source: object) -> bool:
    if not isinstance(source, list | tuple) or len(source) != 2:
        return False
    log_id, group = source
    try:
        Cause(UUID(bytes=log_id), 1, group)
    except (InvalidArgument, InvalidArgumentType, ValueError, TypeError):
        return False
    return True


def _numbers(column: bytes, size: int) -> tuple[int, ...]:
    letter = "I" if size == 4 else "Q"
    return struct.unpack(f"<{len(column) // size}{letter}", column)
