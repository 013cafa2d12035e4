"""One producer's process to one consumer's, as fast as they can: dicts of 150 bytes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from benchmark.results import RatioGoal
from benchmark.settings import Settings
from benchmark.systems.bare_loop import BareLoop, bare_loop_batched
from benchmark.systems.faster_fifo_queue import FasterFifo, faster_fifo_lists, faster_fifo_many
from benchmark.systems.iceoryx2_service import Iceoryx2, Iceoryx2Spinning
from benchmark.systems.jetstream import JetStream
from benchmark.systems.kafka_protocol import KafkaProtocol
from benchmark.systems.log import BlockingLog, TrioLog, blocking_log_batched, trio_log_batched
from benchmark.systems.log_typed import TypedLog, typed_log_batched
from benchmark.systems.msgpack_pipe import MsgpackPipe, pipe_batched
from benchmark.systems.multiprocessing_queue import MultiprocessingQueue
from benchmark.systems.raw_pipe import RawPipe
from benchmark.systems.redis_streams import RedisStreams
from benchmark.systems.zenoh_session import Zenoh
from benchmark.systems.zmq_sockets import (
    ZmqPushPull,
    zmq_batched,
    zmq_batched_with_codecs_of_log,
    zmq_with_codecs_of_log,
)
from benchmark.workloads.base import Contender, Workload
from benchmark.workloads.transfer import COLUMNS, FIGURE, NOTE, Entry, contender

ENTRIES: Final = (
    Entry("log, trio, event by event", TrioLog, 800_000),
    Entry("log, trio, batches", trio_log_batched, 1_000_000),
    Entry("log, blocking, event by event", BlockingLog, 800_000),
    Entry("log, blocking, batches", blocking_log_batched, 1_000_000),
    Entry("log, typed, event by event", TypedLog, 800_000),
    Entry("log, typed, batches", typed_log_batched, 1_000_000),
    Entry("multiprocessing.Queue", MultiprocessingQueue, 200_000),
    Entry("multiprocessing.Pipe, event by event", MsgpackPipe, 300_000),
    Entry("multiprocessing.Pipe, batched by hand", pipe_batched, 800_000),
    Entry("pyzmq, event by event", ZmqPushPull, 500_000),
    Entry("pyzmq, batched by hand", zmq_batched, 1_000_000),
    Entry("pyzmq, event by event, the log's codecs", zmq_with_codecs_of_log, 500_000),
    Entry("pyzmq, batched by hand, the log's codecs", zmq_batched_with_codecs_of_log, 1_000_000),
    Entry("faster-fifo, event by event", FasterFifo, 300_000),
    Entry("faster-fifo, put_many", faster_fifo_many, 800_000),
    Entry("faster-fifo, batched by hand", faster_fifo_lists, 1_000_000),
    Entry("iceoryx2, woken", Iceoryx2, 100_000),
    Entry("iceoryx2, spinning", Iceoryx2Spinning, 200_000),
    Entry("zenoh", Zenoh, 100_000),
    Entry("Redis Streams, pipelined", RedisStreams, 100_000),
    Entry("JetStream, 256 at a time", JetStream, 20_000),
    Entry("Kafka protocol (Tansu)", KafkaProtocol, 200_000),
    Entry("limit: raw pipe", RawPipe, 400_000),
    Entry("limit: msgpack alone, event by event", BareLoop, 1_000_000, consumers=0),
    Entry("limit: msgpack alone, batches", bare_loop_batched, 1_000_000, consumers=0),
)
BY_EVENT: Final = (
    "multiprocessing.Queue",
    "multiprocessing.Pipe, event by event",
    "pyzmq, event by event",
    "faster-fifo, event by event",
    "iceoryx2, woken",
    "iceoryx2, spinning",
    "zenoh",
)


def _goals(
    way: str, to: str | tuple[str, ...], name: str, at_least: float | None
) -> list[RatioGoal]:
    return [
        RatioGoal(
            text=f"log, {client}, {way} / {name}",
            figure=FIGURE,
            of=f"log, {client}, {way}",
            to=to,
            at_least=at_least,
        )
        for client in ("trio", "blocking")
    ]


class Throughput(Workload):
    """See the module."""

    name = "throughput"
    title = "One producer to one consumer, dicts of 150 bytes"
    note = "Batches: 1000 an append_many, 256 a message of the others. " + NOTE
    columns = COLUMNS
    compared = FIGURE
    goals = (
        *_goals("event by event", BY_EVENT, "the best peer, event by event", 1.5),
        *_goals("event by event", "multiprocessing.Queue", "multiprocessing.Queue", 3.0),
        *_goals("batches", "pyzmq, batched by hand", "pyzmq, batched by hand", 1.2),
        *_goals(
            "batches",
            ("faster-fifo, batched by hand", "faster-fifo, put_many"),
            "faster-fifo, batched by hand",
            0.85,
        ),
        *_goals(
            "event by event",
            "limit: msgpack alone, event by event",
            "msgpack alone, event by event",
            None,
        ),
        *_goals("batches", "limit: msgpack alone, batches", "msgpack alone, batches", None),
    )

    @contextmanager
    def opened(self, settings: Settings) -> Iterator[Sequence[Contender]]:
        """Nothing is shared between runs."""
        yield [contender(entry, settings) for entry in ENTRIES]
