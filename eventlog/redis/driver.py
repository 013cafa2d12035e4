"""A log on a Redis or Valkey server: what `eventlog.remote` asks of it, as calls of scripts."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final
from uuid import UUID, uuid4

from eventlog.api.group import DeadLetter, GroupReport
from eventlog.api.refusals import (
    beyond_the_last,
    full_by_retention,
    group_mismatch,
    not_supported,
    state_of_group,
    wrong_last,
)
from eventlog.config import LEASE_S_DEFAULT, MIB, AskedOptions, GroupOrdering, LogOptions
from eventlog.errors import NotALog, StorageFailed, UnknownFormat
from eventlog.redis.address import parse
from eventlog.redis.entries import entries_from, foreign, missing, truncated
from eventlog.redis.group import RedisGroup
from eventlog.redis.link import Asked, Link
from eventlog.redis.reader import RedisReader
from eventlog.redis.refusals import deleted
from eventlog.redis.scripts import script
from eventlog.redis.settings import options_on
from eventlog.remote.driver import Opened, OutOfTurn, Position, State, Stored

VERSION: Final = 1
"""The version of the stored keys and their contents (lua/common.lua)."""
ATOMIC_EVENTS_MAX: Final = 1000
"""A script keeps all others waiting: so many events take it a few milliseconds."""
ATOMIC_BYTES_MAX: Final = 1 * MIB
RECORD_BYTES_MAX: Final = 64 * MIB
"""The server's own limit for one value, proto-max-bulk-len, is 512 MiB unless it is set."""

LOG_SCRIPTS: Final = frozenset({"append", "state", "find_time", "positions", "trim"})
"""They do not need lua/groups.lua."""


