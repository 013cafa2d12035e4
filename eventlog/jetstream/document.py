"""A consumer's document, which several handles change: each change works on what others have left.

A change is a function that gets the document, changes it, and returns its answer. Changes of one
handle that come together are one write. A write that somebody else came before is made again, on
what that one wrote. So a change may be made several times, and must be one that can be repeated
also if it was stored and its answer was lost: `state` says how each of them is.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

import msgspec

from eventlog.errors import EventLogError
from eventlog.jetstream.bucket import Bucket, Conflict, Value, word_of
from eventlog.jetstream.state import Consumer
from eventlog.remote.driver import GivenUp, Unreachable

T = TypeVar("T")

OTHERS_MAX: Final = 500
"""Keys that are written with a document; those of one more change fit into a batch of 1,000."""
CONFLICTS_MAX: Final = 4
WRITE_S_MAX: Final = 0.1
"""Bounds of the pause after a write that somebody else came before: of what writes take."""


@dataclass
class Draft:
    """What a change works on."""

    consumer: Consumer | None
    """`None`: there is none, or it is to be removed."""
    revision: int
    size: int
    """The bytes of the document as it is stored."""
    others: dict[str, bytes] = field(default_factory=dict)
    """Keys and values that are written in the same step; empty ones delete."""

    def encoded(self) -> bytes:
        """What is to be stored."""
        return b"" if self.consumer is None else msgspec.json.encode(self.consumer)


Make = Callable[[Draft], Awaitable[T]]


@dataclass
class _Change:
    make: Make[Any]
    result: asyncio.Future[Any]
    may_be_old: bool
    answer: Any = None


def decode(bucket: Bucket, value: Value) -> Consumer | None:
    """What is stored.

    Raises:
        CorruptLog: it is none of ours.
    """
    if not value.data:
        return None
    try:
        consumer = msgspec.json.decode(value.data, type=Consumer)
    except (msgspec.DecodeError, RecursionError):
        raise bucket.corrupt(value.key, value.data) from None
    if consumer.position < 0:
        raise bucket.corrupt(value.key, value.data)
    return consumer


class Document:
    """One document through one handle."""

    def __init__(self, bucket: Bucket, name: str) -> None:
        self._bucket = bucket
        self.key = f"consumer.{word_of(name)}"
        self._changes: deque[_Change] = deque()
        self._runner: asyncio.Task[None] | None = None
        self._conflicts = 0
        """Writes in a row that somebody else came before."""
        self._latest: Value | None = None
        """As this handle last wrote or read it; others may have written since."""

    async def change(self, make: Make[T], *, may_be_old: bool = False) -> T:
        """Let `make` change the document, store that, and return its answer.

        An answer of one that changes nothing is of the document as it is now. Or it is of what this
        handle knows, if it `may_be_old`: whoever asks goes on to wait for a later revision.

        Raises:
            LogFull, LogDeleted, CorruptLog, EventTooLarge, Unreachable; and what `make` raises.
        """
        change = _Change(make, asyncio.get_running_loop().create_future(), may_be_old)
        self._changes.append(change)
        if self._runner is None or self._runner.done():
            self._runner = asyncio.create_task(self._run())
        answer: T = await change.result
        return answer

    def note(self, value: Value) -> None:
        """Somebody has read it."""
        if self._latest is not None and value.revision > self._latest.revision:
            self._latest = value

    async def aclose(self) -> None:
        """End; changes that wait are `Unreachable`."""
        if self._runner is not None:
            self._runner.cancel()
            await asyncio.wait([self._runner])

    async def _run(self) -> None:
        taken: list[_Change] = []
        try:
            while self._changes:
                taken = []
                await self._make_some(taken)
        except BaseException as error:
            is_closed = isinstance(error, asyncio.CancelledError)
            failure = Unreachable("the handle is closed") if is_closed else error
            _fail([*taken, *self._changes], failure)
            self._changes.clear()
            if is_closed:
                raise

    async def _make_some(self, taken: list[_Change]) -> None:
        """Make the changes that there are, in one write; those to be made again stay there."""
        try:
            is_read_now = self._latest is None
            value = self._latest = self._latest or await self._bucket.read(self.key)
            draft = Draft(decode(self._bucket, value), value.revision, len(value.data))
        except (Unreachable, EventLogError) as error:
            self._latest = None
            _fail(self._changes, error)
            self._changes.clear()
            return
        before = draft.encoded()
        if not await self._made(draft, taken):
            return
        data = draft.encoded()
        if data != before or draft.others:
            await self._write(value, data, draft, taken)
        elif is_read_now or all(change.may_be_old for change in taken):
            _answer(taken)
        else:
            self._put_back(taken)
            self._latest = None

    async def _made(self, draft: Draft, taken: list[_Change]) -> bool:
        """Whether all changes were made; else one has failed, and the draft is of no use."""
        while self._changes and len(draft.others) < OTHERS_MAX:
            change = self._changes.popleft()
            if change.result.done():
                continue  # whoever wanted it has gone
            try:
                change.answer = await change.make(draft)
            except (Unreachable, GivenUp, EventLogError) as error:
                _fail([change], error)
                self._put_back(taken)
                return False
            taken.append(change)
        return True

    async def _write(self, value: Value, data: bytes, draft: Draft, taken: list[_Change]) -> None:
        self._latest = None  # until it is known what became of this
        clock = asyncio.get_running_loop().time
        began = clock()
        try:
            revision = await self._bucket.write(self.key, value.revision, data, draft.others)
        except Conflict:
            self._put_back(taken)
            # Others are at it: by making room for each other all of them are done sooner.
            self._conflicts = min(self._conflicts + 1, CONFLICTS_MAX)
            took_s = min(clock() - began, WRITE_S_MAX)
            await asyncio.sleep(random.uniform(0, self._conflicts * took_s))  # noqa: S311
        except (Unreachable, EventLogError) as error:
            _fail(taken, error)
        else:
            self._conflicts = 0
            self._latest = Value(self.key, revision, data, 0)
            _answer(taken)

    def _put_back(self, taken: list[_Change]) -> None:
        self._changes.extendleft(reversed(taken))
        taken.clear()


def _answer(changes: list[_Change]) -> None:
    for change in changes:
        if not change.result.done():
            change.result.set_result(change.answer)


def _fail(changes: deque[_Change] | list[_Change], error: BaseException) -> None:
    for change in changes:
        if not change.result.done():
            change.result.set_exception(error)
