"""Options of a log, and every limit of the system with its unit and its reason."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any, Final, Literal, get_args

from eventlog.errors import CorruptLog, InvalidArgumentType, InvalidConfig

Durability = Literal["memory", "disk", "sync"]
OnFull = Literal["wait", "error"]
GroupOrdering = Literal["key"] | None

KIB: Final = 1024
MIB: Final = 1024 * KIB

SEGMENT_BYTES_DEFAULT: Final = 64 * MIB
"""Large enough that rolling is rare (less than twice a second at full speed)."""
SEGMENT_BYTES_MIN: Final = 4 * KIB
"""One page: below it headers would outweigh events."""
SEGMENT_BYTES_MAX: Final = 1024 * MIB
"""Offsets inside a segment are stored in 32 bits, with room to spare."""
MAX_EVENT_BYTES_DEFAULT: Final = 16 * MIB
EVENTS_PER_SEGMENT_MIN: Final = 2
"""A segment holds two events of the largest size, so that rolling for each cannot waste half."""

BATCH_BYTES_LIMIT: Final = 1 * MIB
"""Where `append_many` starts another batch: copies stay in the CPU's cache and one batch cannot
hold up the writer for more than a few milliseconds. A single larger event is a batch alone."""
BATCH_EVENTS_LIMIT: Final = 16_384
"""Bounds what a reader has in memory when a batch of tiny events is decoded at once."""
PUBLISHER_BATCH_BYTES_DEFAULT: Final = 256 * KIB
"""Fits into the send buffer of a pipe, so a batch is one system call. Only a producer that never
pauses fills it; with 64 KiB its events take a quarter longer, for wake-ups alone."""
PIPE_BUFFER_BYTES: Final = 208 * KIB
"""What Linux grants at most unless told otherwise (net.core.wmem_max); it doubles it."""
WRITE_AHEAD_BYTES: Final = 1 * MIB
"""Zeros written ahead in an active segment with durability "sync": a thousand small appends, or a
millisecond of the disk."""
STAGING_BYTES: Final = 8 * MIB
"""Size of a staging ring: several typical batches. Untouched pages use no memory."""
STAGED_BYTES_MIN: Final = 64 * KIB
"""Smaller batches go through the pipe, which is as fast for them (measured)."""
STAGING_RINGS_MAX: Final = 64
"""Bounds what producers can make a writer's machine hold; the others use their pipes."""
MAX_IN_FLIGHT_DEFAULT: Final = 8
FLUSH_S_DEFAULT: Final = 10.0
"""How long a publisher is flushed at the end of its block."""
MAX_IN_FLIGHT_LIMIT: Final = 64
"""The writer remembers this many batches of each producer, to answer a repeated one."""
PRODUCERS_REMEMBERED: Final = 4096
"""Producers whose latest batches the writer remembers; the least recently seen is forgotten."""

RETRY_S_DEFAULT: Final = 60.0
"""How long a call is repeated that a server does not answer: longer than its restart."""
LEASE_S_DEFAULT: Final = 30.0
"""After so long without a word a member of a group on a server is dead: longer than any pause of a
machine or network that people live with."""
LEASE_S_MIN: Final = 0.1

MAX_DELIVERIES_DEFAULT: Final = 5
"""Enough for what passes by itself; an event that fails this often is a case for a person."""
MAX_DELIVERIES_LIMIT: Final = 1_000_000
LEASE_RANGES_MAX: Final = 4096
"""Runs of numbers that one message may name: a lease has fewer events than that."""

RETENTION_BYTES_MAX: Final = 2**63 - 1
"""What every language's whole numbers hold."""
RETENTION_AGE_MAX: Final = timedelta(days=999_999_999)
"""Less than `timedelta.max`, which as seconds in a float is more than a `timedelta` can be."""

NAME_CHARACTERS_MAX: Final = 128
TABLE_NAME: Final = "table"
"""The snapshot of tables, in the directory of a log."""
STATE_BYTES_MAX: Final = 64 * KIB
"""Largest state of a consumer: a snapshot, and no place for a database."""
FRAME_OVERHEAD_BYTES: Final = 4 * KIB
"""What a frame may hold beside the events of one batch."""

