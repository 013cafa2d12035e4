"""The log's bucket of keys and values: read, and write in place of the revision that was read.

A value is one message of the bucket's stream; its revision is that message's number. A write names
the revision that it replaces, and of two that race one is `Conflict`.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from eventlog.errors import CorruptLog, EventTooLarge, LogDeleted, LogFull
from eventlog.jetstream.connection import Inbox, NoAnswerer
from eventlog.jetstream.feed import Feed
from eventlog.jetstream.link import (
    ANSWER_S,
    IS_FULL,
    NO_STREAM,
    TOO_LARGE,
    Link,
    Refused,
    answer_of,
)
from eventlog.jetstream.times import ns_of
from eventlog.remote.driver import Unreachable

WRONG_REVISION: Final = frozenset({10071, 10164})
_DELETED: Final = {"KV-Operation": "DEL"}
_PLAIN: Final = re.compile(r"[A-Za-z0-9_-]+")


class Conflict(Exception):
    """Somebody else has written meanwhile."""


class Value(NamedTuple):
    """What is stored under a key."""

    key: str
    revision: int
    """0: nothing ever was."""
    data: bytes
    """Empty: it was deleted."""
    stored_ns: int


def word_of(name: str) -> str:
    """A consumer's name as a part of a key: itself, or `=` and the hexadecimal of its UTF-8."""
    return name if _PLAIN.fullmatch(name) else f"={name.encode().hex()}"


def name_of(word: str) -> str:
    """The inverse of `word_of`."""
    return bytes.fromhex(word[1:]).decode() if word.startswith("=") else word


class Bucket:
    """The bucket of one log."""

    def __init__(self, link: Link, name: str) -> None:
        self._link = link
        self._name = name
        self._stream = f"KV_{name}"
        self._prefix = f"$KV.{name}."
        self._direct = f"$JS.API.DIRECT.GET.{self._stream}"

    @property
    def path(self) -> str:
        """What errors call the log."""
        return self._link.address.path

    @property
    def name(self) -> str:
        """As `nats kv` calls it."""
        return self._name

    @property
    def value_bytes_max(self) -> int:
        """The largest value that the server takes."""
        return self._link.payload_bytes_max

    # --- reading -----------------------------------------------------------------------------

    async def read(self, key: str) -> Value:
        """The value; `revision` 0 if there never was one, `data` empty if it was deleted.

        Raises:
            LogDeleted, Unreachable.
        """
        request = json.dumps({"last_by_subj": self._prefix + key}).encode()
        try:
            message = await self._link.call(self._direct, request)
        except NoAnswerer:
            raise await self._why_silent() from None
        headers = message.headers
        status = headers.get("Status")
        if status == "404":
            return Value(key, 0, b"", 0)
        if status is not None:
            raise Unreachable(f"the server of {self.path} answers {status}")
        return Value(
            key, int(headers["Nats-Sequence"]), message.data, ns_of(headers["Nats-Time-Stamp"])
        )

    async def find(self, pattern: str) -> list[Value]:
        """All values whose key matches (`*` is one word), in the order of their writes.

        Raises:
            LogDeleted, Unreachable.
        """
        feed = self.feed(pattern)
        found: list[Value] = []
        try:
            await feed.open()
            while feed.pending:
                for one in await feed.next():
                    key = one.subject.decode().removeprefix(self._prefix)
                    found.append(Value(key, one.seq_no, one.data, one.stored_ns))
        finally:
            await feed.aclose()
        return [value for value in found if value.data]

    def feed(self, pattern: str) -> Feed:
        """The values now, and each one that is written from then on."""
        config = {"deliver_policy": "last_per_subject", "filter_subject": self._prefix + pattern}
        return Feed(self._link, self._stream, config)

    # --- writing -----------------------------------------------------------------------------

    async def write(self, key: str, revision: int, data: bytes, others: Mapping[str, bytes]) -> int:
        """Replace a value, if it has that revision, and others in the same step, as they are.

        Empty data deletes. The new revision.

        Raises:
            Conflict: nothing was written.
            LogFull, EventTooLarge, LogDeleted, Unreachable.
        """
        headers = {"Nats-Expected-Last-Subject-Sequence": str(revision)}
        if not data:
            headers |= _DELETED
        try:
            with await self._link.inbox(self._prefix + key) as inbox:
                if others:
                    headers |= await self._stage(inbox, others)
                await inbox.send(data, headers)
                answer: Any = await inbox.next(ANSWER_S)
            return int(answer_of(answer)["seq"])
        except NoAnswerer:
            raise await self._why_silent() from None
        except Refused as refused:
            raise self._meaning(refused, key) from None

    async def _stage(self, inbox: Inbox, others: Mapping[str, bytes]) -> dict[str, str]:
        """Send the others; the headers of the last message, which stores them all."""
        batch = secrets.token_hex(8)
        for number, (key, data) in enumerate(others.items(), 1):
            headers = {"Nats-Batch-Id": batch, "Nats-Batch-Sequence": str(number)}
            await inbox.tell(data, headers if data else headers | _DELETED, self._prefix + key)
        return {
            "Nats-Batch-Id": batch,
            "Nats-Batch-Sequence": str(len(others) + 1),
            "Nats-Batch-Commit": "1",
        }

    async def _why_silent(self) -> Exception:
        """Why nobody listens: the bucket is gone, or the servers choose a leader for it."""
        try:
            await self._link.api(f"STREAM.INFO.{self._stream}")
        except Refused as refused:
            if refused.code == NO_STREAM:
                return self._gone()
        except NoAnswerer:
            pass
        return Unreachable(f"the server of {self.path} reads and writes no positions now")

    def _gone(self) -> LogDeleted:
        return LogDeleted(
            f"the positions of the log {self.path} are gone: its bucket {self._name} was deleted;"
            " open the log again, and consumers begin anew",
            path=self.path,
        )

    def _meaning(self, refused: Refused, key: str) -> Exception:
        if refused.code in WRONG_REVISION:
            return Conflict()
        if refused.code == TOO_LARGE:
            return EventTooLarge(
                f"the value of {key} is larger than the bucket {self._name} of the log {self.path}"
                f" takes: {refused}; raise its max_msg_size",
                path=self.path,
            )
        if refused.code in IS_FULL:
            return LogFull(
                f"the server of {self.path} has no room for positions: {refused}; give it more"
                " room",
                path=self.path,
            )
        return Unreachable(f"the server of {self.path} did not write: {refused}")

    def corrupt(self, key: str, data: bytes) -> CorruptLog:
        """The error for a value that eventlog has not written."""
        name = name_of(key.split(".")[1])
        return CorruptLog(
            f"the position of the consumer {name!r} of the log {self.path} is {data[:40]!r}, which"
            f" eventlog has not written; delete the key {key} of the bucket {self._name}, and the"
            " consumer begins anew",
            path=self.path,
            consumer=name,
        )
