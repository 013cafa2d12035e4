"""The engine's driver: one log on a NATS server, through one handle, in an asyncio event loop."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final
from uuid import UUID, uuid4

from eventlog.api.group import DeadLetter, GroupReport
from eventlog.config import (
    BATCH_BYTES_LIMIT,
    LEASE_S_DEFAULT,
    RETRY_S_DEFAULT,
    AskedOptions,
    GroupOrdering,
)
from eventlog.errors import NotSupported
from eventlog.jetstream import streams
from eventlog.jetstream.address import Address
from eventlog.jetstream.appends import BATCH_EVENTS_MAX, Appends
from eventlog.jetstream.bucket import Bucket, name_of
from eventlog.jetstream.connection import NoAnswerer
from eventlog.jetstream.document import decode
from eventlog.jetstream.group import JetStreamGroup
from eventlog.jetstream.letters import count_letters
from eventlog.jetstream.link import NO_STREAM, Link, Refused
from eventlog.jetstream.parts import LogParts
from eventlog.jetstream.positions import Positions
from eventlog.jetstream.reading import EventReader, Events
from eventlog.remote.driver import Opened, Position, State, Stored, Unreachable
from eventlog.remote.group_state import Options

IN_USE: Final = 10058
"""There is a stream of that name, set in another way."""


class JetStreamDriver:
    """See `remote.driver.Driver`."""

    def __init__(self, address: Address, asked: AskedOptions) -> None:
        self._address = address
        self._asked = asked
        self._retry_s = RETRY_S_DEFAULT if asked.retry_s is None else asked.retry_s
        self._link = Link(address)
        self._events: Events
        self._appends: Appends
        self._positions: Positions
        self._parts: LogParts
        self._groups: dict[str, JetStreamGroup] = {}
        self._closing: list[Callable[[], Awaitable[None]]] = []
        """What ends tasks of this handle, the last one first."""

    @property
    def path(self) -> str:
        """See `Driver`."""
        return self._address.path

    # --- opening -----------------------------------------------------------------------------

    async def open(self) -> Opened:
        """See `Driver`."""
        streams.check_options(self._asked, self._retry_s, self.path)
        self._link = Link(self._address)
        try:
            return await self._open()
        except BaseException:
            await self._link.aclose()
            raise

    async def _open(self) -> Opened:
        stream = self._address.stream
        config = await self._find_stream() or await self._make_stream()
        log_id = streams.check_stream(config, self._retry_s, self.path)
        subject = streams.subject_of(stream, log_id)
        await self._make_bucket(log_id, config["storage"])
        self._events = Events(self._link, stream, subject, log_id.hex)
        self._appends = Appends(self._link, subject)
        bucket = Bucket(self._link, streams.bucket_of(log_id))
        self._positions = Positions(bucket)
        self._closing.append(self._positions.aclose)
        lease_s = LEASE_S_DEFAULT if self._asked.lease_s is None else self._asked.lease_s
        self._parts = LogParts(
            link=self._link,
            events=self._events,
            appends=self._appends,
            bucket=bucket,
            log_id=log_id.hex,
            lease_s=lease_s,
            window_ns=config["duplicate_window"],
        )
        payload_max = self._link.payload_bytes_max
        if config.get("max_msg_size", -1) > 0:
            payload_max = min(payload_max, config["max_msg_size"])
        return Opened(
            log_id=log_id,
            options=streams.options_of(config, payload_max),
            record_bytes_max=payload_max - streams.RECORD_OVERHEAD_BYTES,
            atomic_events_max=BATCH_EVENTS_MAX,
            atomic_bytes_max=BATCH_BYTES_LIMIT,
        )

    async def _api(self, verb: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        try:
            return await self._link.api(verb, body)
        except NoAnswerer:
            raise NotSupported(
                f"the server of {self.path} has no JetStream, or not for this account; start it"
                " with --jetstream",
                path=self.path,
                engine=streams.NAME,
            ) from None

    async def _find_stream(self) -> dict[str, Any] | None:
        try:
            info = await self._api(f"STREAM.INFO.{self._address.stream}")
        except Refused as refused:
            if refused.code == NO_STREAM:
                return None
            raise self._cannot_open(refused) from None
        return dict(info["config"])

    async def _make_stream(self) -> dict[str, Any]:
        stream = self._address.stream
        config = streams.events_config(stream, uuid4(), self._asked, self._retry_s)
        try:
            made = await self._api(f"STREAM.CREATE.{stream}", config)
        except Refused as refused:
            found = await self._find_stream() if refused.code == IN_USE else None
            if found is None:
                raise self._cannot_open(refused) from None
            return found  # others were faster
        return dict(made["config"])

    async def _make_bucket(self, log_id: UUID, storage: str) -> None:
        config = streams.bucket_config(log_id, storage, self._retry_s)
        try:
            await self._api(f"STREAM.CREATE.{config['name']}", config)
        except Refused as refused:
            if refused.code != IN_USE:  # it was set in another way since, which is up to them
                raise self._cannot_open(refused) from None

    def _cannot_open(self, refused: Refused) -> NotSupported:
        return NotSupported(
            f"the server of {self.path} refuses the stream: {refused}",
            path=self.path,
            engine=streams.NAME,
        )

    async def aclose(self) -> None:
        """See `Driver`."""
        self._groups.clear()
        while self._closing:
            await self._closing.pop()()
        await self._link.aclose()

    # --- events ------------------------------------------------------------------------------

    async def append(
        self,
        producer_id: int,
        producer_seq: int,
        records: Sequence[bytes],
        expect_last: int | None = None,
    ) -> int:
        """See `Driver`."""
        try:
            return await self._appends.append(producer_id, producer_seq, records, expect_last)
        except NoAnswerer:
            await self._events.state()
            raise Unreachable(f"the server of {self.path} stores nothing now") from None

    async def state(self) -> State:
        """See `Driver`."""
        return await self._events.state()

    async def read(self, seq_no: int, count: int) -> list[Stored]:
        """See `Driver`."""
        return await self._events.read(seq_no, count)

    def reader(self, seq_no: int) -> EventReader:
        """See `Driver`."""
        return EventReader(self._events, seq_no)

    async def synced(self) -> None:
        """See `Driver`."""
        raise NotSupported(
            f"the server of {self.path} does not tell what it has synced to its disk; its setting"
            " sync_interval says how often it does",
            path=self.path,
            engine=streams.NAME,
            option="synced",
        )

    async def find_time(self, time_ns: int) -> int:
        """See `Driver`."""
        return await self._events.find_time(time_ns)

    # --- consumers ---------------------------------------------------------------------------

    async def positions(self) -> Mapping[str, Position]:
        """See `Driver`."""
        return await self._positions.all()

    async def move(self, consumer: str, position: int, *, is_ack: bool) -> None:
        """See `Driver`."""
        await self._positions.move(consumer, position, is_ack=is_ack)

    async def ack_state(self, consumer: str, position: int, state: bytes) -> None:
        """See `DriverOfStates`."""
        await self._positions.ack_state(consumer, position, state)

    async def forget(self, consumer: str) -> None:
        """See `Driver`."""
        await self._positions.forget(consumer)

    # --- groups ------------------------------------------------------------------------------

    def _group(self, name: str) -> JetStreamGroup:
        if name not in self._groups:
            self._groups[name] = JetStreamGroup(self._parts, self._positions.document(name), name)
            self._closing.append(self._groups[name].aclose)
        return self._groups[name]

    async def group(
        self, name: str, ordering: GroupOrdering, max_deliveries: int, position: int
    ) -> JetStreamGroup:
        """See `DriverOfGroups`."""
        group = self._group(name)
        await group.open(Options(ordering, max_deliveries), position)
        return group

    async def groups(self) -> list[GroupReport]:
        """See `DriverOfGroups`."""
        bucket, last = self._parts.bucket, (await self._events.state()).last
        dead = await count_letters(bucket)
        found: list[GroupReport] = []
        for value in await bucket.find("consumer.*"):
            name = name_of(value.key.removeprefix("consumer."))
            consumer = decode(bucket, value)
            report = (
                None if consumer is None else self._group(name).report(consumer, last, dead[name])
            )
            found += [] if report is None else [report]
        return sorted(found, key=lambda one: one.name)

    async def dead_letters(self, group: str) -> list[DeadLetter]:
        """See `DriverOfGroups`."""
        return await self._group(group).dead_letters()

    async def retry_dead(self, group: str, seq_nos: Sequence[int]) -> int:
        """See `DriverOfGroups`."""
        return await self._group(group).retry_dead(seq_nos)

    async def drop_dead(self, group: str, seq_nos: Sequence[int]) -> int:
        """See `DriverOfGroups`."""
        return await self._group(group).drop_dead(seq_nos)
