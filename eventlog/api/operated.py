"""The part of a log that is about operating it: its options, and what it keeps."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from datetime import datetime

from eventlog.api.positions import SeekPosition, check_seq_no, whole_number
from eventlog.api.refusals import no_operation
from eventlog.config import AskedOptions, LogOptions, OnFull, Retention
from eventlog.errors import InvalidArgumentType


@dataclass(frozen=True, slots=True, kw_only=True)
class Trimmed:
    """What `trim` deleted."""

    deleted: int
    """How many events; they are the ones before `first_available`."""
    first_available: int
    """The oldest event that is stored now; the next one to come if there is none."""


def position_before(before: object) -> SeekPosition:
    """The event before which a log is trimmed.

    Raises:
        InvalidArgument, InvalidArgumentType: it is no number, and no time with a zone.
    """
    if isinstance(before, datetime):
        return SeekPosition.timestamp(before)
    if whole_number(before) is None:
        raise InvalidArgumentType(f"trim before {before!r}: give a number, or a datetime")
    return SeekPosition.sequence(check_seq_no(before))


class OperatedLog(ABC):
    """What `EventLog` says of that; an engine that cannot do it refuses the call."""

    @property
    @abstractmethod
    def path(self) -> str:
        """Where the log is."""

    async def configure(
        self, *, retention: Retention | None = None, on_full: OnFull | None = None
    ) -> LogOptions:
        """Change options of the log, for everybody and for good; the options that it has then.

        What is not given stays; without any, nothing is changed, and no writer is needed. A change
        works from now on: a lower limit deletes at once, a higher one lets appends go on that wait
        for room. Durability and the sizes of segments and events stay as the log was made.

        Raises:
            InvalidConfig, InvalidArgumentType: an option makes no sense.
            NotSupported: the engine cannot change options.
            WriterUnavailable: no writer could be reached or started.
        """
        return await self._configure(AskedOptions(retention=retention, on_full=on_full))

    async def _configure(self, asked: AskedOptions) -> LogOptions:
        raise no_operation("configure", self.path)

    async def trim(self, before: int | datetime, *, force: bool = False) -> Trimmed:
        """Delete events before a number, or a time of storing, as far as whole segments hold them.

        The segment that is written to stays. Groups and consumers go on; a reader that is behind
        gets `EventsTruncated`. Dead letters have copies of their events.

        Raises:
            NotAcknowledged: a consumer has not acknowledged one of them, and `force` is not given;
                nothing is deleted.
            InvalidArgument, InvalidArgumentType: `before` is no number and no time.
            NotSupported: the engine cannot delete events.
            WriterUnavailable: no writer could be reached or started.
        """
        return await self._trim(position_before(before), force=bool(force))

    async def _trim(self, position: SeekPosition, *, force: bool) -> Trimmed:
        raise no_operation("trim", self.path)


class OperatedBlockingLog(ABC):
    """The same without `async`."""

    @property
    @abstractmethod
    def path(self) -> str:
        """Where the log is."""

    def configure(
        self, *, retention: Retention | None = None, on_full: OnFull | None = None
    ) -> LogOptions:
        """Change options of the log; see `eventlog.EventLog.configure`."""
        return self._configure(AskedOptions(retention=retention, on_full=on_full))

    def _configure(self, asked: AskedOptions) -> LogOptions:
        raise no_operation("configure", self.path)

    def trim(self, before: int | datetime, *, force: bool = False) -> Trimmed:
        """Delete events before a number or a time; see `eventlog.EventLog.trim`."""
        return self._trim(position_before(before), force=bool(force))

    def _trim(self, position: SeekPosition, *, force: bool) -> Trimmed:
        raise no_operation("trim", self.path)