LINGER_S_DEFAULT: Final = 10.0
"""How long an idle writer stays after its last connection: longer than a script's pause between
two opens, short enough that nobody meets it later."""
SYNC_INTERVAL_S: Final = 1.0
"""With durability "disk", a loss of power costs at most the appends of this last time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """What a log may keep, applied to whole segments; the active segment is never deleted.

    `max_bytes`: the oldest segments go while the log is larger than this many bytes: full segments
    count whole, and for an append the active one counts with what is stored in it. Give four
    segments or more, so that there is something to delete.
    `max_age`: segments go when their newest event is older. Age is measured by a clock that does
    not jump; after a reboot by stored times, once the wall clock has been right for ten seconds.
    `keep_unacked`: an event that some consumer has not acknowledged is never deleted; the limit is
    then enforced by `on_full`. A log without consumers keeps nothing back, and there is a consumer
    from its first `ack` or `seek` on: `seek(name, SeekPosition.BEGINNING)` keeps all for a new one.
    """

    max_bytes: int | None = None
    max_age: timedelta | None = None
    keep_unacked: bool = True

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            InvalidConfig: a limit is not positive, or larger than can be stored.
            InvalidArgumentType: a limit has another type.
        """
        if self.max_bytes is not None:
            _check_int("Retention.max_bytes", self.max_bytes)
            if not 1 <= self.max_bytes <= RETENTION_BYTES_MAX:
                raise InvalidConfig(f"Retention.max_bytes is {self.max_bytes}; give 1 to 2**63 - 1")
        if self.max_age is not None:
            if not isinstance(self.max_age, timedelta):
                raise InvalidArgumentType(
                    f"Retention.max_age is {self.max_age!r}; give a datetime.timedelta"
                )
            if not timedelta(0) < self.max_age <= RETENTION_AGE_MAX:
                raise InvalidConfig(
                    f"Retention.max_age is {self.max_age}; give a positive time of at most"
                    f" {RETENTION_AGE_MAX.days} days"
                )
        if not isinstance(self.keep_unacked, bool):
            raise InvalidArgumentType("Retention.keep_unacked is True or False")

    def to_dict(self) -> dict[str, Any]:
        """The stored form: plain values, seconds as float."""
        age = None if self.max_age is None else self.max_age.total_seconds()
        return {"max_bytes": self.max_bytes, "max_age_s": age, "keep_unacked": self.keep_unacked}

    @classmethod
    def from_dict(cls, stored: dict[str, Any]) -> Retention:
        """The inverse of `to_dict`."""
        age = stored["max_age_s"]
        return cls(
            max_bytes=stored["max_bytes"],
            max_age=None if age is None else timedelta(seconds=age),
            keep_unacked=stored["keep_unacked"],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class LogOptions:
    """What a log was made with, complete; `LogOptions.of` fills in what the user left out."""

    durability: Durability = "disk"
    retention: Retention = Retention()
    on_full: OnFull = "wait"
    segment_bytes: int = SEGMENT_BYTES_DEFAULT
    max_event_bytes: int = MAX_EVENT_BYTES_DEFAULT

    @classmethod
    def of(cls, asked: AskedOptions) -> LogOptions:
        """The options of a new log: `asked`, and defaults that fit it.

        Raises:
            InvalidConfig: the sizes contradict each other.
        """
        segment = asked.segment_bytes
        largest = asked.max_event_bytes
        if segment is None:
            wanted = EVENTS_PER_SEGMENT_MIN * ((largest or 0) + FRAME_OVERHEAD_BYTES)
            segment = max(_segment_bytes_for(asked.retention), min(wanted, SEGMENT_BYTES_MAX))
        if largest is None:
            largest = min(MAX_EVENT_BYTES_DEFAULT, segment // (2 * EVENTS_PER_SEGMENT_MIN))
        if largest * EVENTS_PER_SEGMENT_MIN > segment:
            raise InvalidConfig(
                f"max_event_bytes={largest} does not fit segment_bytes={segment}: a segment holds"
                f" at least {EVENTS_PER_SEGMENT_MIN} events; give a larger segment_bytes"
            )
        return cls(
            durability=asked.durability or "disk",
            retention=asked.retention or Retention(),
            on_full=asked.on_full or "wait",
            segment_bytes=segment,
            max_event_bytes=largest,
        )

    @property
    def batch_bytes_max(self) -> int:
        """The bytes of events past which `append_many` starts another batch."""
        return max(min(BATCH_BYTES_LIMIT, self.segment_bytes // 4), 1)

    @property
    def frame_bytes_max(self) -> int:
        """The largest frame that the two ends of a pipe accept."""
        return max(self.segment_bytes, STATE_BYTES_MAX) + FRAME_OVERHEAD_BYTES

    def changed(self, asked: AskedOptions) -> LogOptions:
        """The options after a change of those that are given.

        Raises:
            InvalidConfig: one of them is fixed when the log is made.
        """
        for name in asked.given:
            if name not in CHANGEABLE:
                raise InvalidConfig(f"{name} of a log stays as it was made; make another log")
        return replace(self, **{name: getattr(asked, name) for name in asked.given})

    def to_dict(self) -> dict[str, Any]:
        """The stored form."""
        return {
            "durability": self.durability,
            "retention": self.retention.to_dict(),
            "on_full": self.on_full,
            "segment_bytes": self.segment_bytes,
            "max_event_bytes": self.max_event_bytes,
        }

    @classmethod
    def from_dict(cls, stored: dict[str, Any]) -> LogOptions:
        """The inverse of `to_dict`.

        Raises:
            CorruptLog: no log was ever made with these.
        """
        try:
            asked = {**stored, "retention": Retention.from_dict(stored["retention"])}
            AskedOptions(**asked)  # checks each
            return cls(**asked)
        except (InvalidConfig, ArithmeticError, LookupError, TypeError) as error:
            raise CorruptLog(f"options that no log can have: {error}") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class AskedOptions:
    """The options as given to `open`: `None` means "whatever the log has, or the default"."""

    durability: Durability | None = None
    retention: Retention | None = None
    on_full: OnFull | None = None
    segment_bytes: int | None = None
    max_event_bytes: int | None = None
    retry_s: float | None = None
    """How long a handle repeats a call that a server does not answer; not stored with the log."""
    lease_s: float | None = None
    """After so long without a word of a member of this handle a group on a server takes it for
    dead; not stored with the log."""
    user: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)
    """User, password and token for a server; they go before the address, and are shown nowhere."""
    start_writer: bool | None = None
    """`False`: this handle starts no writer; not stored with the log."""
    writer_cpus: Collection[int] | None = None
    """The processors of a writer that this handle starts; not stored with the log."""

    def __post_init__(self) -> None:
        """Check each value by itself.

        Raises:
            InvalidConfig: a value is not one of the allowed.
            InvalidArgumentType: a value has another type.
        """
        _check_choice("durability", self.durability, get_args(Durability))
        _check_choice("on_full", self.on_full, get_args(OnFull))
        if self.retention is not None and not isinstance(self.retention, Retention):
            raise InvalidArgumentType(f"retention is {self.retention!r}; give eventlog.Retention")
        if self.segment_bytes is not None:
            _check_int("segment_bytes", self.segment_bytes)
            if not SEGMENT_BYTES_MIN <= self.segment_bytes <= SEGMENT_BYTES_MAX:
                raise InvalidConfig(
                    f"segment_bytes={self.segment_bytes} is not between {SEGMENT_BYTES_MIN}"
                    f" and {SEGMENT_BYTES_MAX}"
                )
        if self.max_event_bytes is not None:
            _check_int("max_event_bytes", self.max_event_bytes)
            if self.max_event_bytes < 1:
                raise InvalidConfig(f"max_event_bytes={self.max_event_bytes}; give 1 or more")
        _check_seconds("retry_s", self.retry_s, 0)
        _check_seconds("lease_s", self.lease_s, LEASE_S_MIN)
        if self.start_writer is not None and not isinstance(self.start_writer, bool):
            raise InvalidArgumentType("start_writer is True or False")
        if self.writer_cpus is not None:
            _check_cpus(self.writer_cpus)
        for name in CREDENTIALS:
            _check_credential(name, getattr(self, name))

    @property
    def given(self) -> list[str]:
        """The names of the options that were given."""
        return [name for name in self.__dataclass_fields__ if getattr(self, name) is not None]

    def to_dict(self) -> dict[str, Any]:
        """Those that were given and that the log has, as a message carries them."""
        given = {name: getattr(self, name) for name in self.given if name not in _OF_HANDLES}
        if self.retention is not None:
            given["retention"] = self.retention.to_dict()
        return given

    @classmethod
    def from_dict(cls, said: dict[str, Any]) -> AskedOptions:
        """The inverse of `to_dict`.

        Raises:
            InvalidConfig: no log can have them.
        """
        try:
            kept = said.get("retention")
            asked = said if kept is None else {**said, "retention": Retention.from_dict(kept)}
            return cls(**asked)
        except (ArithmeticError, LookupError, TypeError) as error:
            raise InvalidConfig(f"options that no log can have: {error}") from error

    def of_handles(self) -> dict[str, Any]:
        """Those that were given and that each handle has for itself."""
        return {name: getattr(self, name) for name in self.given if name in _OF_HANDLES}

    def check_against(
        self, stored: LogOptions, path: str, changed: Collection[str] = ()
    ) -> list[str]:
        """Refuse options that contradict the ones that the log at `path` was made with.

        Those that were `changed` since are none of the caller's fault; he gets a sentence for each.

        Raises:
            InvalidConfig: naming the option, the stored value and the one asked for.
        """
        differing: list[str] = []
        for name in self.given:
            asked, has = getattr(self, name), getattr(stored, name, None)
            if name in _OF_HANDLES or asked == has:
                continue
            if name not in changed:
                way = ", or change it with `log.configure`" * (name in CHANGEABLE)
                raise InvalidConfig(
                    f"the log {path} was made with {name}={has!r}, and {name}={asked!r} was asked"
                    f" for; open it without {name}, or with the value that it has{way}",
                    path=path,
                )
            differing.append(
                f"the log {path} was configured with {name}={has!r} since it was made, and"
                f" {name}={asked!r}, which was asked for, changes nothing; leave it out, or use"
                " `log.configure`"
            )
        return differing


CHANGEABLE: Final = ("retention", "on_full")
"""Options of a log that can be changed after it is made."""
CREDENTIALS: Final = ("user", "password", "token")
_OF_HANDLES: Final = frozenset({"retry_s", "lease_s", "start_writer", "writer_cpus", *CREDENTIALS})
"""Options that are not the log's, so that each handle may have other ones."""


def _segment_bytes_for(retention: Retention | None) -> int:
    """Retention deletes whole segments, so a small limit asks for small ones to be of any use."""
    if retention is None or retention.max_bytes is None:
        return SEGMENT_BYTES_DEFAULT
    quarter = retention.max_bytes // 4
    return min(max(quarter, MIB), SEGMENT_BYTES_DEFAULT)


def _check_choice(name: str, value: object, allowed: tuple[str, ...]) -> None:
    if value is not None and value not in allowed:
        choices = ", ".join(map(repr, allowed))
        raise InvalidConfig(f"{name}={value!r} is not one of {choices}")


def _check_seconds(name: str, value: object, least: float) -> None:
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidArgumentType(f"{name} is {value!r}; give a number of seconds")
    if not least <= value < float("inf"):
        raise InvalidConfig(f"{name}={value}; give seconds, {least} or more")


def _check_cpus(value: object) -> None:
    numbers = value if isinstance(value, Collection) and not isinstance(value, str | bytes) else ""
    if not numbers or not all(type(one) is int and one >= 0 for one in numbers):
        raise InvalidArgumentType(
            f"writer_cpus is {value!r}; give the numbers of processors, such as [0, 1]"
        )


def _check_credential(name: str, value: object) -> None:
    """The error does not show it."""
    if value is not None and not isinstance(value, str):
        raise InvalidArgumentType(f"{name} is of type {type(value).__name__}; give a string")
    if value == "":
        raise InvalidConfig(f"{name} is empty; leave it out, or give one")


def _check_int(name: str, value: object) -> None:
    if not isinstance(value, int) or isinstance(value, bool):
        raise InvalidArgumentType(f"{name} is {value!r}; give a whole number")
