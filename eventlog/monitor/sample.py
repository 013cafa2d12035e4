"""What a log says of itself at one moment, asked by its public interface."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from eventlog import blocking
from eventlog.api.engines import is_directory
from eventlog.api.group import BlockingGroup, GroupReport, MemberReport
from eventlog.api.positions import ConsumerState
from eventlog.api.statistics import WriterStatistics
from eventlog.api.status import LogStatus
from eventlog.config import GroupOrdering
from eventlog.errors import EventLogError, NotSupported

T = TypeVar("T")
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessUse:
    """What a process of this machine has used."""

    cpu_s: float
    """Processor time since the process started, in seconds."""
    rss_bytes: int
    """Resident memory at the moment of the sample, in bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """A log at one moment; what its engine does not know is `None`."""

    taken_at: datetime
    clock_s: float
    """The same moment by the monotonic clock, which rates go by."""
    status: LogStatus
    consumers: tuple[ConsumerState, ...]
    waiting_since: dict[str, datetime]
    """When the first event was stored that a consumer, or a group, has not acknowledged."""
    groups: tuple[GroupReport, ...] | None = None
    members: dict[str, tuple[MemberReport, ...]] | None = None
    """The members of each group."""
    writer: WriterStatistics | None = None
    process: ProcessUse | None = None
    """Use of the writer's process."""


def opened_to_look(address: str) -> blocking.EventLog:
    """The log, open, whose writer nobody starts to look at it.

    Raises:
        EventLogError: it cannot be opened.
    """
    return blocking.open(address, start_writer=not is_directory(address))


class Sampler:
    """Takes samples of a log that is open; `close` lets go of its groups."""

    def __init__(self, log: blocking.EventLog) -> None:
        self._log = log
        self._opened = ExitStack()
        self._groups: dict[str, BlockingGroup] = {}

    def take(self) -> Sample:
        """The log as it is now.

        Raises:
            EventLogError: it does not say what every engine has to say.
        """
        status = self._log.status()
        consumers = tuple(self._log.consumers())
        groups = _unless_unsupported(self._log.groups)
        statistics = _unless_unsupported(self._log.statistics)
        positions = {one.name: one.last_acked or 0 for one in consumers}
        positions.update({one.name: one.position for one in groups or ()})
        return Sample(
            taken_at=datetime.now(UTC),
            clock_s=time.monotonic(),
            status=status,
            consumers=consumers,
            waiting_since=self._waiting_since(positions, status),
            groups=None if groups is None else tuple(groups),
            members=None if groups is None else dict(self._members(groups, status)),
            writer=None if statistics is None else statistics.writer,
            process=None if status.writer_pid is None else process_use(status.writer_pid),
        )

    def close(self) -> None:
        """Let go of the groups; the log stays open."""
        self._opened.close()
        self._groups.clear()

    def _waiting_since(self, positions: dict[str, int], status: LogStatus) -> dict[str, datetime]:
        first, last = status.first_seq_no, status.last_seq_no
        if first is None or last is None:
            return {}
        times: dict[int, datetime] = {}
        found: dict[str, datetime] = {}
        for name, position in positions.items():
            following = max(position + 1, first)
            if following > last:
                continue
            if following not in times and (moment := self._stored_at(following)) is not None:
                times[following] = moment
            if following in times:
                found[name] = times[following]
        return found

    def _stored_at(self, seq_no: int) -> datetime | None:
        with suppress(EventLogError):  # retention may delete it meanwhile
            for envelope in self._log.read(seq_no, seq_no + 1):
                return envelope.stored_at
        return None

    def _members(
        self, groups: list[GroupReport], status: LogStatus
    ) -> Iterator[tuple[str, tuple[MemberReport, ...]]]:
        if status.writer_pid is None:  # nobody would answer
            return
        for report in groups:
            with suppress(EventLogError):  # a group may change, or go, meanwhile
                group = self._groups.get(report.name) or self._open(report)
                group.refresh()
                yield report.name, tuple(group.members())

    def _open(self, report: GroupReport) -> BlockingGroup:
        ordering: GroupOrdering = "key" if report.ordering == "key" else None
        group = self._log.group(
            report.name, ordering=ordering, max_deliveries=report.max_deliveries
        )
        self._groups[report.name] = self._opened.enter_context(group)
        return group


def process_use(pid: int) -> ProcessUse | None:
    """What a process has used; `None` if this machine has none of that number."""
    try:
        # What follows the name, which may hold anything, in parentheses.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (OSError, ValueError):
        return None
    ticks = int(fields[11]) + int(fields[12])
    return ProcessUse(cpu_s=ticks / _TICKS_PER_S, rss_bytes=int(fields[21]) * _PAGE_BYTES)


def _unless_unsupported(call: Callable[[], T]) -> T | None:
    try:
        return call()
    except NotSupported:
        return None
