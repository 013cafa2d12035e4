"""The place of a log: its writer alone looks whether it is still there.

Those who only wait cannot tell that the log was deleted. They lose their pipes when the writer
ends, look for the log, and find none or another one.
"""

from __future__ import annotations

from typing import Final

import trio

from eventlog.errors import LogDeleted
from eventlog.local.storage.log import WritableLog
from eventlog.local.wire.group_messages import Bury, Dismiss, DropDead, Join, OpenGroup, RetryDead
from eventlog.local.wire.messages import Ack, Append, Forget, Seek, Status

PLACE_LOOK_S: Final = 1.0
"""How long those who only wait may not know that the log was deleted."""
CHECKED: Final = frozenset(
    {Append, Ack, Seek, Forget, Status, OpenGroup, Join, Bury, RetryDead, DropDead, Dismiss}
)
"""Requests that are refused at once when the log was deleted: each has to last."""


class Place:
    """The directory of an open log."""

    def __init__(self, log: WritableLog) -> None:
        self._log = log

    async def wait_deleted(self) -> None:
        """Wait until the directory is deleted, or another log lies there."""
        while not self.is_deleted():  # noqa: ASYNC110 - no event tells it
            await trio.sleep(PLACE_LOOK_S)

    def is_deleted(self) -> bool:
        """Whether the directory is deleted, or another log lies there."""
        try:
            return self._log.control.is_replaced()
        except OSError:
            return False  # nobody can look just now, which says nothing of the log

    def deleted(self) -> LogDeleted:
        """The error for whoever uses the deleted log."""
        return LogDeleted(
            f"the log {self._log.directory} was deleted while its writer was running; open it again"
            " to make a new one",
            path=self._log.directory,
        )
