"""Where a subscription starts: `SeekPosition`, and the state of one consumer."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from operator import index
from typing import ClassVar, Literal, SupportsIndex, get_args

from eventlog.config import NAME_CHARACTERS_MAX, STATE_BYTES_MAX
from eventlog.errors import InvalidArgument, InvalidArgumentType, InvalidName
from eventlog.event.moments import search_ns_of

PositionKind = Literal["beginning", "last_acknowledged", "latest", "sequence", "timestamp"]

SEQ_NO_MAX = 2**63 - 1
"""Numbers are stored in 64 bits and handed to languages that know only signed ones."""


@dataclass(frozen=True, slots=True)
class SeekPosition:
    """A place in a log: one of three names, a sequence number or a time.

    `SeekPosition.BEGINNING` is the first event still stored; `SeekPosition.LAST_ACKNOWLEDGED` the
    event after the consumer's position, or the first stored one if it has none;
    `SeekPosition.LATEST` only what is appended from now on.
    """

    kind: PositionKind
    value: int = 0
    """The sequence number, or the time in nanoseconds since 1970 (UTC)."""

    BEGINNING: ClassVar[SeekPosition]
    LAST_ACKNOWLEDGED: ClassVar[SeekPosition]
    LATEST: ClassVar[SeekPosition]

    def __post_init__(self) -> None:
        """Check the values, of whoever does not use the names and functions.

        Raises:
            InvalidArgument: there is no such kind, or no such value.
            InvalidArgumentType: the value is not a whole number.
        """
        value: object = self.value
        if self.kind not in get_args(PositionKind):
            kinds = ", ".join(map(repr, get_args(PositionKind)))
            raise InvalidArgument(f"the position is of the kind {self.kind!r}; give one of {kinds}")
        if type(value) is not int:
            raise InvalidArgumentType(f"the position's value is {value!r}; give a whole number")
        if not 0 <= value <= SEQ_NO_MAX:
            raise InvalidArgument(f"the position's value is {value}; give 0 to 2**63 - 1")

    @staticmethod
    def sequence(n: int) -> SeekPosition:
        """Event `n` is the next one; 0 is the beginning, and one past the end waits for it.

        Raises:
            InvalidArgument: `n` is negative.
            InvalidArgumentType: `n` is not a whole number.
        """
        return SeekPosition("sequence", check_seq_no(n))

    @staticmethod
    def timestamp(t: datetime) -> SeekPosition:
        """The first event that was stored at or after `t`, an aware datetime.

        That goes by `EventEnvelope.stored_at`, the writer's clock, and not by an event's own
        `timestamp`; all events of a batch have one time. An event from a time when the clock was
        ahead counts as old as the next one, so that none from after `t` is left out. It is found
        when a subscription is opened, or at the `seek`: a `t` to come is `LATEST`. Before 1970 and
        after 2262 there are no events; such a time finds the first one, or none.

        Raises:
            InvalidArgument: `t` is naive.
            InvalidArgumentType: `t` is not a datetime.
        """
        return SeekPosition("timestamp", search_ns_of(t))


SeekPosition.BEGINNING = SeekPosition("beginning")
SeekPosition.LAST_ACKNOWLEDGED = SeekPosition("last_acknowledged")
SeekPosition.LATEST = SeekPosition("latest")


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsumerState:
    """One consumer, as `consumers()` lists it.

    `last_acked`: the number before the consumer's next event (`None`: that is the first one).
    `lag`: stored events after the position. `last_seen`: when `ack` or `seek` last set the
    position. `state`: what the last `ack(..., state=)` stored with it, or `None`.
    """

    name: str
    last_acked: int | None
    lag: int
    last_seen: datetime
    state: bytes | None = None


def check_position(position: object) -> SeekPosition:
    """The position itself.

    Raises:
        InvalidArgumentType: it is something else.
    """
    if not isinstance(position, SeekPosition):
        raise InvalidArgumentType(
            f"the position is {position!r}; give SeekPosition.BEGINNING, .LAST_ACKNOWLEDGED,"
            " .LATEST, .sequence(n) or .timestamp(t)"
        )
    return position


def check_seq_no(seq_no: object, *, consumer: str | None = None) -> int:
    """The number itself, if it is one that an event could have, or 0; numpy's become Python's.

    Raises:
        InvalidArgument: it is negative or does not fit 63 bits.
        InvalidArgumentType: it is not a whole number.
    """
    number = whole_number(seq_no)
    if number is None:
        raise InvalidArgumentType(
            f"the sequence number is {seq_no!r}; give a whole number", consumer=consumer
        )
    if not 0 <= number <= SEQ_NO_MAX:
        raise InvalidArgument(
            f"the sequence number is {number}; give one from 0 to 2**63 - 1",
            consumer=consumer,
            seq_no=number,
        )
    return number


def whole_number(value: object) -> int | None:
    """The value as an `int`, also one of numpy's, as frames and arrays hold; `None` if it is none.

    `True` and `False` are none.
    """
    if isinstance(value, bool) or not isinstance(value, SupportsIndex):
        return None
    try:
        return index(value)
    except TypeError:  # numpy's arrays, which have the method in vain, and its bools
        return None


def check_state(state: object, consumer: str) -> bytes | None:
    """The state itself, if a consumer can have it.

    Raises:
        InvalidArgument: it is too large.
        InvalidArgumentType: it is not bytes.
    """
    if state is None:
        return None
    if not isinstance(state, bytes):
        raise InvalidArgumentType(
            f"the state of consumer {consumer!r} is {state!r:.80}; give bytes", consumer=consumer
        )
    if len(state) > STATE_BYTES_MAX:
        raise InvalidArgument(
            f"the state of consumer {consumer!r} has {len(state)} bytes; give {STATE_BYTES_MAX} at"
            " most, and keep more in a file of yours that the state names",
            consumer=consumer,
        )
    return state


def check_name(name: object) -> str:
    """The consumer's name itself.

    Raises:
        InvalidName: it is not 1 to 128 printable characters.
        InvalidArgumentType: it is not a string.
    """
    if not isinstance(name, str):
        raise InvalidArgumentType(f"the consumer's name is {name!r}; give a string")
    if not 1 <= len(name) <= NAME_CHARACTERS_MAX or not name.isprintable():
        raise InvalidName(
            f"{name[:40]!r} ({len(name)} characters) is no name for a consumer: give 1 to"
            f" {NAME_CHARACTERS_MAX} printable characters",
            consumer=name[:NAME_CHARACTERS_MAX],
        )
    return name