class RedisDriver:
    """The driver of one handle of one log; see `remote.driver.Driver`."""

    def __init__(self, address: str, asked: AskedOptions) -> None:
        self._address = parse(address, os.environ, asked)
        self._asked = asked
        self.lease_s = LEASE_S_DEFAULT if asked.lease_s is None else asked.lease_s
        """After so long without a word of it a member is dead."""
        self._link = Link(self._address)
        self._log_id = b""
        self.mean_bytes = 0
        """The size of an event on average, when the state was last asked for."""

    @property
    def path(self) -> str:
        """The address, without user and password."""
        return self._address.path

    @property
    def link(self) -> Link:
        """The connection."""
        return self._link

    # --- opening -----------------------------------------------------------------------------

    async def open(self) -> Opened:
        """Connect; make the log if there is none, check one that is there."""
        options = await options_on(self._link, self._asked, self.path)
        answer = await self._link.run(
            script("open"),
            [self._address.stream, self._address.name_of("log")],
            *(uuid4().hex, VERSION, "options", json.dumps(options.to_dict())),
            *_limits(options),
        )
        if answer[0] == "HALF":
            raise NotALog(
                f"the stream of {self.path} was deleted and other keys of the log were left; delete"
                f" those that begin with {self._address.name_of('')} too, or choose another name",
                path=self.path,
            )
        if answer[0] == "OTHER":
            raise NotALog(
                f"the key {self._address.stream!r} of {self.path} holds a {answer[1].decode()} that"
                " eventlog did not make; choose another name",
                path=self.path,
            )
        if int(answer[1]) != VERSION:
            raise UnknownFormat(
                f"the log {self.path} is of version {int(answer[1])}, and this release knows"
                f" {VERSION}; use the release that made it",
                path=self.path,
            )
        stored = LogOptions.from_dict({**json.loads(answer[3]), "durability": options.durability})
        self._log_id = answer[2]
        return Opened(
            log_id=UUID(answer[2].decode()),
            options=stored,
            record_bytes_max=RECORD_BYTES_MAX,
            atomic_events_max=ATOMIC_EVENTS_MAX,
            atomic_bytes_max=ATOMIC_BYTES_MAX,
        )

    async def aclose(self) -> None:
        """Close the connection."""
        await self._link.aclose()

    # --- events ------------------------------------------------------------------------------

    async def append(
        self,
        producer_id: int,
        producer_seq: int,
        records: Sequence[bytes],
        expect_last: int | None = None,
    ) -> int:
        """Store records in order; the number of the first one."""
        keys = [*self.keys(), self._address.name_of(f"producer:{producer_id:x}")]
        expected = "" if expect_last is None else expect_last
        answer = await self.run("append", keys, producer_seq, expected, *records)
        if answer[0] == "OTHER":
            raise wrong_last(self.path, expect_last, int(answer[1]))
        if answer[0] == "EARLY":
            raise OutOfTurn
        return int(answer[1])

    async def state(self) -> State:
        """First, last and size."""
        _, first, last, size = await self.run("state", self.keys())
        self.mean_bytes = size // max(last - first + 1, 1)
        return State(first, last, size)

    async def read(self, seq_no: int, count: int) -> list[Stored]:
        """Up to `count` events from `seq_no` on, of those stored now."""
        is_known = False
        while True:
            entries = await self._answer(await self.ask_page(seq_no, count))
            found = entries_from(entries, seq_no, self.path)
            if found:
                return found
            state = await self.state()
            if seq_no < state.first:
                raise truncated(self.path, seq_no, state.first)
            if seq_no > state.last:
                if entries:
                    raise foreign(self.path)
                return []
            if is_known:
                raise missing(self.path, seq_no)
            is_known = True  # it may have been appended since it was looked for

    async def ask_page(self, seq_no: int, count: int) -> Asked:
        """Ask for up to `count` events, and do not wait for them: `page_of` gives them."""
        command = b"XRANGE", self._address.stream, seq_no, b"+", b"COUNT", count
        return await self._link.ask(command, self._asks_id(), are_entries=True)

    async def page_of(self, asked: Asked, seq_no: int) -> list[Stored]:
        """What was asked for, as far as it was stored when the server read it."""
        return entries_from(await self._answer(asked), seq_no, self.path)

    async def _ask(self, *command: Any) -> Any:
        """The reply to a command that reads, if it is of the log still."""
        return await self._answer(await self._link.ask(command, self._asks_id()))

    async def _answer(self, asked: Asked) -> Any:
        found, log_id = await self._link.answers(asked)
        # Asked last: if that is the log still, what was read before is of the log too.
        if log_id != self._log_id:
            raise deleted(self.path)
        return found

    def _asks_id(self) -> tuple[Any, ...]:
        return b"HGET", self._address.name_of("log"), b"id"

    def reader(self, seq_no: int) -> RedisReader:
        """For a stream that follows from `seq_no` on."""
        return RedisReader(self, seq_no)

    async def synced(self) -> None:
        """Refuse: a server that is asked (WAITAOF) answers no other call of the connection."""
        raise not_supported(
            "redis", "synced", self.path, 'set appendfsync always, which makes it "sync"'
        )

    async def find_time(self, time_ns: int) -> int:
        """The first event stored at or after that time; one past the last if there is none."""
        answer = await self.run("find_time", self.keys(), -(-time_ns // 1000))
        return int(answer[1])

    async def trim(self, before: int) -> None:
        """Delete the events before that one, a part of them in each step."""
        while before > 1 and int((await self.run("trim", self.keys(), before))[1]):
            pass

    # --- consumers ---------------------------------------------------------------------------

    async def positions(self) -> Mapping[str, Position]:
        """All consumers, groups too."""
        _, positions, states = await self.run("positions", [*self.keys(), self._states_key])
        kept = dict(_pairs(states))
        return {
            name.decode(): _position(value, kept.get(name)) for name, value in _pairs(positions)
        }

    async def move(self, consumer: str, position: int, *, is_ack: bool) -> None:
        """Set a consumer's position; as an `ack`, forward only."""
        await self._move(consumer, position, int(is_ack))

    async def ack_state(self, consumer: str, position: int, state: bytes) -> None:
        """As `move` by an `ack`, with the state in the same step."""
        await self._move(consumer, position, 1, state)

    async def _move(self, consumer: str, position: int, *arguments: Any) -> None:
        keys = [*self.group_keys(consumer), self._states_key]
        answer = await self.run("move", keys, consumer, position, *arguments)
        if answer[0] == "BEYOND":
            raise beyond_the_last(self.path, consumer, position, int(answer[1]))
        if answer[0] == "GROUP":
            raise state_of_group(consumer, self.path)

    async def forget(self, consumer: str) -> None:
        """Remove a consumer, and the group of its name."""
        await self.run("forget", [*self.group_keys(consumer), self._states_key], consumer)

    # --- groups ------------------------------------------------------------------------------

    async def group(
        self, name: str, ordering: GroupOrdering, max_deliveries: int, position: int
    ) -> RedisGroup:
        """Make the group, from after `position`, or find it."""
        answer = await self.run(
            "group", self.group_keys(name), name, ordering or "", max_deliveries, position
        )
        if answer[0] == "MISMATCH":
            raise group_mismatch(name, self.path, answer[1].decode() or None, int(answer[2]))
        return RedisGroup(self, name)

    async def groups(self) -> list[GroupReport]:
        """All groups, by name."""
        found = await self._ask(b"SMEMBERS", self._address.name_of("groups"))
        names = sorted(name.decode() for name in found)
        return [report for name in names for report in await RedisGroup(self, name).reports()]

    async def dead_letters(self, group: str) -> list[DeadLetter]:
        """Those of a group, in the order in which they died."""
        return await RedisGroup(self, group).dead_letters()

    async def retry_dead(self, group: str, seq_nos: Sequence[int]) -> int:
        """Hand them out again; how many of the numbers were some."""
        return await RedisGroup(self, group).retry_dead(seq_nos)

    async def drop_dead(self, group: str, seq_nos: Sequence[int]) -> int:
        """Forget them; how many of the numbers were some."""
        return await RedisGroup(self, group).drop_dead(seq_nos)

    def group_keys(self, name: str) -> list[str]:
        """The keys that the scripts of groups get."""
        return [
            *self.keys(),
            self._address.name_of(f"group:{name}"),
            self._address.name_of("groups"),
        ]

    # --- scripts -----------------------------------------------------------------------------

    @property
    def _states_key(self) -> str:
        return self._address.name_of("states")

    def keys(self) -> list[str]:
        """The keys that every script gets first."""
        return [
            self._address.stream,
            self._address.name_of("log"),
            self._address.name_of("consumers"),
        ]

    async def run(self, name: str, keys: list[str], *arguments: Any) -> list[Any]:
        """Run a script on the log that was opened, and on no other.

        Raises:
            LogDeleted: it is gone.
            Unreachable, EventLogError: as `Link.call`.
        """
        channel = self._address.name_of("changed")
        parts = () if name in LOG_SCRIPTS else ("groups",)
        answer = await self._link.run(script(name, *parts), keys, self._log_id, channel, *arguments)
        self._check(answer)
        return answer

    def _check(self, answer: list[Any]) -> None:
        match answer[0]:
            case "GONE":
                raise deleted(self.path)
            case "FOREIGN":
                raise foreign(self.path)
            case "FULL":
                name, position, max_bytes = answer[1].decode(), int(answer[2]), int(answer[3])
                raise full_by_retention(self.path, max_bytes, name, position + 1)
            case "FORGOTTEN":
                raise StorageFailed(
                    f"the server of {self.path} no longer knows whether a repeated batch is stored;"
                    " look at the end of the log before you append it again",
                    path=self.path,
                )


def _limits(options: LogOptions) -> list[Any]:
    """What scripts need of the options, as fields and values."""
    retention = options.retention
    limits: list[Any] = ["keep_unacked", int(retention.keep_unacked)]
    if retention.max_bytes is not None:
        limits += ["max_bytes", retention.max_bytes]
    if retention.max_age is not None:
        limits += ["max_age_us", int(retention.max_age.total_seconds() * 1e6)]
    return limits


def _pairs(flat: list[bytes]) -> Iterator[tuple[bytes, bytes]]:
    """Fields and values of a hash, as scripts have them."""
    return zip(flat[::2], flat[1::2], strict=True)


def _position(value: bytes, kept: bytes | None) -> Position:
    """A consumer; its state stands behind the position at which it was stored."""
    position, when_us = value.split(b":")
    at, _, state = (kept or b"").partition(b":")
    return Position(int(position), int(when_us) * 1000, state if at == position else None)
