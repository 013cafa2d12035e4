"""One run from producers to consumers, which most workloads have in common."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Final, NamedTuple

from benchmark import measures
from benchmark.events import ORDERS, Payload
from benchmark.processes import Crew, Link, Member
from benchmark.results import FOREIGN_PERCENT, Figures
from benchmark.settings import Settings
from benchmark.systems.base import (
    MakeSystem,
    Place,
    Received,
    Sent,
    System,
    Work,
    why_missing,
)
from benchmark.workloads.base import FOREIGN_NOTE, Column, Contender


@dataclass(frozen=True, slots=True, kw_only=True)
class Transfer:
    """What one run measured; `sending` is from the first send until the last event left."""

    count: int
    """Events that each consumer got."""
    sending_s: float
    delivering_s: float
    """From the first send until the last consumer has the last event."""
    producer_cpu_s: float
    """CPU time of all producers."""
    consumers_cpu_s: float
    """CPU time of all consumers, until each of them had the last event."""
    own_cpu_s: float
    """CPU time of the system's own processes, such as the log's writer, until the end."""
    others_cpu_while_sending_s: float
    """CPU time of everybody but the producers: the consumers, the system's own processes, and
    whatever else ran on the machine while the producers were sending."""
    foreign_share: float
    """Share of the machine's processors that was used by processes that are no part of this run."""
    delays_ns: list[int]
    """From each send to the consumer, sorted, where the rate was given."""

    @property
    def cpu_us(self) -> float:
        """User and system time of all processes together, for each event."""
        total_s = self.producer_cpu_s + self.consumers_cpu_s + self.own_cpu_s
        return total_s / self.count * 1e6


def transfer(
    make: MakeSystem,
    count: int,
    consumers: int,
    settings: Settings,
    *,
    producers: int = 1,
    payload: Payload = ORDERS,
    rate_per_s: float | None = None,
) -> Transfer:
    """Send `count` events from each producer to each consumer, through a system of this run's own.

    Raises:
        RunFailed: one of the processes did.
    """
    work = Work(count=count, payload=payload, producers=producers, rate_per_s=rate_per_s)
    with settings.new_directory() as directory:
        place = Place(
            directory=directory,
            consumers=consumers,
            payload=payload,
            durability=settings.durability,
        )
        system = make(place)
        with system.opened() as own_pids, Crew() as crew:
            return _run(system, crew, own_pids, work)


def _run(system: System, crew: Crew, own_pids: list[int], work: Work) -> Transfer:
    producers, consumers = _start(system, crew, work)
    other_pids = [*own_pids, *(member.pid for member in consumers)]
    own_before, others_before = measures.cpu_s(own_pids), measures.cpu_s(other_pids)
    machine_before, start_s = measures.machine_cpu_s(), time.monotonic()
    crew.tell(*producers)
    sent: list[Sent] = crew.hear(*producers)
    producers_cpu_s = sum(one.cpu_s for one in sent)
    others_cpu_s = measures.machine_cpu_s() - machine_before - producers_cpu_s
    received: list[Received] = crew.hear(*consumers)
    machine_cpu_s, wall_s = measures.machine_cpu_s() - machine_before, time.monotonic() - start_s
    own_cpu_s = measures.cpu_s(own_pids) - own_before
    ours_s = measures.cpu_s(other_pids) - others_before + producers_cpu_s
    crew.tell(*producers, *consumers)
    start_ns = min(one.start_ns for one in sent)
    end_ns = max(one.end_ns for one in sent)
    return Transfer(
        count=work.count * work.producers,
        sending_s=(end_ns - start_ns) / 1e9,
        delivering_s=(max(end_ns, *_ends(received)) - start_ns) / 1e9,
        producer_cpu_s=producers_cpu_s,
        consumers_cpu_s=sum(one.cpu_s for one in received),
        own_cpu_s=own_cpu_s,
        others_cpu_while_sending_s=others_cpu_s,
        foreign_share=max(machine_cpu_s - ours_s, 0.0) / (measures.cores() * wall_s),
        delays_ns=sorted(_delays_ns(sent, received)),
    )


def _ends(received: list[Received]) -> list[int]:
    return [0, *(one.end_ns for one in received)]


def _delays_ns(sent: list[Sent], received: list[Received]) -> Iterator[int]:
    """Delay of each event: with one producer, events come in the order in which they were sent."""
    for one in received:
        for sent_ns, received_ns in zip(sent[0].sent_ns, one.received_ns, strict=True):
            yield received_ns - sent_ns


def _start(system: System, crew: Crew, work: Work) -> tuple[list[Member], list[Member]]:
    """The producers and the consumers, all of them open and waiting."""
    producers = [
        crew.start(f"producer {index}", partial(_produce, system, work))
        for index in range(work.producers)
    ]
    consumers = [
        crew.start(f"consumer {index}", partial(_consume, system, work, index))
        for index in range(system.place.consumers)
    ]
    crew.hear(*consumers)
    crew.tell(*producers)
    crew.hear(*producers)
    return producers, consumers


def _produce(system: System, work: Work, link: Link) -> None:
    system.run_producer(link, work)


def _consume(system: System, work: Work, index: int, link: Link) -> None:
    system.run_consumer(link, work, index)


# --- what workloads of throughput have in common -----------------------------------------------

FIGURE: Final = "events_per_s"
NOTE: Final = (
    "Every event is decoded by its receiver. us: CPU time, user and system, for each event; all us:"
    " of all processes together, servers among them. " + FOREIGN_NOTE
)
COLUMNS: Final = (
    Column(FIGURE, "events/s"),
    Column("cpu_us", "all us", 2),
    Column("producer_cpu_us", "producer us", 2),
    Column("consumer_cpu_us", "consumer us", 2),
    Column("own_cpu_us", "server us", 2),
    Column(FOREIGN_PERCENT, "foreign %"),
)


class Entry(NamedTuple):
    """A contender of such a workload; `events` are a second or two's worth for it."""

    name: str
    make: MakeSystem
    events: int
    consumers: int = 1
    producers: int = 1
    payload: Payload = ORDERS


def contender(entry: Entry, settings: Settings) -> Contender:
    """The entry as one that can be run."""
    return Contender(entry.name, partial(_throughput, entry, settings), why_missing(entry.make))


def _throughput(entry: Entry, settings: Settings) -> Figures:
    """`events` in all, from however many producers."""
    run = transfer(
        entry.make,
        max(settings.scaled(entry.events) // entry.producers, 1),
        entry.consumers,
        settings,
        producers=entry.producers,
        payload=entry.payload,
    )
    return throughput_of(run)


def throughput_of(run: Transfer) -> dict[str, float]:
    """The figures of a run."""
    return {
        FIGURE: run.count / run.delivering_s,
        "cpu_us": run.cpu_us,
        "producer_cpu_us": run.producer_cpu_s / run.count * 1e6,
        "consumer_cpu_us": run.consumers_cpu_s / run.count * 1e6,
        "own_cpu_us": run.own_cpu_s / run.count * 1e6,
        FOREIGN_PERCENT: run.foreign_share * 100,
    }
