"""A group of a local log, without an event loop; the twin of `local_group`."""

from __future__ import annotations

from typing import Any

from eventlog.api import forks
from eventlog.api.group import BlockingGroup as Group
from eventlog.local.client.group import check_pool_id, number_to_drain
from eventlog.local.client.handle import LocalHandle
from eventlog.local.client.member import GroupMember
from eventlog.local.client.threads import BlockingPipe
from eventlog.local.groups.stored import DeadLetter, read_dead_letters
from eventlog.local.wire.group_messages import AwaitDrained, OpenGroup


class BlockingLocalGroup(Group):
    """See `eventlog.blocking.Group`."""

    def __init__(self, handle: LocalHandle, fields: tuple[str, str, int, int]) -> None:
        self._handle = handle
        self._fields = fields
        self._pipe = BlockingPipe(handle.path, handle.new_channel())
        handle.pipes.add(self._pipe)

    @property
    def name(self) -> str:
        return self._fields[0]

    def _request(self, kind: Any, *fields: Any) -> Any:
        self._handle.check_open()
        with self._pipe.lock:
            return self._pipe.run(self._pipe.channel.request(kind, *fields))

    def open(self) -> None:
        """Make the group, or check that it works as this handle says."""
        self._request(OpenGroup, *self._fields)

    def join(self, pool_id: int = 0) -> GroupMember:
        return GroupMember(self._handle, self.name, check_pool_id(pool_id))

    def wait_drained(self, seq_no: int | None = None) -> None:
        last = self._handle.unless_closed(number_to_drain, self._handle, self.name, seq_no)
        self._request(AwaitDrained, self.name, last)

    def dead_letters(self) -> list[DeadLetter]:
        return read_dead_letters(self._handle.path, self.name)

    def close(self) -> None:
        if self._handle.generation == forks.generation:
            self._handle.pipes.discard(self._pipe)
            self._pipe.close()
