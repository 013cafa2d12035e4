"""Positions of consumers: each a key of the log's bucket, which `nats kv` shows.

A write names the revision that it replaces (the number of the bucket's message that it has read).
So of two that race one is refused, reads again, and an acknowledgement never moves back.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from eventlog.errors import CorruptLog, LogDeleted, LogFull
from eventlog.jetstream.feed import Feed
from eventlog.jetstream.link import IS_FULL, Link, NoAnswerer, Refused, answer_of
from eventlog.remote.driver import Position, Unreachable

WRONG_REVISION: Final = frozenset({10071, 10164})
_PLAIN: Final = re.compile(r"[A-Za-z0-9_-]+")


class _Known(NamedTuple):
    """A position, and the revision that says so; 0: there is none."""

    revision: int
    position: int | None


ABSENT: Final = _Known(0, None)


def word_of(consumer: str) -> str:
    """A consumer's name as a part of a key: itself, or `=` and the hexadecimal of its UTF-8."""
    return consumer if _PLAIN.fullmatch(consumer) else f"={consumer.encode().hex()}"


def name_of(word: str) -> str:
    """The inverse of `word_of`."""
    return bytes.fromhex(word[1:]).decode() if word.startswith("=") else word


class Positions:
    """See the module."""

    def __init__(self, link: Link, bucket: str) -> None:
        self._link = link
        self._stream = f"KV_{bucket}"
        self._prefix = f"$KV.{bucket}.consumer."
        self._known: dict[str, _Known] = {}
        """Positions as this handle last wrote or read them; others may have moved them."""

    async def all(self) -> Mapping[str, Position]:
        """Every consumer's.

        Raises:
            CorruptLog, LogDeleted, Unreachable.
        """
        config = {"deliver_policy": "last_per_subject", "filter_subject": f"{self._prefix}*"}
        feed = Feed(self._link, self._stream, config)
        found: dict[str, Position] = {}
        try:
            await feed.open()
            while feed.pending:
                for message in await feed.next():
                    word = message.subject.removeprefix(self._prefix)
                    position = self._unpacked(word, message.data)
                    if position is not None:
                        found[name_of(word)] = Position(position, message.stored_ns)
        finally:
            await feed.aclose()
        return found

    async def move(self, consumer: str, position: int, *, is_ack: bool) -> None:
        """Set one; as an `ack`, forward only.

        Raises:
            LogFull, LogDeleted, CorruptLog, Unreachable.
        """
        word = word_of(consumer)
        known = self._known.get(word) or await self._read(word)
        while True:
            is_behind = known.position is not None and position <= known.position
            # What is known here may be old: others move it back only by a seek, so look.
            if is_ack and is_behind:
                known = await self._read(word)
                if known.position is not None and position <= known.position:
                    return
            data = json.dumps({"position": position}).encode()
            if await self._is_written(word, known.revision, position, data):
                return
            known = await self._read(word)

    async def forget(self, consumer: str) -> None:
        """Remove one."""
        word = word_of(consumer)
        known = await self._read(word)
        while known.position is not None:
            if await self._is_written(word, known.revision, None, b""):
                return
            known = await self._read(word)

    async def _read(self, word: str) -> _Known:
        request = json.dumps({"last_by_subj": self._prefix + word}).encode()
        try:
            message = await self._link.call(f"$JS.API.DIRECT.GET.{self._stream}", request)
        except NoAnswerer:
            raise self._gone() from None
        headers = message.headers or {}
        status = headers.get("Status")
        if status == "404":
            known = ABSENT
        elif status is not None:
            raise Unreachable(f"the server of {self._link.address.path} answers {status}")
        else:
            known = _Known(int(headers["Nats-Sequence"]), self._unpacked(word, message.data))
        self._known[word] = known
        return known

    async def _is_written(
        self, word: str, revision: int, position: int | None, data: bytes
    ) -> bool:
        """Whether it was stored; else somebody else was faster."""
        self._known.pop(word, None)  # until it is known what became of this
        headers = {"Nats-Expected-Last-Subject-Sequence": str(revision)}
        if not data:
            headers["KV-Operation"] = "DEL"
        path = self._link.address.path
        try:
            answer = answer_of(await self._link.call(self._prefix + word, data, headers))
        except NoAnswerer:
            raise self._gone() from None
        except Refused as refused:
            if refused.code in WRONG_REVISION:
                return False
            if refused.code in IS_FULL:
                raise LogFull(
                    f"the server of {path} has no room for positions: {refused}; give it more room",
                    path=path,
                ) from None
            raise Unreachable(str(refused)) from None
        self._known[word] = _Known(int(answer["seq"]), position)
        return True

    def _unpacked(self, word: str, data: bytes) -> int | None:
        """The position; `None` if the consumer was forgotten."""
        if not data:
            return None
        try:
            position: Any = json.loads(data)["position"]
            if type(position) is int and position >= 0:
                return position
        except (ValueError, LookupError, TypeError):
            pass
        path = self._link.address.path
        raise CorruptLog(
            f"the position of the consumer {name_of(word)!r} of the log {path} is {data[:40]!r},"
            f" which eventlog has not written; delete the key consumer.{word} of the bucket"
            f" {self._stream.removeprefix('KV_')}, and the consumer begins anew",
            path=path,
            consumer=name_of(word),
        )

    def _gone(self) -> LogDeleted:
        path = self._link.address.path
        return LogDeleted(
            f"the positions of the log {path} are gone: its bucket"
            f" {self._stream.removeprefix('KV_')} was deleted; open the log again, and consumers"
            " begin anew",
            path=path,
        )
