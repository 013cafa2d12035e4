"""A stream's reader: pages of the log, and at its end the word that it has changed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from eventlog.config import KIB
from eventlog.remote.driver import Stored, Unreachable
from eventlog.remote.record import bytes_in

if TYPE_CHECKING:
    from eventlog.redis.driver import RedisDriver

COUNT_MAX: Final = 1024
PAGE_BYTES: Final = 512 * KIB
"""What a page is to have at most, as the one before it lets expect."""


class RedisReader:
    """See the module."""

    def __init__(self, driver: RedisDriver, seq_no: int) -> None:
        self._driver = driver
        self._next = seq_no
        self._count = _count_for(driver.mean_bytes)
        self._connection: int | None = None
        """The number of the one over which it reads."""

    async def next(self) -> list[Stored]:
        """Wait for the next events."""
        link = self._driver.link
        while True:
            changed = await link.listen()
            if self._connection is None:
                self._connection = link.made
            found = await self._driver.read(self._next, self._count)
            if link.made != self._connection:
                raise Unreachable("the connection was lost meanwhile")
            if found:
                self._next = found[-1].seq_no + 1
                self._adapt(found)
                return found
            await changed.wait()

    def _adapt(self, page: list[Stored]) -> None:
        size = bytes_in(page) // len(page)
        self._count = min(_count_for(size), self._count * 2)

    async def aclose(self) -> None:
        """Nothing is held."""


def _count_for(mean_bytes: int) -> int:
    return max(1, min(PAGE_BYTES // (mean_bytes + 1), COUNT_MAX))
