"""Checks of arguments that several engines take."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple, Self

from eventlog.api.positions import (
    SEQ_NO_MAX,
    SeekPosition,
    check_name,
    check_position,
    check_seq_no,
    whole_number,
)
from eventlog.api.refusals import no_consumer
from eventlog.config import MAX_DELIVERIES_LIMIT, MAX_IN_FLIGHT_LIMIT, GroupOrdering
from eventlog.errors import InvalidArgument, InvalidArgumentType
from eventlog.event.envelope import EventEnvelope
from eventlog.event.filters import EventFilter
from eventlog.event.moments import search_ns_of
from eventlog.event.texts import check_key


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """What a `read` was asked for: numbers, or times."""

    start: int = 0
    """0 is the first event stored; a negative number counts from the end."""
    stop: int | None = None
    since_ns: int | None = None
    until_ns: int | None = None
    filter: EventFilter | None = None
    """The events wanted of these; `None` if all are."""

    @classmethod
    def of(
        cls,
        start: object,
        stop: object,
        since: datetime | None,
        until: datetime | None,
        key: object = None,
    ) -> Bounds:
        """The arguments of `read`, checked.

        Raises:
            InvalidArgument, InvalidArgumentType: they are of the wrong kind, or do not go together.
        """
        wanted = None if key is None else EventFilter(keys=[check_key(key)])
        if since is None and until is None:
            if start is None and key is None:
                raise InvalidArgumentType(
                    "read needs start, since, until or key; give start=0 for all that is stored"
                )
            return cls(
                start=0 if start is None else _check_start(start),
                stop=None if stop is None else check_seq_no(stop),
                filter=wanted,
            )
        if start is not None or stop is not None:
            raise InvalidArgument(
                "read takes numbers (start, stop) or times (since, until); give one kind"
            )
        return cls(
            since_ns=None if since is None else search_ns_of(since),
            until_ns=None if until is None else search_ns_of(until),
            filter=wanted,
        )

    def numbers(
        self, first_available: int, last_seq_no: int, find_time: Callable[[int], int]
    ) -> tuple[int, int]:
        """Start and stop in a log with these events; `find_time` finds the first one of a time."""
        end = last_seq_no + 1
        start, stop = self.start, self.stop
        if start < 0:
            start = max(end + start, first_available)
        if self.since_ns is not None:
            start = find_time(self.since_ns)
        if self.until_ns is not None:
            stop = find_time(self.until_ns)
        return start, end if stop is None else min(stop, end)


def _check_start(start: object) -> int:
    number = whole_number(start)
    if number is not None and -SEQ_NO_MAX <= number < 0:
        return number
    return check_seq_no(start)


def check_follow(position: object) -> SeekPosition:
    """The position of a stream without a consumer.

    Raises:
        InvalidArgument: it is a consumer's.
        InvalidArgumentType: it is none.
    """
    position = check_position(position)
    if position.kind == "last_acknowledged":
        raise InvalidArgument(
            "a stream without a consumer has no acknowledged position; give another one, or"
            " subscribe with a consumer's name"
        )
    return position


def check_stream_ack(consumer: str | None, event: object, path: str) -> tuple[str, int]:
    """Consumer and number of what a stream is told to acknowledge: an envelope, or a number.

    Raises:
        InvalidArgument: the stream has no consumer, or the envelope no number.
        InvalidArgumentType: the event is neither.
    """
    if consumer is None:
        raise no_consumer(path)
    if not isinstance(event, EventEnvelope):
        return consumer, check_seq_no(event, consumer=consumer)
    if event.seq_no is None:
        raise InvalidArgument(
            f"consumer {consumer!r} cannot acknowledge an envelope that was not appended to the log"
            f" {path}: it has no number",
            path=path,
            consumer=consumer,
        )
    return consumer, event.seq_no


class PublisherOptions(NamedTuple):
    """Options of a `publisher`."""

    linger: float
    max_batch_bytes: int
    max_in_flight: int
    flush_s: float

    def checked(self, path: str) -> Self:
        """The options themselves, if they mean something.

        Raises:
            InvalidArgument, InvalidArgumentType: they don't.
        """
        linger, max_batch_bytes, max_in_flight, flush_s = self
        for name, seconds in {"linger": linger, "flush_s": flush_s}.items():
            if isinstance(seconds, bool) or not isinstance(seconds, int | float):
                raise InvalidArgumentType(
                    f"{name} is {seconds!r}; give a number of seconds", path=path
                )
        for name, value in {
            "max_batch_bytes": max_batch_bytes,
            "max_in_flight": max_in_flight,
        }.items():
            if isinstance(value, bool) or not isinstance(value, int):
                raise InvalidArgumentType(f"{name} is {value!r}; give a whole number", path=path)
        if not 0 <= linger < 3600:
            raise InvalidArgument(
                f"linger is {linger}; give seconds, 0 to less than 3600", path=path
            )
        if not 0 <= flush_s < float("inf"):
            raise InvalidArgument(f"flush_s is {flush_s}; give seconds, 0 or more", path=path)
        if max_batch_bytes < 1:
            raise InvalidArgument(
                f"max_batch_bytes is {max_batch_bytes}; give 1 or more", path=path
            )
        if not 1 <= max_in_flight <= MAX_IN_FLIGHT_LIMIT:
            raise InvalidArgument(
                f"max_in_flight is {max_in_flight}; give 1 to {MAX_IN_FLIGHT_LIMIT}, which is what"
                " the writer remembers of a producer",
                path=path,
            )
        return self


class GroupOptions(NamedTuple):
    """Name and options of a `group`."""

    name: str
    ordering: GroupOrdering
    max_deliveries: int
    position: SeekPosition

    def checked(self) -> Self:
        """The options themselves, if a group can have that name, and these.

        Raises:
            InvalidName, InvalidArgument, InvalidArgumentType: it cannot.
        """
        name, ordering, max_deliveries, position = self
        check_name(name)
        if ordering not in (None, "key"):
            raise InvalidArgument(f'ordering={ordering!r}; give None or "key"', consumer=name)
        if isinstance(max_deliveries, bool) or not isinstance(max_deliveries, int):
            raise InvalidArgumentType(f"max_deliveries={max_deliveries!r}; give a whole number")
        if not 1 <= max_deliveries <= MAX_DELIVERIES_LIMIT:
            raise InvalidArgument(
                f"max_deliveries={max_deliveries}; give 1 to {MAX_DELIVERIES_LIMIT}", consumer=name
            )
        check_position(position)
        return self


def check_numbers(group: str, seq_nos: Iterable[int]) -> set[int]:
    """The numbers of a group's dead letters.

    Raises:
        InvalidArgument, InvalidArgumentType: they are no numbers.
    """
    if not isinstance(seq_nos, Iterable):
        raise InvalidArgumentType(
            f"the sequence numbers are {seq_nos!r:.80}; give a list of them", consumer=group
        )
    return {check_seq_no(number, consumer=group) for number in seq_nos}


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


def check_count(name: str, value: object) -> int:
    """The number itself, if it counts events to lease.

    Raises:
        InvalidArgument, InvalidArgumentType: it does not.
    """
    number = value if type(value) is int else whole_number(value)
    if number is None:
        raise InvalidArgumentType(f"{name}={value!r}; give a whole number")
    if not 1 <= number <= SEQ_NO_MAX:
        raise InvalidArgument(f"{name}={number}; give 1 or more")
    return number
