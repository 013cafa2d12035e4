"""What both kinds of handle of a log in memory have, and which log a name means."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any
from weakref import WeakValueDictionary

from eventlog.api import forks
from eventlog.api.expectation import Expectation
from eventlog.api.positions import check_name, check_seq_no, check_state
from eventlog.api.refusals import closed, not_opened
from eventlog.api.statistics import Counters, PublisherStatistics
from eventlog.api.waiting import warn_of_options
from eventlog.config import AskedOptions, LogOptions
from eventlog.errors import InvalidArgumentType, LogFull, WrongExpectation
from eventlog.event.batch_builder import BatchBuilder
from eventlog.event.envelope import EventEnvelope
from eventlog.event.many_events import ManyEvents
from eventlog.event.record_batch import PackedBatch, areas_bytes, unpack_body
from eventlog.event.texts import Headers, Keys
from eventlog.memory.member import MemberCore
from eventlog.memory.model import MemoryLog

_named: dict[str, MemoryLog] = {}
_named_lock = threading.Lock()
_unnamed: WeakValueDictionary[str, MemoryLog] = WeakValueDictionary()
"""Logs without a name by their `address`, as long as somebody has them."""


def find_log(prefix: str, name: str, asked: AskedOptions) -> MemoryLog:
    """The process's log of that name, made if need be; without a name, a new one."""
    path = f"{prefix}{name}"
    if not name:
        return MemoryLog(path, LogOptions.of(asked))
    if (unnamed := _unnamed.get(path)) is not None:
        return unnamed
    with _named_lock:
        if path not in _named:
            _named[path] = MemoryLog(path, LogOptions.of(asked))
        log = _named[path]
    warn_of_options(asked.check_against(log.options, path, log.changed_options))
    return log


class MemoryHandle:
    """What both kinds of handle have: the log while they are open, and checks."""

    prefix = "memory:"
    """What stands before the name in the log's address."""

    def __init__(self, name: str, asked: AskedOptions, beside: MemoryHandle | None = None) -> None:
        self._log = beside.log if beside is not None else find_log(self.prefix, name, asked)
        self._is_open = False
        self._was_opened = False
        self.counters = Counters(PublisherStatistics)
        self._generation = forks.generation
        self.members: list[MemberCore] = []
        """Members of groups, through this handle: they leave when it is closed."""

    def __repr__(self) -> str:
        """The path, and whether the handle is open."""
        return f"<EventLog {self._log.path!r} {'open' if self._is_open else 'closed'}>"

    def __reduce__(self) -> tuple[Any, ...]:
        """Refuse: another process could not reach this one's memory."""
        raise InvalidArgumentType(
            f"the log {self._log.path} lives in this process and cannot be handed to another one;"
            " use a directory",
            path=self._log.path,
        )

    @property
    def path(self) -> str:
        """Where the log is."""
        return self._log.path

    @property
    def is_open(self) -> bool:
        """Between `open_handle` and `close_handle`."""
        return self._is_open

    @property
    def address(self) -> str:
        """Address that opens this very log in this process: its path, unless it has no name."""
        if self._log.path != self.prefix:
            return self._log.path
        address = f"{self.prefix}#{self._log.log_id.hex}"
        _unnamed[address] = self._log
        return address

    def open_handle(self) -> None:
        if not self._is_open:
            self._is_open = self._was_opened = True
            self._log.handles += 1

    def close_handle(self) -> None:
        if self._is_open:
            self._is_open = False
            self._log.handles -= 1
            for member in list(self.members):
                member.leave()
            self._log.wake()

    def forget_member(self, member: MemberCore) -> None:
        """It has left."""
        if member in self.members:
            self.members.remove(member)

    @property
    def log(self) -> MemoryLog:
        """The log.

        Raises:
            LogClosed, ForkedHandle: the handle is of no use here.
        """
        forks.check(self._generation, self._log.path)
        if not self._is_open:
            path = self._log.path
            raise closed("handle", path) if self._was_opened else not_opened(path)
        return self._log

    def ack_checked(self, consumer: str, seq_no: int, state: bytes | None) -> None:
        """See `EventLog.ack`."""
        consumer = check_name(consumer)
        seq_no = check_seq_no(seq_no, consumer=consumer)
        self.log.ack(consumer, seq_no, check_state(state, consumer))

    def packed(self, event: Any, key: str | None, headers: Mapping[str, str] | None) -> PackedBatch:
        builder = BatchBuilder(self.log.options.max_event_bytes, self.path)
        builder.add(event, key, headers)
        return builder.build()

    def only_event(self, event: Any) -> EventEnvelope:
        """The event as it would be read, once it was stored."""
        _, flags, _, payload = self.packed(event, None, None)
        (envelope,) = unpack_body(payload[areas_bytes(1, flags, 0) :], 1, 1)
        return envelope

    def many_events(self, keys: Keys, headers: Headers) -> ManyEvents:
        """What packs the events of an `append_many`."""
        options = self.log.options
        return ManyEvents(
            options.max_event_bytes, options.batch_bytes_max, self.path, keys, headers
        )

    def store(
        self,
        packed: PackedBatch,
        counters: Counters[PublisherStatistics],
        expected: Expectation | None = None,
    ) -> int | None:
        """Store a batch and count it; the first number, or `None` if it is to wait for room."""
        try:
            base = self.log.append(packed, expected)
        except LogFull as error:
            if self.is_worth_waiting(error):
                return None
            counters.refused += packed.count
            raise
        except WrongExpectation:
            counters.refused += packed.count
            raise
        counters.add_batch(packed.count, len(packed.payload))
        return base

    def is_worth_waiting(self, error: LogFull) -> bool:
        return error.is_by_retention and self._log.options.on_full == "wait"
