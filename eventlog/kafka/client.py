"""How the library's clients are set, and calls that a thread of the library answers."""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Final, TypeVar

import anyio
from confluent_kafka import (
    OFFSET_INVALID,
    Consumer,
    IsolationLevel,
    KafkaError,
    KafkaException,
    Producer,
    TopicCollection,
    TopicPartition,
    Uuid,
)
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic, OffsetSpec

from eventlog.api.loops import call_in_this_loop
from eventlog.errors import LogDeleted
from eventlog.kafka.address import Address
from eventlog.kafka.refusals import error_of, refusal_of
from eventlog.remote.driver import Unreachable

T = TypeVar("T")
CALL_S: Final = 5.0
"""A call that is not answered by then counts as unanswered; the shell repeats it."""
POLL_S: Final = 1.0
"""How long a thread waits in the library at most before it looks whether it is to end."""
PARTITION: Final = 0
LINGER_MS: Final = 3000
"""What a flush has left behind is sent then; longer than handing a batch to the library takes."""
_LONG_POLL_MS: Final = 10_000
_OUTDATED: Final = {
    KafkaError.FENCED_LEADER_EPOCH,
    KafkaError.UNKNOWN_LEADER_EPOCH,
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError._NOENT,
}
"""What the client knows of the partition's leader is of before its first or latest election."""
_LOGGER: Final = logging.getLogger("eventlog.kafka")
_LOGGER.addHandler(logging.NullHandler())
"""What the library would write to stderr otherwise; errors tell it too."""
_QUIET: Final = {"log_level": 0, "log.connection.close": False, "logger": _LOGGER}
_CONNECTING: Final = {
    "client.id": "eventlog",
    "socket.keepalive.enable": True,
    "socket.connection.setup.timeout.ms": 3000,
    "reconnect.backoff.ms": 50,
    "reconnect.backoff.max.ms": 500,
    "retry.backoff.ms": 20,
    "retry.backoff.max.ms": 500,
}


