"""The part of a log that is about groups, for trio and asyncio."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

from eventlog.api.arguments import GroupOptions
from eventlog.api.group import DeadLetter, Group, GroupReport, Member
from eventlog.api.positions import SeekPosition
from eventlog.api.refusals import no_groups, no_operation
from eventlog.config import MAX_DELIVERIES_DEFAULT, GroupOrdering


class LogOfGroups(ABC):
    """What `EventLog` says of groups; an engine without them refuses each call."""

    @property
    @abstractmethod
    def path(self) -> str:
        """Where the log is."""

    def group(
        self,
        name: str,
        *,
        ordering: GroupOrdering = None,
        max_deliveries: int = MAX_DELIVERIES_DEFAULT,
        position: SeekPosition = SeekPosition.LAST_ACKNOWLEDGED,
    ) -> AbstractAsyncContextManager[Group]:
        """A group of this log, made when the block is entered if there is none of that name.

        `ordering="key"`: events of one key are handed out one at a time, in order. An event whose
        handling failed `max_deliveries` times becomes a dead letter. `position` is where a group
        begins that is made now.

        Raises:
            NotSupported: the engine has no groups.
            InvalidName, InvalidArgument, InvalidArgumentType: an option makes no sense.
            (when entered) GroupMismatch: the group has members that work with other options.
        """
        return self._group(GroupOptions(name, ordering, max_deliveries, position).checked())

    def _group(self, _options: GroupOptions) -> AbstractAsyncContextManager[Group]:
        """The group, whose options are checked."""
        raise no_groups(self.path)

    @asynccontextmanager
    async def member(
        self,
        group: str,
        *,
        ordering: GroupOrdering = None,
        max_deliveries: int = MAX_DELIVERIES_DEFAULT,
        position: SeekPosition = SeekPosition.LAST_ACKNOWLEDGED,
        output: str | None = None,
    ) -> AsyncIterator[Member]:
        """A member of a group for a program's own loop, without a pool; its block's end leaves.

        ::

            async with log.member("resize") as member:
                while lease := await member.lease(10):
                    for attempt, envelope in lease:
                        if lease.begin(envelope):
                            handle(envelope.event)
                            lease.done(envelope)

        The options are those of `group`; `output` is the log of `Lease.done_with`.

        Raises:
            (when entered) what `group` and `Group.open_member` raise.
        """
        asked = self.group(
            group, ordering=ordering, max_deliveries=max_deliveries, position=position
        )
        async with asked as opened, await opened.open_member(output=output) as member:
            yield member

    async def groups(self) -> list[GroupReport]:
        """The groups of this log, by name.

        Raises:
            NotSupported: the engine has no groups.
            CorruptLog: what is stored of them is damaged.
        """
        raise no_groups(self.path)

    async def dead_letters(self, group: str) -> list[DeadLetter]:
        """The dead letters of a group, in the order in which they died; none if it is unknown.

        Raises:
            InvalidName, InvalidArgumentType: the group's name is none.
            NotSupported: the engine has no groups.
            CorruptLog: what is stored of them is damaged.
        """
        raise no_groups(self.path)

    async def retry_dead(self, group: str, seq_nos: Iterable[int]) -> int:
        """Hand dead letters of a group out again; how many of the numbers were some.

        A letter is stored until its event is handled: it has a copy, should retention delete that.

        Raises:
            InvalidArgument: there is no such group, or an event is deleted and its letter has no
                copy of it; then nothing is retried.
            InvalidArgumentType: the numbers are none.
        """
        raise no_groups(self.path)

    async def retry_corrected(self, group: str, seq_no: int, event: Any) -> int:
        """Hand a dead letter of a group out again with another event in its place; 1 if it was one.

        The group's handlers get that event under the old number, key and headers, until one of them
        has handled it. The log stays as it is, and so does what others read.

        Raises:
            InvalidArgument: there is no such group.
            InvalidEvent, EventTooLarge: the event cannot be stored.
            NotSupported: the engine cannot do that.
        """
        raise no_operation("retry_corrected", self.path)

    async def drop_dead(self, group: str, seq_nos: Iterable[int]) -> int:
        """Forget dead letters of a group; how many of the numbers were some.

        Raises:
            InvalidArgument, InvalidArgumentType: the numbers are none.
        """
        raise no_groups(self.path)
