"""What the commands of a journal say, one after the other: positions, and groups. Pure.

A command is an array: its name, then its arguments. Its time is the broker's, when it was stored.
Whoever applies the same commands in the same order has the same ledger, so a command's answer is
known to its sender once it has come back to it.

A snapshot stands for all commands up to its offset. It is written behind them, in parts, and what
it stands for may then be deleted.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgpack

from eventlog.kafka.group_state import GroupsState
from eventlog.remote.driver import Position

SNAPSHOT: Final = "snapshot"
PART_BYTES: Final = 512 * 1024
Command = Sequence[Any]


def packed(*command: Any) -> bytes:
    """A command as it is stored."""
    return bytes(msgpack.packb(command))


class Ledger:
    """The ledger of one log's journal."""

    def __init__(self) -> None:
        self.positions: dict[str, Position] = {}
        self.groups = GroupsState(self.positions)

    def apply(self, command: Command, now_ns: int) -> Any:
        """Note a command; its answer. One of a later release changes nothing."""
        name, *arguments = command
        match name:
            case "move":
                return self._move(*arguments, now_ns=now_ns)
            case "forget":
                return self._forget(*arguments)
            case _:
                return self.groups.apply(name, arguments, now_ns)

    def _move(self, consumer: str, position: int, is_ack: bool, *, now_ns: int) -> None:
        known = self.positions.get(consumer)
        if not is_ack or known is None or known.position < position:
            self.positions[consumer] = Position(position, now_ns)
            self.groups.moved(consumer, position, now_ns, is_ack=is_ack)

    def _forget(self, consumer: str) -> None:
        self.positions.pop(consumer, None)
        self.groups.forget(consumer)

    def dump(self) -> bytes:
        """All of it."""
        positions = [
            (name, (one.position, one.last_seen_ns)) for name, one in self.positions.items()
        ]
        return bytes(msgpack.packb([positions, self.groups.dump()]))

    @classmethod
    def load(cls, dumped: bytes) -> Ledger:
        """The inverse of `dump`."""
        positions, groups = msgpack.unpackb(dumped, strict_map_key=False)
        ledger = cls()
        ledger.positions.update({name: Position(*one) for name, one in positions})
        ledger.groups.load(groups)
        return ledger


def snapshot_of(ledger: Ledger, offset: int, name: int) -> list[bytes]:
    """The parts of a snapshot that stands for everything up to an offset."""
    dumped = ledger.dump()
    parts = [dumped[at : at + PART_BYTES] for at in range(0, len(dumped), PART_BYTES)]
    return [packed(SNAPSHOT, name, i, len(parts), offset, part) for i, part in enumerate(parts)]


class Replay:
    """A ledger made of what a journal has, from its first record on."""

    def __init__(self, first_offset: int) -> None:
        self.ledger = Ledger()
        self.is_whole = first_offset == 0
        """Nothing is missing: the journal begins with it, or a snapshot was found."""
        self.since_snapshot = 0
        """Commands that no snapshot stands for."""
        self._early: list[tuple[int, Command, int]] = []
        self._parts: dict[int, dict[int, bytes]] = {}

    def feed(self, offset: int, value: bytes, now_ns: int) -> Any:
        """Note the next record; the answer to its command."""
        command = msgpack.unpackb(value, strict_map_key=False)
        if command[0] == SNAPSHOT:
            self._note_part(*command[1:])
            return None
        if not self.is_whole:
            self._early.append((offset, command, now_ns))
            return None
        self.since_snapshot += 1
        return self.ledger.apply(command, now_ns)

    def _note_part(self, name: int, place: int, count: int, offset: int, part: bytes) -> None:
        parts = self._parts.setdefault(name, {})
        parts[place] = part
        if len(parts) < count:
            return
        del self._parts[name]
        self.since_snapshot = 0
        if self.is_whole:
            return
        self.ledger = Ledger.load(b"".join(parts[i] for i in range(count)))
        self.is_whole = True
        for early_offset, command, now_ns in self._early:
            if early_offset > offset:
                self.ledger.apply(command, now_ns)
        self._early.clear()