class Client:
    """A cluster, as one handle knows it."""

    def __init__(self, address: Address) -> None:
        self.path = address.path
        self.topic = address.topic
        self._settings = {
            "bootstrap.servers": ",".join(address.hosts),
            "error_cb": self._note_error,
            **_QUIET,
            **_CONNECTING,
            **address.settings,
        }
        self._denied: KafkaError | None = None
        """Why the servers let nobody in: the library tells it beside the calls, which go on."""
        self._admin = self._made(AdminClient, {})

    def _made(self, make: Callable[[dict[str, Any]], T], settings: dict[str, Any]) -> T:
        """One of the library's clients.

        Raises:
            PermissionDenied, StorageFailed: as it cannot be made with these files and passwords.
        """
        try:
            return make({**self._settings, **settings})
        except KafkaException as raised:
            raise refusal_of(error_of(raised), self.path) from None

    def _note_error(self, error: KafkaError) -> None:
        if error.code() in (KafkaError._AUTHENTICATION, KafkaError._SSL):
            self._denied = error

    def unanswered(self) -> Exception:
        """The error for a call that nobody answered."""
        self._admin.poll(0)  # `_note_error` is called by this
        return refusal_of(self._denied, self.path)

    # --- producers and consumers -------------------------------------------------------------

    def producer(self) -> Producer:
        """A producer that sends nothing before `flush`, and gives nothing up.

        What is produced before a `flush` leaves as one batch, and the broker stores a batch whole.
        It asks the broker for an id, by which a batch that is sent again is stored once.
        """
        settings = {
            "acks": "all",
            "enable.idempotence": True,
            "enable.gapless.guarantee": True,
            "linger.ms": LINGER_MS,
            "batch.num.messages": 100_000,
            "batch.size": 16 << 20,
            "message.max.bytes": 1_000_000_000,
            "message.timeout.ms": 0,
        }
        return self._made(Producer, settings)

    def consumer(self, *, is_waiting: bool) -> Consumer:
        """A consumer without a group; `is_waiting`: one that follows, whose requests wait long."""
        settings = {
            "group.id": "eventlog",  # the library wants one; nothing is ever committed in it
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "enable.partition.eof": True,
            "auto.offset.reset": "error",
            "isolation.level": "read_uncommitted",
            "fetch.wait.max.ms": _LONG_POLL_MS if is_waiting else 10,
            "fetch.error.backoff.ms": 20,
            "queued.max.messages.kbytes": 16 * 1024,
        }
        return self._made(Consumer, settings)

    # --- calls -------------------------------------------------------------------------------

    async def answer(self, future: Future[T]) -> T:
        """Wait for what a call was answered.

        Raises:
            Unreachable, EventLogError: as `refusal_of`.
        """
        try:
            return await self._result(future)
        except KafkaException as raised:
            raise self._refusal(error_of(raised)) from None

    async def _result(self, future: Future[T]) -> T:
        ended = anyio.Event()
        notify = call_in_this_loop(ended.set)
        future.add_done_callback(lambda _: notify())
        with anyio.move_on_after(CALL_S):
            await ended.wait()
        if not future.done():
            raise self.unanswered()
        return future.result()

    async def find_topic(self, topic: str) -> tuple[Uuid | None, int] | None:
        """The id of a topic, and how many partitions it has; `None` if there is no such topic."""
        asked = self._admin.describe_topics(TopicCollection([topic]), request_timeout=CALL_S)
        try:
            found = await self._result(asked[topic])
        except KafkaException as raised:
            error = error_of(raised)
            if error is not None and error.code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
                return None
            raise self._refusal(error) from None
        return found.topic_id, len(found.partitions)

    def _refusal(self, error: KafkaError | None) -> Exception:
        if error is not None and error.code() in _OUTDATED:
            # The library answers from what it knows for minutes: after a restart of the broker, and
            # of a new topic that had no leader yet when it was first asked for.
            self._admin = self._made(AdminClient, {})
        found = refusal_of(error, self.path)
        return self.unanswered() if isinstance(found, Unreachable) else found

    async def make_topic(self, topic: str, config: dict[str, str]) -> None:
        """Make a topic of one partition; one that is there stays as it is."""
        new = NewTopic(topic, num_partitions=1, replication_factor=-1, config=config)
        asked = self._admin.create_topics([new], request_timeout=CALL_S)
        try:
            await self._result(asked[topic])
        except KafkaException as raised:
            error = error_of(raised)
            if error is None or error.code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise self._refusal(error) from None

    async def config_of(self, topic: str) -> dict[str, str]:
        """What a topic is set to; empty if the server does not tell."""
        resource = ConfigResource(ConfigResource.Type.TOPIC, topic)
        asked = self._admin.describe_configs([resource], request_timeout=CALL_S)
        found = await self.answer(asked[resource])
        return {name: entry.value for name, entry in found.items() if entry.value is not None}

    async def cluster_id(self) -> str:
        """The name that the cluster has given itself."""
        found = await self.answer(self._admin.describe_cluster(request_timeout=CALL_S))
        return str(found.cluster_id)

    async def offset(self, topic: str, spec: OffsetSpec) -> int:
        """The first offset, the one after the last, or the first of a time; -1 if there is none."""
        partition = TopicPartition(topic, PARTITION)
        asked = self._admin.list_offsets(
            {partition: spec},
            isolation_level=IsolationLevel.READ_UNCOMMITTED,
            request_timeout=CALL_S,
        )
        found = int((await self.answer(asked[partition])).offset)
        if found == OFFSET_INVALID:  # so the library says, as an answer, that it was cut off
            raise self.unanswered()
        return found

    async def bounds(self, topic: str) -> tuple[int, int]:
        """The first offset, and the one after the last."""
        first = await self.offset(topic, OffsetSpec.earliest())
        return first, await self.offset(topic, OffsetSpec.latest())

    async def bounds_of_new(self, topic: str) -> tuple[int, int]:
        """The same of a topic that was just made, and that not every broker may know of yet."""
        try:
            return await self.bounds(topic)
        except LogDeleted:
            raise Unreachable(f"the server of {self.path} does not know {topic} yet") from None

    def delete_before(self, topic: str, offset: int) -> None:
        """Have the broker delete what is before an offset, some time."""
        self._admin.delete_records([TopicPartition(topic, PARTITION, offset)])

    async def deleted_before(self, topic: str, offset: int) -> None:
        """Have the broker delete what is before an offset, now."""
        partition = TopicPartition(topic, PARTITION, offset)
        asked = self._admin.delete_records([partition], request_timeout=CALL_S)
        await self.answer(asked[partition])
