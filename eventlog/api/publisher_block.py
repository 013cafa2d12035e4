"""The block of a publisher on trio and asyncio: its tasks, and the flush at its end.

A publisher of an engine derives from `FlushedAtEnd`; `leaving` says how long it is flushed.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeVar

import anyio

from eventlog.api.leaving import (
    INTERRUPTED_FLUSH_S,
    INTERRUPTS,
    flush_limit_s,
    not_flushed,
    warn_of_unstored,
)
from eventlog.api.publisher import Publisher
from eventlog.errors import EventLogError


class FlushedAtEnd(Publisher):
    """A publisher whose block flushes it at its end."""

    path: str
    """The log's."""
    flush_s: float

    @property
    @abstractmethod
    def is_inherited(self) -> bool:
        """Whether this process is a forked child, whose parent has the publisher."""

    @abstractmethod
    def check_usable(self) -> None:
        """Pass in the handle's process and event loop."""

    @property
    @abstractmethod
    def unstored(self) -> int:
        """Events that were sent and are not stored."""

    @abstractmethod
    def drop_half(self) -> None:
        """Drop an event that an interrupt left half added."""

    @abstractmethod
    def close(self) -> None:
        """Give everything back; what was not answered never will be. May be called twice."""

    async def leave(self, error: BaseException | None) -> None:
        """Flush at the end of the block, which ends with this exception, as `leaving` says.

        Raises:
            EventLogError: the block ended without an exception, and not all could be stored.
        """
        if self.is_inherited:
            if error is None:
                self.check_usable()
            return
        limit_s = flush_limit_s(error, self.flush_s)
        is_told = False
        try:
            if limit_s:
                await self._flush_within(limit_s)
        except EventLogError:
            is_told = error is None
            if is_told:
                raise
        except INTERRUPTS:
            # Not the second one.
            if not isinstance(error, INTERRUPTS):
                with suppress(EventLogError):
                    await self._flush_within(INTERRUPTED_FLUSH_S)
            raise
        finally:
            unstored = 0 if is_told else self.unstored
            self.close()
            warn_of_unstored(self.path, unstored)

    async def _flush_within(self, limit_s: float) -> None:
        self.drop_half()
        with anyio.move_on_after(limit_s) as limit:
            await self.flush()
        if limit.cancelled_caught:
            raise not_flushed(self.path, self.unstored, limit_s)


P = TypeVar("P", bound=FlushedAtEnd)


@asynccontextmanager
async def publisher_block(
    publisher: P, *tasks: Callable[[], Coroutine[Any, Any, None]]
) -> AsyncIterator[P]:
    """The publisher, with its tasks running, until the block ends; the tasks raise nothing."""
    try:
        async with anyio.create_task_group() as group:
            for task in tasks:
                group.start_soon(task)
            try:
                yield publisher
            except BaseException as error:
                await publisher.leave(error)
                raise
            else:
                await publisher.leave(None)
            finally:
                publisher.close()
                group.cancel_scope.cancel()
    except BaseExceptionGroup as group_of_one:
        # The block's own exception, as it would be without our tasks: they raise none.
        if len(group_of_one.exceptions) == 1:
            raise group_of_one.exceptions[0] from group_of_one.exceptions[0].__cause__
        raise
