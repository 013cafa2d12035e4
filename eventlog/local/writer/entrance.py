"""Letting clients in, as long as there are descriptors for them and some are left for the storage.

A client that is not let in waits in the socket's backlog, as one does whose writer is starting.
"""

from __future__ import annotations

import errno
import logging
import math
from collections.abc import Awaitable, Callable
from typing import Final, NoReturn

import trio

from eventlog.system import has_spare_descriptors

logger = logging.getLogger("eventlog.writer")

EXHAUSTED: Final = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS)
LOOK_AGAIN_S: Final = 0.1
EPISODE_S: Final = 60.0
"""While clients come and go at the limit, it is one episode, and one line of the writer's log."""


class Entrance:
    """The writer's listening socket."""

    def __init__(self, listener: trio.SocketListener, count: Callable[[], int]) -> None:
        self._listener = listener
        self._count = count
        self._last_full_s = -math.inf

    async def admit(
        self, nursery: trio.Nursery, serve: Callable[[trio.SocketStream], Awaitable[None]]
    ) -> NoReturn:
        """Start a task for each client, for ever; the socket is closed when this is cancelled."""
        async with self._listener:
            while True:
                while self._count() and not has_spare_descriptors(self._listener.socket.fileno()):
                    await self._wait_for_room("few descriptors are left")
                try:
                    stream = await self._listener.accept()
                except OSError as error:
                    if error.errno not in EXHAUSTED:
                        raise
                    await self._wait_for_room(str(error))
                else:
                    nursery.start_soon(serve, stream)

    async def _wait_for_room(self, reason: str) -> None:
        now_s = trio.current_time()
        if now_s - self._last_full_s > EPISODE_S:
            logger.warning(
                "%d clients are connected, and others wait until some of them leave (%s); raise the"
                " limit of open files for the writer: ulimit -Hn, or LimitNOFILE= of its unit",
                *(self._count(), reason),
            )
        self._last_full_s = now_s
        await trio.sleep(LOOK_AGAIN_S)
