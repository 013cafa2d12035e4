"""A log on a Kafka cluster: what `eventlog.remote` asks of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Final
from uuid import NAMESPACE_URL, UUID, uuid5

from confluent_kafka import Uuid
from confluent_kafka.admin import OffsetSpec

from eventlog.api.group import DeadLetter, GroupReport
from eventlog.api.refusals import not_supported
from eventlog.config import LEASE_S_DEFAULT, AskedOptions, GroupOrdering
from eventlog.kafka import group, topics
from eventlog.kafka.address import Address
from eventlog.kafka.client import Client
from eventlog.kafka.journal import Journal
from eventlog.kafka.reading import MS_NS, EventReader, Reads, find_marks
from eventlog.kafka.refusals import deleted
from eventlog.kafka.sender import Batch, Sender
from eventlog.kafka.watch import EndWatch
from eventlog.remote.driver import Opened, Position, State, Stored, Unreachable

MEAN_BYTES: Final = 100
"""What an event is taken for, before one was read."""


class KafkaDriver:
    """The driver of one handle of one log; see `remote.driver.Driver`."""

    def __init__(self, address: Address, asked: AskedOptions) -> None:
        self._address = address
        self._asked = asked
        self._topic = address.topic
        self.lease_s = LEASE_S_DEFAULT if asked.lease_s is None else asked.lease_s
        self._log_id: UUID
        self._client: Client
        self._reads: Reads | None = None
        self._sender: Sender | None = None
        self._journal: Journal | None = None
        self._watch: EndWatch | None = None

    @property
    def path(self) -> str:
        """The address, without user and password."""
        return self._address.path

    # --- opening -----------------------------------------------------------------------------

    async def open(self) -> Opened:
        """See `Driver`."""
        topics.check_options(self._asked, self.path)
        self._client = client = Client(self._address)
        found = await client.find_topic(self._topic)
        if found is None:
            await client.make_topic(self._topic, topics.events_config(self._asked))
            found = await client.find_topic(self._topic)
        if found is None:
            raise Unreachable(f"the server of {self.path} does not know the topic yet")
        config = await client.config_of(self._topic)
        topics.check_topic(found[1], config, self.path)
        self._log_id = await self._id_of(found[0])
        _, end = await client.bounds_of_new(self._topic)
        self._start(end, config)
        batch_bytes = topics.batch_bytes_max(config)
        return Opened(
            log_id=self._log_id,
            options=topics.options_of(config, self._asked, self.path),
            record_bytes_max=topics.message_bytes_max(config) - 1024,
            atomic_events_max=min(
                topics.ATOMIC_EVENTS_MAX, batch_bytes // (2 * topics.PER_RECORD_BYTES)
            ),
            atomic_bytes_max=batch_bytes // 2,
        )

    def _start(self, end: int, config: Mapping[str, str]) -> None:
        client, topic = self._client, self._topic
        self._reads = Reads(client, topic)
        self._watch = EndWatch(client, topic)
        self._watch.note_last(end)
        self._journal = Journal(client, topics.journal_of(topic, self._log_id))

        def find(offset: int, batches: Sequence[Batch]) -> list[int | None]:
            return find_marks(client, topic, offset, batches)

        self._sender = Sender(client, topic, end, topics.batch_bytes_max(config), find)

    async def _id_of(self, topic_id: Uuid | None) -> UUID:
        """The topic's own id; brokers that give it none have one that its name makes."""
        if (log_id := _uuid_of(topic_id)).int:
            return log_id
        return uuid5(NAMESPACE_URL, f"{await self._client.cluster_id()}/{self._topic}")

    async def aclose(self) -> None:
        """See `Driver`."""
        for part in (self._reads, self._sender, self._journal, self._watch):
            if part is not None:
                part.close()

    # --- events ------------------------------------------------------------------------------

    async def append(
        self,
        producer_id: int,
        producer_seq: int,
        records: Sequence[bytes],
        expect_last: int | None = None,
    ) -> int:
        """See `Driver`."""
        if expect_last is not None:
            raise not_supported("kafka", "expect_last", self.path)
        assert self._sender is not None
        batch = self._sender.submit(producer_id, producer_seq, records)
        return await self._sender.stored(batch) + 1

    async def state(self) -> State:
        """See `Driver`."""
        await self._check_id()
        first, end = await self._client.bounds(self._topic)
        return State(first + 1, end, (end - first) * MEAN_BYTES)

    async def _check_id(self) -> None:
        found = await self._client.find_topic(self._topic)
        if found is None:
            raise deleted(self.path)
        topic_id = _uuid_of(found[0])
        if topic_id.int and topic_id != self._log_id:
            raise deleted(self.path)

    async def read(self, seq_no: int, count: int) -> list[Stored]:
        """See `Driver`."""
        assert self._reads is not None
        return await self._reads.read(seq_no, count)

    def reader(self, seq_no: int) -> EventReader:
        """See `Driver`."""
        assert self._reads is not None
        return EventReader(self._reads, seq_no)

    async def synced(self) -> None:
        """See `Driver`."""
        raise not_supported(
            topics.ENGINE, "synced", self.path, 'make it with durability="sync" (flush.messages=1)'
        )

    async def find_time(self, time_ns: int) -> int:
        """See `Driver`."""
        time_ms = max(-(-time_ns // MS_NS), 0)
        found = await self._client.offset(self._topic, OffsetSpec.for_timestamp(time_ms))
        if found < 0:
            found = await self._client.offset(self._topic, OffsetSpec.latest())
        return found + 1

    async def trim(self, before: int) -> None:
        """See `DriverThatTrims`."""
        await self._client.deleted_before(self._topic, before - 1)

    # --- consumers ---------------------------------------------------------------------------

    @property
    def journal(self) -> Journal:
        """Positions and groups."""
        assert self._journal is not None
        return self._journal

    async def positions(self) -> Mapping[str, Position]:
        """See `Driver`."""
        return await self.journal.current(lambda ledger: dict(ledger.positions))

    async def move(self, consumer: str, position: int, *, is_ack: bool) -> None:
        """See `Driver`."""
        await self.journal.say("move", consumer, position, is_ack)

    async def forget(self, consumer: str) -> None:
        """See `Driver`."""
        await self.journal.say("forget", consumer)

    # --- groups ------------------------------------------------------------------------------

    @property
    def watch(self) -> EndWatch:
        """The watch over the log's end: tasks that wait for new events ask it."""
        assert self._watch is not None
        return self._watch

    async def bounds(self) -> State:
        """First and last, of this topic or of one that took its place."""
        first, end = await self._client.bounds(self._topic)
        return State(first + 1, end, 0)

    async def group(
        self, name: str, ordering: GroupOrdering, max_deliveries: int, position: int
    ) -> group.KafkaGroup:
        """See `DriverOfGroups`."""
        return await group.open_group(self, name, ordering, max_deliveries, position)

    async def groups(self) -> list[GroupReport]:
        """See `DriverOfGroups`."""
        last = (await self.bounds()).last
        return await self.journal.current(lambda ledger: group.reports(ledger, last))

    async def dead_letters(self, group_name: str) -> list[DeadLetter]:
        """See `DriverOfGroups`."""
        look = partial(group.dead_letters, name=group_name, path=self.path)
        return await self.journal.current(look)

    async def retry_dead(self, group_name: str, seq_nos: Sequence[int]) -> int:
        """See `DriverOfGroups`."""
        return await group.retry_dead(self, group_name, seq_nos)

    async def drop_dead(self, group_name: str, seq_nos: Sequence[int]) -> int:
        """See `DriverOfGroups`."""
        return int(await self.journal.say("drop", group_name, list(seq_nos)))


def _uuid_of(topic_id: Uuid | None) -> UUID:
    """The id, 0 if there is none."""
    if topic_id is None:
        return UUID(int=0)
    high = topic_id.get_most_significant_bits() & (2**64 - 1)
    return UUID(int=high << 64 | topic_id.get_least_significant_bits() & (2**64 - 1))
