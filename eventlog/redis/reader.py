"""A stream's reader: pages of the log, and at its end the word that it has changed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from eventlog.config import KIB
from eventlog.remote.driver import Stored, Unreachable
from eventlog.remote.record import bytes_in

if TYPE_CHECKING:
    from eventlog.redis.driver import RedisDriver
    from eventlog.redis.link import Asked

COUNT_MAX: Final = 1024
PAGE_BYTES: Final = 512 * KIB
"""What a page is to have at most, as the one before it lets expect."""


class RedisReader:
    """The reader of one stream."""

    def __init__(self, driver: RedisDriver, seq_no: int) -> None:
        self._driver = driver
        self._next = seq_no
        self._count = _count_for(driver.mean_bytes)
        self._ahead: Asked | None = None
        """The next page, on its way."""
        self._connection: int | None = None
        """The number of the one over which it reads."""

    async def next(self) -> list[Stored]:
        """Wait for the next events."""
        link = self._driver.link
        while True:
            changed = await link.listen()
            if self._connection is None:
                self._connection = link.made
            found = await self._take_ahead() or await self._driver.read(self._next, self._count)
            if link.made != self._connection:
                raise Unreachable("the connection was lost meanwhile")
            if found:
                await self._go_on(found)
                return found
            await changed.wait()

    async def _take_ahead(self) -> list[Stored]:
        asked, self._ahead = self._ahead, None
        return [] if asked is None else await self._driver.page_of(asked, self._next)

    async def _go_on(self, page: list[Stored]) -> None:
        """Behind a page that is full, ask for the next one: it comes while this one is handled."""
        is_full = len(page) >= self._count
        self._next = page[-1].seq_no + 1
        self._count = min(_count_for(bytes_in(page) // len(page)), self._count * 2)
        if is_full:
            self._ahead = await self._driver.ask_page(self._next, self._count)

    async def aclose(self) -> None:
        """Nothing is held: what is on its way is dropped when it comes."""


def _count_for(mean_bytes: int) -> int:
    return max(1, min(PAGE_BYTES // (mean_bytes + 1), COUNT_MAX))
