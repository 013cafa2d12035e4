"""Positions of consumers: each a document of the log's bucket, which `nats kv` shows.

A group is a consumer too, and its document is the same one: see `state`.
"""

from __future__ import annotations

from collections.abc import Mapping

from eventlog.api.refusals import state_of_group
from eventlog.jetstream.bucket import Bucket, name_of
from eventlog.jetstream.document import Document, Draft, decode
from eventlog.jetstream.state import Consumer
from eventlog.remote.driver import Position


class Positions:
    """The positions of one log's consumers."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket
        self._documents: dict[str, Document] = {}

    def document(self, consumer: str) -> Document:
        """The one of a consumer, through this handle."""
        if consumer not in self._documents:
            self._documents[consumer] = Document(self._bucket, consumer)
        return self._documents[consumer]

    async def aclose(self) -> None:
        """End changes that are on their way."""
        for document in self._documents.values():
            await document.aclose()

    async def all(self) -> Mapping[str, Position]:
        """Every consumer's.

        Raises:
            CorruptLog, LogDeleted, Unreachable.
        """
        found: dict[str, Position] = {}
        for value in await self._bucket.find("consumer.*"):
            consumer = decode(self._bucket, value)
            if consumer is not None:
                name = name_of(value.key.removeprefix("consumer."))
                kept = consumer.current_state
                found[name] = Position(consumer.position, value.stored_ns, kept)
        return found

    async def move(self, consumer: str, position: int, *, is_ack: bool) -> None:
        """Set one; as an `ack`, forward only.

        Raises:
            LogFull, LogDeleted, CorruptLog, Unreachable.
        """

        async def make(draft: Draft) -> None:
            if draft.consumer is None:
                draft.consumer = Consumer(position)
            elif not is_ack:
                draft.consumer.seek(position)
            elif position > draft.consumer.position:
                draft.consumer.skip(position)

        await self.document(consumer).change(make)

    async def ack_state(self, consumer: str, position: int, state: bytes) -> None:
        """Acknowledge with a state, in one step.

        Raises:
            InvalidArgument: the consumer is a group.
            LogFull, LogDeleted, CorruptLog, Unreachable.
        """

        async def make(draft: Draft) -> None:
            if draft.consumer is None:
                draft.consumer = Consumer(position)
            elif draft.consumer.options is not None:
                raise state_of_group(consumer, self._bucket.path)
            draft.consumer.keep(position, state)

        await self.document(consumer).change(make)

    async def forget(self, consumer: str) -> None:
        """Remove one, and the group of its name, whose dead letters stay."""

        async def make(draft: Draft) -> None:
            draft.consumer = None

        await self.document(consumer).change(make)
