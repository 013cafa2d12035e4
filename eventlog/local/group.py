"""A group of a local log, for trio and asyncio; `local_group_blocking` is its twin."""

from __future__ import annotations

from typing import Any

from eventlog.api import forks
from eventlog.api.group import Group
from eventlog.event.envelope import EventEnvelope
from eventlog.local.client.asynchronous import AsyncPipe
from eventlog.local.client.group import letter_bytes_max, number_to_drain
from eventlog.local.client.handle import LocalHandle
from eventlog.local.groups.stored import (
    DeadLetter,
    StoredLetters,
    envelope_of_letter,
    read_dead_letters,
)
from eventlog.local.wire.group_messages import (
    AwaitCondemned,
    AwaitDrained,
    Bury,
    Dismiss,
    Excuse,
    OpenGroup,
)


class LocalGroup(Group):
    """See `Group`. Each kind of waiting has a pipe of its own."""

    def __init__(self, handle: LocalHandle, fields: tuple[str, str, int, int]) -> None:
        self._handle = handle
        self._fields = fields
        self._pipes: dict[str, AsyncPipe] = {}

    @property
    def name(self) -> str:
        return self._fields[0]

    async def _request(self, purpose: str, kind: Any, *fields: Any) -> Any:
        self._handle.check_open()
        pipe = self._pipes.get(purpose)
        if pipe is None:
            pipe = self._pipes[purpose] = AsyncPipe(self._handle.path, self._handle.new_channel())
            self._handle.pipes.add(pipe)
        async with pipe.lock:
            return await pipe.run(pipe.channel.request(kind, *fields))

    async def open(self) -> None:
        """Make the group, or check that it works as this handle says."""
        await self._request("asking", OpenGroup, *self._fields)

    async def wait_drained(self, seq_no: int | None = None) -> None:
        last = number_to_drain(self._handle, self.name, seq_no)
        await self._request("draining", AwaitDrained, self.name, last)

    async def wait_condemned(self, pool_id: int) -> list[tuple[int, int, int]]:
        answer = await self._request("burying", AwaitCondemned, self.name, pool_id)
        return list(answer.events)

    async def bury(self, seq_no: int, letter: bytes) -> None:
        await self._request("asking", Bury, self.name, 0, seq_no, letter)

    async def dismiss(self, member_id: int) -> None:
        await self._request("asking", Dismiss, self.name, member_id)

    async def excuse(self, pool_id: int) -> None:
        await self._request("leaving", Excuse, pool_id)

    @property
    def letter_bytes_max(self) -> int:
        return letter_bytes_max(self._handle, self.name)

    def copy_in_letter(self, seq_no: int) -> EventEnvelope | None:
        letter = StoredLetters(self._handle.path, self.name).find(seq_no)
        return None if letter is None else envelope_of_letter(letter, seq_no)

    def dead_letters(self) -> list[DeadLetter]:
        return read_dead_letters(self._handle.path, self.name)

    def close(self) -> None:
        """Give the pipes back."""
        if self._handle.generation != forks.generation:
            return
        for pipe in self._pipes.values():
            self._handle.pipes.discard(pipe)
            pipe.close()
        self._pipes.clear()
